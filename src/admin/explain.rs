//! Why a request would be admitted or refused.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::crud::Operation;
use super::keys::token_of;
use super::txn::Txn;
use super::usage::{limit, without_token};
use crate::domain::api::{Api, Auth};
use crate::domain::decision::Request;
use crate::domain::denial::Denial;
use crate::domain::id::PolicyId;
use crate::domain::path::{EncodedSlash, NormalPath, normalise};
use crate::domain::policy::Metadata;
use crate::domain::token::{Token, TokenHash};
use crate::enforce::Explanation;
use crate::store::Kind;
use crate::wire::portal::fields::{Faults, Fields, Members, Ref};

/// Where it is asked for.
pub(crate) const PATH: &str = "/v1/explain";

/// Decides on a request that nobody sends, and tells by which policies. Nothing is charged.
pub(crate) struct Explain;

/// What is asked.
struct Question {
    holder: Option<Holder>,
    method: String,
    path: String,
    host: Option<String>,
    version: Option<String>,
}

/// Whose request it would be.
enum Holder {
    Token(Token),
    Credential(Ref),
}

impl Operation for Explain {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let mut faults = Faults::default();
        let question = Question::read(Fields::of(call.members()?, &mut faults));
        let raw = question.path.split('?').next().unwrap_or_default();
        let path = normalise(raw, EncodedSlash::Keep);
        if let (Err(fault), false) = (&path, question.path.is_empty()) {
            faults.add("Path", format_args!("is ambiguous: {fault}"));
        }
        let (true, Ok(path)) = (faults.is_empty(), path) else {
            return Err(Refusal::Faults(faults.into_texts()));
        };
        let snapshot = state.catalog.snapshot();
        let Some(found) = snapshot.route(question.host.as_deref(), path.as_str()) else {
            return Ok(answered(None, &refused(Denial::NoRoute)));
        };
        let (api, rest) = (found.value, found.rest);
        if slash_refused(api, &path) {
            let text = "Path has an encoded slash, which the API refuses".to_owned();
            return Err(Refusal::Faults(vec![text]));
        }
        if matches!(api.auth, Auth::Keyless) {
            return Ok(answered(Some(api), &Explanation::default()));
        }
        let token = question.token(txn).await?;
        let (method, version) = (question.method.as_str(), question.version.as_deref());
        let request = Request { api, method, path: path.as_str(), rest, version };
        Ok(answered(Some(api), &state.enforcer.explain(&token, &request).await?))
    }
}

impl Question {
    fn read(mut fields: Fields<'_>) -> Self {
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let token = fields.secret("KeyID").map(Holder::Token);
        let credential = fields.reference("CredentialID").map(Holder::Credential);
        if token.is_some() && credential.is_some() {
            fields.fault("CredentialID", "must not be given beside KeyID");
        }
        let path = fields.text("Path");
        if path.is_empty() && !fields.faulted("Path") {
            fields.fault("Path", "is required");
        }
        Self {
            holder: token.or(credential),
            method: filled(fields.line("Method")).unwrap_or_else(|| "GET".to_owned()),
            path,
            host: filled(fields.line("Host")),
            version: filled(fields.line("Version")),
        }
    }

    async fn token(&self, txn: &mut Txn<'_>) -> Result<TokenHash, Refusal> {
        match &self.holder {
            Some(Holder::Token(token)) => {
                Ok(txn.catalog().pepper().hash(token.reveal().as_bytes()))
            }
            Some(Holder::Credential(named)) => {
                let id = txn.resolve(Kind::Credential, named).await?;
                let credential = match id {
                    Some(id) => txn.object(Kind::Credential, id).await?,
                    None => None,
                };
                let credential = credential.ok_or_else(|| Refusal::Missing {
                    status: StatusCode::NOT_FOUND,
                    text: "credential not found".to_owned(),
                })?;
                token_of(&credential).ok_or_else(without_token)
            }
            None => Err(Refusal::Faults(vec!["KeyID or CredentialID is required".to_owned()])),
        }
    }
}

/// Metadata as it is shown.
pub(crate) fn metadata(all: &Metadata) -> Members {
    let values = all.iter().map(|(name, value)| {
        let value = serde_json::from_str(&value.0);
        (name.to_string(), value.unwrap_or(Value::Null))
    });
    values.collect()
}

fn slash_refused(api: &Api, path: &NormalPath<'_>) -> bool {
    path.has_encoded_slash() && api.encoded_slash == EncodedSlash::Refuse
}

fn refused(denial: Denial) -> Explanation {
    Explanation { denial: Some(denial), ..Explanation::default() }
}

fn answered(api: Option<&Arc<Api>>, why: &Explanation) -> Answer {
    let told = why.denial.map(Denial::answer);
    let admitted = told.is_none() || why.shadow;
    let ids = |ids: &[PolicyId]| ids.iter().map(|id| id.as_str().into()).collect::<Vec<Value>>();
    let body = json!({
        "decision": if admitted { "admit" } else { "deny" },
        "code": told.as_ref().map(|told| told.code),
        "status": told.as_ref().map(|told| told.status),
        "detail": told.as_ref().map(|told| told.detail),
        "reason": why.fault,
        "shadow": why.shadow,
        "api": api.map(|api| api.id.as_str()),
        "keyless": api.is_some_and(|api| matches!(api.auth, Auth::Keyless)),
        "credential": why.credential.map(|id| id.0),
        "cost": why.cost,
        "policies": {
            "access": ids(&why.by.access),
            "rate": why.by.rate.as_ref().map(|id| id.as_str()),
            "quota": why.by.quota.as_ref().map(|id| id.as_str()),
            "skipped": ids(&why.skipped),
        },
        "limits": why.limits.iter().map(limit).collect::<Vec<_>>(),
        "metadata": metadata(&why.metadata),
    });
    Answer { status: StatusCode::OK, body, object: String::new() }
}
