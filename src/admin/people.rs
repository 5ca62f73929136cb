//! Apps and users.

use serde_json::Value;

use super::answer::Refusal;
use super::crud::{Resource, View, Writable, base};
use super::draft::Draft;
use super::keys;
use super::organisations::team_row;
use super::requests::AppRequest;
use super::steps::{move_tokens, prefetch_requests, prefetch_whole, room, stay_in_groups};
use super::txn::{Txn, kind_byte, name_entry};
use crate::store::{Kind, StoreError};
use crate::wire::portal::credential::Purpose;
use crate::wire::portal::fields::{Fields, Members};
use crate::wire::portal::people::{App, User};
use crate::wire::portal::stored::Stored;

/// The most users or access requests that are shown inside of another object; the lists of their
/// own show all.
pub(crate) const INSIDE_MAX: usize = 100;

impl Resource for App {
    const KIND: Kind = Kind::App;
    const NOUN: &'static str = "app";

    async fn show(object: &Stored, txn: &mut Txn<'_>, view: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        let mut requests = Vec::new();
        for id in txn.members((Kind::App, object.id), Kind::AccessRequest, INSIDE_MAX).await? {
            if let Some(request) = txn.object(Kind::AccessRequest, id).await? {
                requests.push(Value::from(AppRequest::show(&request, txn, view).await?));
            }
        }
        shown.insert("AccessRequests".to_owned(), requests.into());
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        let mut room = room(txn);
        txn.rest.again = !empty(txn, object.id, &mut room).await?;
        Ok(())
    }
}

impl Writable for App {
    const PUT_MISSING: http::StatusCode = http::StatusCode::UNPROCESSABLE_ENTITY;
    const READ_ONLY: &'static [&'static str] = &["AccessRequests", "User"];

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let user = draft.refer(txn, Kind::User, "UserID", self.user.as_ref()).await?;
        user.into_iter().for_each(|id| draft.belong(Kind::User, id));
        Ok(())
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let before = draft.before.as_ref().and_then(|app| app.number("UserID"));
        let moved = before.is_some() && before != draft.after.number("UserID");
        if moved || draft.after.links.unsettled.is_some() {
            let (at, mut room) = (moved.then(|| draft.state.clock.unix()), room(txn));
            move_tokens(txn, Kind::App, &mut draft.after, at, &mut room).await?;
            txn.save(Kind::App, draft.before.as_ref(), &draft.after).await?;
        }
        Ok(())
    }
}

/// Deletes credentials and access requests of an app while there is room; whether that was all.
async fn empty(txn: &mut Txn<'_>, app: u64, room: &mut usize) -> Result<bool, StoreError> {
    let owner = (Kind::App, app);
    let mut ids = txn.members(owner, Kind::Credential, room.saturating_add(1)).await?;
    let all = ids.len() <= *room;
    ids.truncate(*room);
    prefetch_whole(txn, &ids).await?;
    for id in &ids {
        if let Some(credential) = txn.object(Kind::Credential, *id).await? {
            keys::remove(txn, &credential).await?;
        }
    }
    if !all {
        *room = 0;
        return Ok(false);
    }
    *room = room.saturating_sub(ids.len());
    // Those of the credentials are deleted with them, and listed still: two each at most.
    let most = room.saturating_add(2 * ids.len()).saturating_add(1);
    let ids = txn.members(owner, Kind::AccessRequest, most).await?;
    prefetch_requests(txn, &ids).await?;
    for id in ids {
        let Some(request) = txn.object(Kind::AccessRequest, id).await? else { continue };
        if *room == 0 {
            return Ok(false);
        }
        txn.erase(Kind::AccessRequest, &request).await?;
        *room = room.saturating_sub(1);
    }
    Ok(true)
}

impl Resource for User {
    const KIND: Kind = Kind::User;
    const NOUN: &'static str = "user";

    async fn show(object: &Stored, txn: &mut Txn<'_>, _: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        let organisation = match object.number("OrganisationID") {
            Some(id) => txn.object(Kind::Organisation, id).await?,
            None => None,
        };
        let name = organisation.map(|found| found.text("Name").to_owned()).unwrap_or_default();
        shown.insert("Organisation".to_owned(), name.into());
        shown.entry("OrganisationID").or_insert(0.into());
        let mut teams = Vec::new();
        for id in object.numbers("Teams") {
            teams.extend(team_row(txn, id).await?);
        }
        shown.insert("Teams".to_owned(), teams.into());
        shown.insert("JWTToken".to_owned(), "".into());
        shown.insert("APITokenCreatedAt".to_owned(), "".into());
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        let mut room = room(txn);
        for id in txn.members((Kind::User, object.id), Kind::App, room.saturating_add(1)).await? {
            let Some(app) = txn.object(Kind::App, id).await? else { continue };
            if room == 0 || !empty(txn, id, &mut room).await? {
                txn.rest.again = true;
                return Ok(());
            }
            txn.erase(Kind::App, &app).await?;
            room = room.saturating_sub(1);
        }
        Ok(())
    }
}

impl Writable for User {
    const READ_ONLY: &'static [&'static str] = &["JWTToken", "APITokenCreatedAt"];

    fn normalise(body: &mut Members, _: Option<&mut Stored>) {
        Self::normalise(body);
    }

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        draft.claim(txn, name_entry(Kind::User, 0, &self.email), "Email").await?;
        let named = self.organisation.as_ref();
        let organisation = draft.refer(txn, Kind::Organisation, "OrganisationID", named).await?;
        let had = draft.before.as_ref().map(|user| user.numbers("Teams")).unwrap_or_default();
        let mut teams = Vec::new();
        for id in draft.refer_all(txn, Kind::Team, "Teams", &self.teams).await? {
            let team = txn.object(Kind::Team, id).await?;
            if organisation.is_some() && team.and_then(|team| team.links.parent) == organisation {
                teams.push(id);
            } else if !had.contains(&id) {
                draft.faults.add("Teams", format_args!("{id} is not of the user's organisation"));
            }
        }
        place(txn, &mut draft.after, organisation, teams).await?;
        if let Some(before) = &draft.before {
            stay_in_groups(before, &mut draft.after);
        }
        Ok(())
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        // What its tokens say of it.
        let said = |user: &Stored| (user.number("OrganisationID"), user.numbers("Teams"));
        let before = draft.before.as_ref().map(said);
        let moved = before.is_some_and(|before| before != said(&draft.after));
        if moved || draft.after.links.unsettled.is_some() {
            let (at, mut room) = (moved.then(|| draft.state.clock.unix()), room(txn));
            move_tokens(txn, Kind::User, &mut draft.after, at, &mut room).await?;
            txn.save(Kind::User, draft.before.as_ref(), &draft.after).await?;
        }
        Ok(())
    }
}

/// Puts a user into an organisation and its teams; into its default team if they are none.
pub(crate) async fn place(
    txn: &mut Txn<'_>,
    user: &mut Stored,
    organisation: Option<u64>,
    mut teams: Vec<u64>,
) -> Result<(), StoreError> {
    user.owners.clear();
    if let Some(id) = organisation {
        user.owners.push((kind_byte(Kind::Organisation), id));
        if teams.is_empty() {
            let found = txn.object(Kind::Organisation, id).await?;
            teams.extend(found.and_then(|organisation| organisation.links.default_team));
        }
    }
    user.owners.extend(teams.iter().map(|id| (kind_byte(Kind::Team), *id)));
    user.members.insert("OrganisationID".to_owned(), organisation.unwrap_or(0).into());
    user.members.insert("Teams".to_owned(), teams.into());
    Ok(())
}
