//! What a fresh store holds: organisation 1 with its default team, user 1, and catalogue 1.

use super::ATTEMPTS_MAX;
use super::draft::made;
use super::organisations::{DEFAULT_ORGANISATION, default_team};
use super::people::place;
use super::txn::{Txn, name_entry};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::stored::Stored;

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
    let done = RecordKey::bytes(Kind::Meta, DONE);
    for _ in 0..ATTEMPTS_MAX {
        let mut txn = Txn::new(catalog);
        if txn.get(&done).await?.is_some() {
            return Ok(false);
        }
        fill(&mut txn, clock).await?;
        txn.put(done.clone(), Some(vec![1])).await?;
        // Not committed means that somebody else was faster: another gateway, with the same, or a first
        // write to a store that has lost what it had.
        if txn.commit().await? {
            return Ok(true);
        }
    }
    Err(StoreError::io("written", "others were faster"))
}

/// Puts in what is not there.
async fn fill(txn: &mut Txn<'_>, clock: &dyn Clock) -> Result<(), StoreError> {
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
    if txn.shared(Kind::Organisation, 1).await?.is_none() {
        for (kind, object) in [(Kind::Organisation, &organisation), (Kind::Team, &team)] {
            txn.save_new(kind, object);
        }
    }
    if is_free(txn, Kind::User, &user).await? {
        place(txn, &mut user, Some(DEFAULT_ORGANISATION), vec![]).await?;
        txn.save_new(Kind::User, &user);
    }
    let members = [
        ("Name", "Public catalogue"),
        ("NameWithSlug", "public-catalogue"),
        ("VisibilityStatus", "Public"),
    ];
    let entry = name_entry(Kind::Catalogue, 0, "Public catalogue");
    let catalogue = object(Some(entry), &members);
    if is_free(txn, Kind::Catalogue, &catalogue).await? {
        txn.save_new(Kind::Catalogue, &catalogue);
    }
    Ok(())
}

/// Whether nothing has an object's number and names.
async fn is_free(txn: &mut Txn<'_>, kind: Kind, object: &Stored) -> Result<bool, StoreError> {
    for entry in &object.uniques {
        if txn.unique(entry).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(txn.shared(kind, object.id).await?.is_none())
}
