//! Organisations and their teams.

use serde_json::{Value, json};

use super::answer::Refusal;
use super::audiences::erase_audiences;
use super::crud::{Resource, View, Writable, base, refuse};
use super::draft::{Draft, made};
use super::people::{INSIDE_MAX, place};
use super::rosters;
use super::steps::{move_tokens, room, stay_in_groups};
use super::txn::{Txn, kind_byte};
use crate::domain::time::UnixMs;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::portal::credential::Purpose;
use crate::wire::portal::fields::{Fields, Members, Ref};
use crate::wire::portal::people::{Organisation, Team, User};
use crate::wire::portal::stored::Stored;

/// The organisation that users of deleted ones move to, made in a fresh store.
pub(crate) const DEFAULT_ORGANISATION: u64 = 1;

impl Resource for Organisation {
    const KIND: Kind = Kind::Organisation;
    const NOUN: &'static str = "organisation";

    async fn show(object: &Stored, txn: &mut Txn<'_>, view: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        let owner = (Kind::Organisation, object.id);
        let mut teams = Vec::new();
        for id in txn.members(owner, Kind::Team, INSIDE_MAX).await? {
            teams.extend(team_row(txn, id).await?);
        }
        // A team made in this very transaction is not in the lists yet.
        if teams.is_empty()
            && let Some(id) = object.links.default_team
        {
            teams.extend(team_row(txn, id).await?);
        }
        let mut users = Vec::new();
        for id in txn.members(owner, Kind::User, INSIDE_MAX).await? {
            if let Some(user) = txn.object(Kind::User, id).await? {
                users.push(Value::from(User::show(&user, txn, view).await?));
            }
        }
        shown.insert("Teams".to_owned(), teams.into());
        shown.insert("Users".to_owned(), users.into());
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        if object.id == DEFAULT_ORGANISATION {
            return Err(refuse("the default organisation cannot be deleted"));
        }
        let owner = (Kind::Organisation, object.id);
        let mut room = room(txn);
        for id in txn.members(owner, Kind::User, room.saturating_add(1)).await? {
            if room == 0 {
                txn.rest.again = true;
                return Ok(());
            }
            send_home(txn, id, object.id, &mut room).await?;
            if !txn.rest.settle.is_empty() {
                txn.rest.again = true;
                return Ok(());
            }
        }
        txn.rest.again = !erase_audiences(txn, owner, &mut room).await?;
        for id in txn.members(owner, Kind::Team, room.saturating_add(1)).await? {
            if room == 0 {
                txn.rest.again = true;
                return Ok(());
            }
            room = room.saturating_sub(1);
            if let Some(team) = txn.object(Kind::Team, id).await? {
                txn.erase(Kind::Team, &team).await?;
            }
        }
        Ok(())
    }
}

impl Writable for Organisation {
    const READ_ONLY: &'static [&'static str] = &["Teams", "Users"];

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, _: &mut Draft<'_>, _: &mut Txn<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        if draft.before.is_none() {
            let id = txn.next_id(Kind::Team).await?;
            let team = default_team(&draft.after, id);
            draft.after.links.default_team = Some(id);
            txn.save_new(Kind::Team, &team);
            txn.save_new(Kind::Organisation, &draft.after);
        }
        Ok(())
    }
}

/// Moves a user of an organisation that is deleted to the default one, with its tokens. They may
/// take more commits than this; it stays in the list until they are through.
async fn send_home(
    txn: &mut Txn<'_>,
    user: u64,
    from: u64,
    room: &mut usize,
) -> Result<(), StoreError> {
    *room = room.saturating_sub(1);
    let Some(before) = txn.object(Kind::User, user).await? else { return Ok(()) };
    let mut after = before.clone();
    let moved = before.number("OrganisationID") == Some(from);
    if moved {
        place(txn, &mut after, Some(DEFAULT_ORGANISATION), Vec::new()).await?;
        stay_in_groups(&before, &mut after);
    }
    // What gateways enforce is written by what is stored.
    txn.save(Kind::User, Some(&before), &after).await?;
    let moved = moved.then_some(UnixMs(before.updated_ms));
    move_tokens(txn, Kind::User, &mut after, moved, room).await?;
    txn.save(Kind::User, Some(&before), &after).await
}

/// The team that all users of an organisation are in who are in no other.
pub(crate) fn default_team(organisation: &Stored, id: u64) -> Stored {
    let mut team = made(id, UnixMs(organisation.created_ms));
    let name = format!("{} All users", organisation.text("Name"));
    team.members.insert("Name".to_owned(), name.into());
    team.links.parent = Some(organisation.id);
    team.links.default_team = Some(id);
    team.owners.push((kind_byte(Kind::Organisation), organisation.id));
    team
}

