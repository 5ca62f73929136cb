//! What a fresh store holds: organisation 1 with its default team, user 1, and catalogue 1.

use super::draft::made;
use super::organisations::{DEFAULT_ORGANISATION, default_team};
use super::people::place;
use super::txn::{Txn, kind_byte, name_entry};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::store::{Kind, RecordKey, StoreError};

/// The record that says it is done, so that user 1 does not come back once deleted.
const DONE: &str = "portal/seeded";

/// Makes organisation 1 with its default team, user 1 and public catalogue 1 in a store that never had them.
///
/// Doing it again changes nothing, on any number of gateways at once, and after a crash in the
/// middle: everything goes in with one commit. Says whether this call did it.
///
/// # Errors
/// When the store fails.
pub async fn seed(catalog: &Catalog, clock: &dyn Clock) -> Result<bool, StoreError> {
    let mut txn = Txn::new(catalog);
    let done = RecordKey::bytes(Kind::Meta, DONE);
    if txn.get(&done).await?.is_some() {
        return Ok(false);
    }
    // Takes the number 1 of each kind away, now or in a run that was cut short.
    for kind in [Kind::Organisation, Kind::Team, Kind::User, Kind::Catalogue] {
        txn.next_id(kind).await?;
    }
    let now = clock.unix();
    let object = |entry: Option<String>, members: &[(&str, &str)]| {
        let mut object = made(1, now);
        object.uniques.extend(entry);
        for (name, value) in members {
            object.members.insert((*name).to_owned(), (*value).into());
        }
        object
    };
    let mut organisation = object(None, &[("Name", "Default organisation")]);
    let team = default_team(&organisation, 1);
    organisation.links.default_team = Some(team.id);
    let email = "user@localhost";
    let members = [
        ("Email", email),
        ("First", "Default"),
        ("Last", "User"),
        ("Role", "consumer-admin"),
        ("Provider", "password"),
    ];
    let mut user = object(Some(name_entry(Kind::User, 0, email)), &members);
    user.members.insert("Active".to_owned(), true.into());
    user.members.insert("ResetPassword".to_owned(), false.into());
    for (kind, object) in [(Kind::Organisation, &organisation), (Kind::Team, &team)] {
        txn.save_new(kind, object);
    }
    place(&mut txn, &mut user, Some(DEFAULT_ORGANISATION), vec![team.id]).await?;
    debug_assert!(user.owners.contains(&(kind_byte(Kind::Team), team.id)));
    txn.save_new(Kind::User, &user);
    let members = [
        ("Name", "Public catalogue"),
        ("NameWithSlug", "public-catalogue"),
        ("VisibilityStatus", "Public"),
    ];
    let entry = name_entry(Kind::Catalogue, 0, "Public catalogue");
    let catalogue = object(Some(entry), &members);
    txn.save_new(Kind::Catalogue, &catalogue);
    txn.put(done, Some(vec![1])).await?;
    // Not committed means that another gateway was faster, with the same.
    txn.commit().await
}
