//! Access requests and the credentials under them (portal-api, B3). A custom credential comes with
//! one that is approved.

use std::marker::PhantomData;

use http::StatusCode;
use serde_json::Value;

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::catalogues::names;
use super::credentials::facts;
use super::crud::{Operation, Resource, View, base, find, missing};
use super::keys::{remove, shown_token};
use super::provision::release;
use super::txn::Txn;
use crate::store::{Kind, StoreError};
use crate::wire::portal::catalogue::Catalogue;
use crate::wire::portal::fields::Members;
use crate::wire::portal::people::{App, User};
use crate::wire::portal::plan::Plan;
use crate::wire::portal::stored::Stored;

/// An access request by itself.
#[derive(Debug)]
pub(crate) struct AccessRequest;

/// An access request below its app.
#[derive(Debug)]
pub(crate) struct AppRequest;

/// A credential below its access request.
#[derive(Debug)]
pub(crate) struct Issued;

impl Resource for AccessRequest {
    const KIND: Kind = Kind::AccessRequest;
    const NOUN: &'static str = "access request";

    async fn show(object: &Stored, txn: &mut Txn<'_>, view: View) -> Result<Members, StoreError> {
        let (mut shown, products) = describe(object, txn).await?;
        shown.insert("Products".to_owned(), products.join(", ").into());
        if view.row {
            return Ok(shown);
        }
        let mut credentials = Vec::new();
        let approved = object.text("Status") != "pending" && object.text("Status") != "rejected";
        let changed = object.links.target.filter(|_| approved);
        if let Some(id) = object.links.credential.or(changed)
            && let Some(credential) = txn.object(Kind::Credential, id).await?
        {
            credentials.push(Value::from(Issued::show(&credential, txn, view).await?));
        }
        shown.insert("Credentials".to_owned(), credentials.into());
        Ok(shown)
    }

    /// Revokes the credential that it brought. One that it changed, or waited to change, goes on
    /// as it is.
    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        release(txn, object).await?;
        if let Some(id) = object.links.credential
            && let Some(credential) = txn.object(Kind::Credential, id).await?
        {
            remove(txn, &credential).await?;
        }
        Ok(())
    }
}

impl Resource for AppRequest {
    const KIND: Kind = Kind::AccessRequest;
    const NOUN: &'static str = "access request";
    const SCOPE: &'static [(Kind, &'static str)] = &[(Kind::App, "app")];

    async fn show(object: &Stored, txn: &mut Txn<'_>, _: View) -> Result<Members, StoreError> {
        let (mut shown, products) = describe(object, txn).await?;
        shown.insert("Products".to_owned(), products.into());
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        AccessRequest::cascade(object, txn).await
    }
}

impl Resource for Issued {
    const KIND: Kind = Kind::Credential;
    const NOUN: &'static str = "credential";
    const SCOPE: &'static [(Kind, &'static str)] =
        &[(Kind::App, "app"), (Kind::AccessRequest, "access request")];

    async fn show(object: &Stored, txn: &mut Txn<'_>, view: View) -> Result<Members, StoreError> {
        let mut shown = Members::new();
        let token = shown_token(object, txn.catalog().pepper(), view.reveal);
        shown.insert("ID".to_owned(), object.id.into());
        let token = if token.is_null() { "".into() } else { token };
        shown.insert("Credential".to_owned(), token);
        shown.extend(facts(object).map(|(name, value)| (name.to_owned(), value)));
        // Of OAuth clients; here always empty.
        for name in [
            "OAuthClientID",
            "OAuthClientSecret",
            "RedirectURI",
            "ResponseType",
            "GrantType",
            "Scope",
            "TokenEndpoints",
            "JWKSURI",
            "DCRRegistrationAccessToken",
            "DCRRegistrationClientURI",
            "DCRResponse",
        ] {
            shown.insert(name.to_owned(), "".into());
        }
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
        Ok(remove(txn, object).await?)
    }
}

