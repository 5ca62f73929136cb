//! Apps and users.

use serde_json::Value;

use super::answer::Refusal;
use super::crud::{Resource, View, Writable, base};
use super::draft::Draft;
use super::keys;
use super::organisations::team_row;
use super::requests::AppRequest;
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
        Ok(remove_credentials(txn, object.id).await?)
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
        if before.is_some() && before != draft.after.number("UserID") {
            keys::rewrite_tokens(txn, draft.after.id).await?;
        }
        Ok(())
    }
}

async fn remove_credentials(txn: &mut Txn<'_>, app: u64) -> Result<(), StoreError> {
    for id in txn.members((Kind::App, app), Kind::Credential, usize::MAX).await? {
        if let Some(credential) = txn.object(Kind::Credential, id).await? {
            keys::remove(txn, &credential).await?;
        }
    }
    for id in txn.members((Kind::App, app), Kind::AccessRequest, usize::MAX).await? {
        if let Some(request) = txn.object(Kind::AccessRequest, id).await? {
            txn.erase(Kind::AccessRequest, &request).await?;
        }
    }
    Ok(())
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
        for id in txn.members((Kind::User, object.id), Kind::App, usize::MAX).await? {
            if let Some(app) = txn.object(Kind::App, id).await? {
                remove_credentials(txn, id).await?;
                txn.erase(Kind::App, &app).await?;
            }
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
        place(txn, &mut draft.after, organisation, teams).await
    }

    async fn after(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let before = draft.before.as_ref().map(|user| user.number("OrganisationID"));
        if before.is_some_and(|before| before != draft.after.number("OrganisationID")) {
            rewrite_tokens(txn, draft.after.id).await?;
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

/// Writes the tokens of a user's apps anew, after what they carry of the user changed.
pub(crate) async fn rewrite_tokens(txn: &mut Txn<'_>, user: u64) -> Result<(), StoreError> {
    for app in txn.members((Kind::User, user), Kind::App, usize::MAX).await? {
        keys::rewrite_tokens(txn, app).await?;
    }
    Ok(())
}
