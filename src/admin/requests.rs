//! Access requests and the credentials under them (portal-api, B3). A custom credential comes with
//! one that is approved.

use serde_json::Value;

use super::answer::Refusal;
use super::credentials::facts;
use super::crud::{Resource, View, base};
use super::keys::{remove, shown_token};
use super::txn::Txn;
use crate::store::{Kind, StoreError};
use crate::wire::portal::fields::Members;
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
        let (mut shown, credential) = describe(object, txn).await?;
        let names = product_names(credential.as_ref(), txn).await?;
        shown.insert("Products".to_owned(), names.join(", ").into());
        if let Some(credential) = credential.filter(|_| !view.row) {
            let one = Value::from(Issued::show(&credential, txn, view).await?);
            shown.insert("Credentials".to_owned(), vec![one].into());
        }
        Ok(shown)
    }

    async fn cascade(object: &Stored, txn: &mut Txn<'_>) -> Result<(), Refusal> {
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
        let (mut shown, credential) = describe(object, txn).await?;
        let names = product_names(credential.as_ref(), txn).await?;
        shown.insert("Products".to_owned(), names.into());
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

/// What both views of an access request show, and its credential.
async fn describe(
    object: &Stored,
    txn: &mut Txn<'_>,
) -> Result<(Members, Option<Stored>), StoreError> {
    let mut shown = base(object);
    let credential = match object.links.credential {
        Some(id) => txn.object(Kind::Credential, id).await?,
        None => None,
    };
    let app = match object.links.parent {
        Some(id) => txn.object(Kind::App, id).await?,
        None => None,
    };
    let plan = match credential.as_ref().and_then(|credential| credential.number("PlanID")) {
        Some(id) => txn.object(Kind::Plan, id).await?,
        None => None,
    };
    let name = |object: &Option<Stored>| object.as_ref().map(|o| o.text("Name").to_owned());
    let user = app.as_ref().and_then(|app| app.number("UserID")).map(|id| format!("User#{id}"));
    let members: [(&str, Value); 9] = [
        ("AuthType", "authToken".into()),
        ("Catalogue", "".into()),
        ("Client", name(&app).unwrap_or_default().into()),
        ("Plan", name(&plan).unwrap_or_default().into()),
        ("User", user.unwrap_or_default().into()),
        ("DCREnabled", false.into()),
        ("ProvisionImmediately", false.into()),
        ("Status", "approved".into()),
        ("DeletedAt", Value::Null),
    ];
    shown.extend(members.map(|(name, value)| (name.to_owned(), value)));
    Ok((shown, credential))
}

async fn product_names(
    credential: Option<&Stored>,
    txn: &mut Txn<'_>,
) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for id in credential.map(|c| c.numbers("ProductIDs")).unwrap_or_default() {
        let product = txn.object(Kind::Product, id).await?;
        names.extend(product.map(|product| product.text("Name").to_owned()));
    }
    Ok(names)
}