/// A team as its organisation and its users show it.
pub(crate) async fn team_row(txn: &mut Txn<'_>, id: u64) -> Result<Option<Value>, StoreError> {
    let team = txn.object(Kind::Team, id).await?;
    Ok(team.map(|team| {
        let default = team.links.default_team == Some(id);
        json!({ "ID": id, "Name": team.text("Name"), "Default": default })
    }))
}

impl Resource for Team {
    const KIND: Kind = Kind::Team;
    const NOUN: &'static str = "team";
    const SCOPE: &'static [(Kind, &'static str)] = &[(Kind::Organisation, "organisation")];

    async fn show(object: &Stored, txn: &mut Txn<'_>, _: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        let users = txn.members((Kind::Team, object.id), Kind::User, usize::MAX).await?;
        let users: Vec<_> = users.into_iter().map(|id| Value::from(format!("User#{id}"))).collect();
        shown.insert("Users".to_owned(), users.into());
        let default = object.links.default_team == Some(object.id);
        shown.insert("Default".to_owned(), default.into());
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        if object.links.default_team == Some(object.id) {
            return Err(refuse("the default team of an organisation cannot be deleted"));
        }
        let (owner, mut room) = ((Kind::Team, object.id), room(txn));
        for user in txn.members(owner, Kind::User, room.saturating_add(1)).await? {
            if room == 0 {
                txn.rest.again = true;
                return Ok(());
            }
            room = room.saturating_sub(1);
            set_team(txn, user, object, false, UnixMs(object.updated_ms), &mut room).await?;
            if !txn.rest.settle.is_empty() {
                txn.rest.again = true;
                return Ok(());
            }
        }
        txn.rest.again = !erase_audiences(txn, owner, &mut room).await?;
        Ok(())
    }
}

impl Writable for Team {
    const READ_ONLY: &'static [&'static str] = &["Default"];

    fn normalise(body: &mut Members, _: Option<&mut Stored>) {
        Self::normalise(body);
    }

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let organisation = draft.after.links.parent;
        organisation.into_iter().for_each(|id| draft.belong(Kind::Organisation, id));
        let Some(named) = self.users.take() else { return Ok(()) };
        txn.prefetch(named.iter().filter_map(user_key)).await?;
        let users = draft.refer_all(txn, Kind::User, "Users", &named).await?;
        for id in &users {
            let user = txn.shared(Kind::User, *id).await?;
            if user.and_then(|user| user.number("OrganisationID")) != organisation {
                draft.faults.add("Users", format_args!("{id} is not of the team's organisation"));
            }
        }
        // Who is in a team lies with the users.
        draft.after.members.remove("Users");
        draft.after.links.roster = vec![rosters::list(Kind::User, users.clone())];
        let shown = users.iter().map(|id| Value::from(format!("User#{id}")));
        draft.once.insert("Users".to_owned(), shown.collect());
        Ok(())
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        if draft.after.links.roster.is_empty() {
            return Ok(());
        }
        let now = draft.state.clock.unix();
        rosters::carry_out(txn, Kind::Team, &mut draft.after, now).await?;
        txn.save(Kind::Team, draft.before.as_ref(), &draft.after).await
    }
}

fn user_key(named: &Ref) -> Option<RecordKey> {
    match named {
        Ref::Id(id) => Some(RecordKey::number(Kind::User, *id)),
        Ref::Cid(_) => None,
    }
}

/// Puts a user of the team's organisation into a team, or takes it out, with its tokens, which say
/// so. They may take more commits than this; it stays in the list until they are through.
pub(crate) async fn set_team(
    txn: &mut Txn<'_>,
    user: u64,
    team: &Stored,
    within: bool,
    now: UnixMs,
    room: &mut usize,
) -> Result<(), StoreError> {
    let Some(before) = txn.object(Kind::User, user).await? else { return Ok(()) };
    let organisation = before.number("OrganisationID");
    if within && organisation != team.links.parent {
        return Ok(());
    }
    let mut teams = before.numbers("Teams");
    teams.retain(|id| *id != team.id);
    teams.extend(within.then_some(team.id));
    let mut after = before.clone();
    place(txn, &mut after, organisation, teams).await?;
    stay_in_groups(&before, &mut after);
    for owner in &after.owners {
        if owner.0 == kind_byte(Kind::Team) && owner.1 != team.id {
            txn.guard(RecordKey::number(Kind::Team, owner.1)).await?;
        }
    }
    // What gateways enforce is written by what is stored.
    txn.save(Kind::User, Some(&before), &after).await?;
    move_tokens(txn, Kind::User, &mut after, Some(now), room).await?;
    txn.save(Kind::User, Some(&before), &after).await
}
