//! Audiences: the organisations and teams that see a private catalogue.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::crud::{Resource, View, Writable, base};
use super::draft::{Draft, made};
use super::txn::{Txn, kind_byte, name_entry};
use crate::domain::time::UnixMs;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::catalogue::Audience;
use crate::wire::portal::credential::Purpose;
use crate::wire::portal::fields::{Faults, Fields, Members, Ref};
use crate::wire::portal::stored::Stored;

impl Resource for Audience {
    const KIND: Kind = Kind::Audience;
    const NOUN: &'static str = "audience";
    const SCOPE: &'static [(Kind, &'static str)] = &[(Kind::Catalogue, "catalogue")];

    async fn show(object: &Stored, _: &mut Txn<'_>, _: View) -> Result<Members, StoreError> {
        Ok(base(object))
    }

    async fn cascade(_: &Stored, _: &mut Txn<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Writable for Audience {
    const CREATED: StatusCode = StatusCode::CREATED;

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        self.resolve(txn, &mut draft.faults).await?;
        let catalogue = draft.after.links.parent.unwrap_or_default();
        place(&mut draft.after, catalogue, self.numbers());
        // The entry says who sees the catalogue: once is enough.
        if let Some(entry) = draft.after.uniques.pop() {
            draft.claim(txn, entry, "OrganisationID").await?;
        }
        Ok(())
    }
}

/// An audience whose organisation and team are to be looked up.
pub(crate) trait Resolve {
    /// Replaces what names them by their numbers, and names what is not there.
    async fn resolve(&mut self, txn: &mut Txn<'_>, faults: &mut Faults) -> Result<(), StoreError>;
    /// The numbers.
    fn numbers(&self) -> (Option<u64>, Option<u64>);
}

impl Resolve for Audience {
    async fn resolve(&mut self, txn: &mut Txn<'_>, faults: &mut Faults) -> Result<(), StoreError> {
        let path = self.path.clone();
        let kinds = [
            ("OrganisationID", Kind::Organisation, &mut self.organisation),
            ("TeamID", Kind::Team, &mut self.team),
        ];
        for (name, kind, named) in kinds {
            let Some(known) = named else { continue };
            match txn.resolve(kind, known).await? {
                Some(id) => *named = Some(Ref::Id(id)),
                None => faults.add(&format!("{path}{name}"), "names nothing that exists"),
            }
        }
        let (organisation, team) = self.numbers();
        if let Some(id) = team
            && let Some(team) = txn.object(Kind::Team, id).await?
            && team.links.parent != organisation
        {
            faults.add(&format!("{path}TeamID"), format_args!("{id} is not of the organisation"));
        }
        Ok(())
    }

    fn numbers(&self) -> (Option<u64>, Option<u64>) {
        let number = |named: &Option<Ref>| match named {
            Some(Ref::Id(id)) => Some(*id),
            Some(Ref::Cid(_)) | None => None,
        };
        (number(&self.organisation), number(&self.team))
    }
}

/// The audiences of a catalogue.
pub(crate) async fn audiences(
    txn: &mut Txn<'_>,
    catalogue: u64,
) -> Result<Vec<Stored>, StoreError> {
    let mut all = Vec::new();
    for id in txn.members((Kind::Catalogue, catalogue), Kind::Audience, usize::MAX).await? {
        all.extend(txn.object(Kind::Audience, id).await?);
    }
    Ok(all)
}

/// Deletes audiences that a catalogue, an organisation or a team has part in while there is room;
/// whether that was all.
pub(crate) async fn erase_audiences(
    txn: &mut Txn<'_>,
    owner: (Kind, u64),
    room: &mut usize,
) -> Result<bool, StoreError> {
    for id in txn.members(owner, Kind::Audience, room.saturating_add(1)).await? {
        if *room == 0 {
            return Ok(false);
        }
        *room = room.saturating_sub(1);
        if let Some(audience) = txn.object(Kind::Audience, id).await? {
            txn.erase(Kind::Audience, &audience).await?;
        }
    }
    Ok(true)
}

/// An audience as its catalogue shows it.
pub(crate) async fn row(
    catalogue: &Stored,
    audience: &Stored,
    txn: &mut Txn<'_>,
) -> Result<Value, StoreError> {
    let (organisation, team) = (audience.number("OrganisationID"), audience.number("TeamID"));
    let mut found = Vec::new();
    for (kind, id) in [(Kind::Organisation, organisation), (Kind::Team, team)] {
        let object = match id {
            Some(id) => txn.object(kind, id).await?,
            None => None,
        };
        found.push(object.map(|object| object.text("Name").to_owned()).unwrap_or_default());
    }
    Ok(json!({
        "ID": audience.id,
        "Catalogue": catalogue.text("Name"),
        "Organisation": found.first(),
        "Name": found.get(1),
        "OrganisationID": organisation,
        "TeamID": team,
    }))
}

/// Makes the audiences those that are wanted: known ones stay as they are.
pub(crate) async fn set_audiences(
    wanted: &[Audience],
    draft: &Draft<'_>,
    txn: &mut Txn<'_>,
) -> Result<Vec<Value>, StoreError> {
    let catalogue = &draft.after;
    let mut known = audiences(txn, catalogue.id).await?;
    let mut rows = Vec::new();
    let mut done = Vec::new();
    for audience in wanted {
        let (organisation, team) = audience.numbers();
        if done.contains(&(organisation, team)) {
            continue;
        }
        done.push((organisation, team));
        let same = |one: &Stored| {
            one.number("OrganisationID") == organisation && one.number("TeamID") == team
        };
        let object = match known.iter().position(same) {
            Some(at) => known.remove(at),
            None => {
                let id = txn.next_id(Kind::Audience).await?;
                let mut made = made(id, UnixMs(catalogue.updated_ms));
                place(&mut made, catalogue.id, (organisation, team));
                for owner in made.owners.clone() {
                    guard(txn, owner).await?;
                }
                txn.save_new(Kind::Audience, &made);
                made
            }
        };
        rows.push(row(catalogue, &object, txn).await?);
    }
    for gone in known {
        txn.erase(Kind::Audience, &gone).await?;
    }
    Ok(rows)
}

/// An audience's organisation or team must still be there when it is stored.
async fn guard(txn: &mut Txn<'_>, owner: (u8, u64)) -> Result<(), StoreError> {
    for kind in [Kind::Organisation, Kind::Team] {
        if owner.0 == kind_byte(kind) {
            txn.guard(RecordKey::number(kind, owner.1)).await?;
        }
    }
    Ok(())
}

/// Makes an audience that of a catalogue, for an organisation or one of its teams.
fn place(audience: &mut Stored, catalogue: u64, of: (Option<u64>, Option<u64>)) {
    let (organisation, team) = of;
    audience.links.parent = Some(catalogue);
    audience.members.insert("OrganisationID".to_owned(), organisation.unwrap_or(0).into());
    audience.members.insert("TeamID".to_owned(), team.unwrap_or(0).into());
    let scope = format!("{}/{}", organisation.unwrap_or(0), team.unwrap_or(0));
    audience.uniques.push(name_entry(Kind::Audience, catalogue, &scope));
    audience.owners = vec![(kind_byte(Kind::Catalogue), catalogue)];
    audience.owners.extend(organisation.map(|id| (kind_byte(Kind::Organisation), id)));
    audience.owners.extend(team.map(|id| (kind_byte(Kind::Team), id)));
}