/// What both views of an access request show, and the names of its products.
async fn describe(
    object: &Stored,
    txn: &mut Txn<'_>,
) -> Result<(Members, Vec<String>), StoreError> {
    let mut shown = base(object);
    let tied = Tied::of(object, txn).await?;
    let names = names(txn, Kind::Product, &tied.rights.numbers("ProductIDs")).await?;
    let mut found = Vec::new();
    for (kind, id) in [
        (Kind::App, object.links.parent),
        (Kind::Plan, tied.plan),
        (Kind::Catalogue, object.number("CatalogueID")),
    ] {
        let named = match id {
            Some(id) => txn.object(kind, id).await?,
            None => None,
        };
        found.push(Value::from(named.map(|o| o.text("Name").to_owned()).unwrap_or_default()));
    }
    for (member, name) in ["Client", "Plan", "Catalogue"].into_iter().zip(found) {
        shown.insert(member.to_owned(), name);
    }
    let user = tied.user.map(|id| format!("User#{id}"));
    let status = Some(object.text("Status")).filter(|status| !status.is_empty());
    let members: [(&str, Value); 6] = [
        ("AuthType", "authToken".into()),
        ("User", user.unwrap_or_default().into()),
        ("DCREnabled", false.into()),
        ("ProvisionImmediately", object.flag("ProvisionImmediately").into()),
        ("Status", status.unwrap_or("approved").into()),
        ("DeletedAt", Value::Null),
    ];
    shown.extend(members.map(|(name, value)| (name.to_owned(), value)));
    Ok((shown, names))
}

/// What an access request is about.
struct Tied {
    /// The owner of its app.
    user: Option<u64>,
    /// What has the products: the credential that it brought, as it is now, or itself.
    rights: Stored,
    /// The plan, or that of the credential it is to change.
    plan: Option<u64>,
}

impl Tied {
    async fn of(request: &Stored, txn: &mut Txn<'_>) -> Result<Self, StoreError> {
        let app = match request.links.parent {
            Some(id) => txn.object(Kind::App, id).await?,
            None => None,
        };
        let user = app.and_then(|app| app.number("UserID"));
        let links = &request.links;
        let credential = match links.credential.or(links.target) {
            Some(id) => txn.object(Kind::Credential, id).await?,
            None => None,
        };
        let had = credential.as_ref().and_then(|credential| credential.number("PlanID"));
        let brought = credential.filter(|_| links.credential.is_some());
        let rights = brought.unwrap_or_else(|| request.clone());
        let plan = rights.number("PlanID").or(had);
        Ok(Self { user, rights, plan })
    }
}

/// What an access request is about, by itself.
pub(crate) struct Related<R>(PhantomData<R>);

/// A kind of object that access requests are about.
pub(crate) trait Relative: Resource {
    /// Which one.
    fn number(request: &Stored, user: Option<u64>, plan: Option<u64>) -> Option<u64>;
}

impl Relative for User {
    fn number(_: &Stored, user: Option<u64>, _: Option<u64>) -> Option<u64> {
        user
    }
}

impl Relative for Plan {
    fn number(_: &Stored, _: Option<u64>, plan: Option<u64>) -> Option<u64> {
        plan
    }
}

impl Relative for Catalogue {
    fn number(request: &Stored, _: Option<u64>, _: Option<u64>) -> Option<u64> {
        request.number("CatalogueID")
    }
}

impl Relative for App {
    fn number(request: &Stored, _: Option<u64>, _: Option<u64>) -> Option<u64> {
        request.links.parent
    }
}

impl<R: Relative> Operation for Related<R> {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let request = find::<AccessRequest>(txn, call, StatusCode::NOT_FOUND).await?;
        let tied = Tied::of(&request, txn).await?;
        let object = match R::number(&request, tied.user, tied.plan) {
            Some(id) => txn.object(R::KIND, id).await?,
            None => None,
        };
        let object = object.ok_or_else(|| missing(R::NOUN, StatusCode::NOT_FOUND))?;
        let body = R::show(&object, txn, View::of(state, call)).await?.into();
        Ok(Answer { status: StatusCode::OK, body, object: String::new() })
    }
}
