//! Products and plans.

use http::StatusCode;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::catalogues::{Viewer, names};
use super::crud::{Operation, Resource, View, Writable, base, find};
use super::draft::Draft;
use super::txn::{Txn, name_entry};
use crate::domain::api::Auth;
use crate::domain::policy::VersionAccess;
use crate::store::{Kind, StoreError};
use crate::wire::portal::credential::Purpose;
use crate::wire::portal::fields::{Fields, Members};
use crate::wire::portal::plan::{self, Plan};
use crate::wire::portal::product::Product;
use crate::wire::portal::secrets::METADATA;
use crate::wire::portal::stored::Stored;
use crate::wire::portal::{PROVIDER, reference_id};

impl Resource for Product {
    const KIND: Kind = Kind::Product;
    const NOUN: &'static str = "product";
    const SHELVED: bool = true;

    async fn show(object: &Stored, txn: &mut Txn<'_>, _: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        let catalogues = object.numbers("Catalogues");
        let catalogues = names(txn, Kind::Catalogue, &catalogues).await?;
        shown.insert("Catalogues".to_owned(), catalogues.into());
        for (name, value) in [("AuthType", "authToken".into()), ("AuthTypes", vec!["key"].into())] {
            if shown.get(name).is_none_or(|known| known == "") {
                shown.insert(name.to_owned(), value);
            }
        }
        for list in ["APIDetails", "SpecDetails", "Tags", "Templates"] {
            shown.entry(list).or_insert_with(|| Vec::<u64>::new().into());
        }
        if !object.flag("IsDocumentationOnly") {
            let policy = reference_id(Self::NOUN, object.id);
            shown.insert("ReferenceID".to_owned(), policy.into());
        }
        Ok(shown)
    }

    async fn seen(
        object: &Stored,
        viewer: &mut Viewer,
        txn: &mut Txn<'_>,
    ) -> Result<bool, StoreError> {
        viewer.may_ask_for(object, txn).await
    }

    /// Credentials keep the number, which is never given again; the gateway passes over it.
    async fn cascade(_: &Stored, _: &mut Txn<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Writable for Product {
    const CREATED: StatusCode = StatusCode::CREATED;
    const PUT_MISSING: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
    const READ_ONLY: &'static [&'static str] = &["ReferenceID", "AuthTypes", "Logo", "Path"];

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        draft.claim(txn, name_entry(Self::KIND, 0, &self.name), "Name").await?;
        draft.check_apis(self.apis.iter().map(|(api, _)| api));
        draft.shelve(txn, &self.catalogues).await?;
        self.check_versions(draft);
        Ok(())
    }
}

/// Rules about a product's APIs as they are configured.
trait AgainstApis {
    fn check_versions(&self, draft: &mut Draft<'_>);
}

impl AgainstApis for Product {
    fn check_versions(&self, draft: &mut Draft<'_>) {
        let snapshot = draft.state.catalog.snapshot();
        let mut open = [false; 2];
        for (named, rights) in &self.apis {
            let Some(api) = snapshot.api(&named.id) else { continue };
            let slot = usize::from(api.auth == Auth::Keyless);
            open.iter_mut().skip(slot).take(1).for_each(|seen| *seen = true);
            let (VersionAccess::Only(wanted), Some(versions)) = (&rights.versions, &api.versions)
            else {
                continue;
            };
            for version in wanted.iter().filter(|version| !versions.known.contains(version)) {
                let path = named.path.replace("APIID", "Versions");
                draft.faults.add(&path, format_args!("names {version}, which the API has not"));
            }
        }
        if open == [true, true] {
            draft.faults.add("APIDetails", "mixes APIs that need a token with APIs that need none");
        }
    }
}

/// The APIs of a product as they are configured; one of them when the path names it.
pub(crate) struct ApiDetails;

impl Operation for ApiDetails {
    async fn run(_: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let product = find::<Product>(txn, call, StatusCode::NOT_FOUND).await?;
        let snapshot = txn.catalog().snapshot();
        let entries = product.members.get("APIDetails").and_then(Value::as_array);
        let mut rows = Vec::new();
        for entry in entries.into_iter().flatten() {
            let text = |name| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let api = text("APIID").parse().ok().and_then(|id| snapshot.api(&id).cloned());
            let target = api.as_ref().and_then(|api| api.targets.first());
            rows.push(json!({
                "APIID": text("APIID"),
                "APIType": "rest",
                "Description": text("Description"),
                "OASUrl": text("OASUrl"),
                "Name": api.as_ref().map(|api| api.name.to_string()),
                "ListenPath": api.as_ref().map(|api| api.listen_path.to_string()),
                "TargetURL": target.map(|t| {
                    let scheme = if t.tls { "https" } else { "http" };
                    format!("{scheme}://{}{}", t.authority, t.base_path)
                }),
                "Status": api.is_some(),
            }));
        }
        let body = match call.params.get(1) {
            None => rows.into(),
            Some(id) => {
                let found = rows.into_iter().find(|row| row.get("APIID") == Some(&json!(id)));
                let text = "API not found".to_owned();
                found.ok_or(Refusal::Missing { status: StatusCode::NOT_FOUND, text })?
            }
        };
        Ok(Answer { status: StatusCode::OK, body, object: String::new() })
    }
}

impl Resource for Plan {
    const KIND: Kind = Kind::Plan;
    const NOUN: &'static str = "plan";
    const SHELVED: bool = true;

    async fn show(object: &Stored, _: &mut Txn<'_>, view: View) -> Result<Members, StoreError> {
        let mut shown = base(object);
        shown.entry("Catalogues").or_insert_with(|| Vec::<u64>::new().into());
        shown.insert("ProviderID".to_owned(), PROVIDER.into());
        shown.insert("ReferenceID".to_owned(), reference_id(Self::NOUN, object.id).into());
        if view.texts {
            plan::show_as_text(&mut shown);
        }
        Ok(shown)
    }

    async fn seen(
        object: &Stored,
        viewer: &mut Viewer,
        txn: &mut Txn<'_>,
    ) -> Result<bool, StoreError> {
        viewer.may_ask_for(object, txn).await
    }

    /// Credentials keep the number, which is never given again; the gateway refuses them.
    async fn cascade(_: &Stored, _: &mut Txn<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Writable for Plan {
    const READ_ONLY: &'static [&'static str] = &["ReferenceID"];
    const SECRETS: &'static [&'static str] = &[METADATA];

    fn normalise(body: &mut Members, before: Option<&mut Stored>) {
        plan::normalise(body, before.map(|stored| &mut stored.members));
    }

    fn read(fields: &mut Fields<'_>, _: Purpose) -> Self {
        Self::read(fields)
    }

    async fn check(&mut self, draft: &mut Draft<'_>, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        draft.claim(txn, name_entry(Self::KIND, 0, &self.name), "Name").await?;
        draft.check_apis(&self.apis);
        draft.shelve(txn, &self.catalogues).await?;
        Ok(())
    }
}
