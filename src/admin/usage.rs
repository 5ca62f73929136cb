//! What was used of a credential's limits, and giving its quotas back.

use http::StatusCode;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::consumption;
use super::crud::{self, Operation};
use super::keys::{put_record, record, token_of, write_token};
use super::txn::Txn;
use crate::domain::grant::LimitScope;
use crate::domain::time::UnixMs;
use crate::domain::token::TokenHash;
use crate::enforce::{LimitUsage, LimitUsed, Usage};
use crate::store::{Kind, StoreError};
use crate::wire::portal::credential::Credential;
use crate::wire::portal::fields::Ref;
use crate::wire::portal::stored::Stored;
use crate::wire::portal::{moment, plan};

/// Shows what a credential has used. Nothing is charged.
pub(crate) struct ShowUsage;
/// Shows what several have used, by app, user, organisation and plan.
pub(crate) struct ListUsage;
/// Begins new windows for the quotas that are a credential's own.
pub(crate) struct ResetQuota;
/// The same, by the credential's path in the portal.
pub(crate) struct ResetIssued;

impl Operation for ShowUsage {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let (credential, token) = find(txn, call).await?;
        let usage = usage(state, &token).await?;
        let body = row(&credential, &usage, txn).await?;
        Ok(Answer { status: StatusCode::OK, body, object: named(&credential) })
    }
}

impl Operation for ListUsage {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let mut rows = Vec::new();
        for credential in consumption::filtered(txn, call).await? {
            // A credential without a token has no limits, and one that was just revoked none now.
            let Some(token) = token_of(&credential) else { continue };
            if let Some(usage) = state.enforcer.usage(&token).await? {
                rows.push(row(&credential, &usage, txn).await?);
            }
        }
        Ok(Answer { status: StatusCode::OK, body: rows.into(), object: String::new() })
    }
}

async fn row(credential: &Stored, usage: &Usage, txn: &mut Txn<'_>) -> Result<Value, StoreError> {
    let plan = match credential.number("PlanID") {
        Some(id) => txn.object(Kind::Plan, id).await?,
        None => None,
    };
    Ok(json!({
        "credential": credential.id,
        "app": credential.links.parent,
        "status": usage.refused.map_or("active", |denial| denial.answer().code),
        "expires": usage.expires.map(moment::exact),
        "plan": plan.map(|plan| plan_text(&plan)),
        "limits": usage.limits.iter().map(limit).collect::<Vec<_>>(),
    }))
}

impl Operation for ResetQuota {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let (credential, _) = find(txn, call).await?;
        reset(state, txn, &credential).await
    }
}

impl Operation for ResetIssued {
    const ACTION: bool = true;

    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let credential = crud::find::<Credential>(txn, call, StatusCode::NOT_FOUND).await?;
        reset(state, txn, &credential).await
    }
}

async fn reset(
    state: &AdminState,
    txn: &mut Txn<'_>,
    credential: &Stored,
) -> Result<Answer, Refusal> {
    let token = token_of(credential).ok_or_else(without_token)?;
    let usage = usage(state, &token).await?;
    let mut known = record(txn, &token).await?.ok_or_else(without_token)?;
    known.resets = known.resets.saturating_add(1);
    put_record(txn, &token, &known).await?;
    // A token that is on its way out counts with it.
    write_token(txn, credential).await?;
    let shared = usage.limits.iter().map(|limit| &limit.scope);
    let shared: Vec<_> = shared.filter(|scope| scope.is_shared()).map(LimitScope::noun).collect();
    let body = json!({
        "status": "ok",
        "resets": known.resets,
        "not_reset": shared,
    });
    Ok(Answer { status: StatusCode::OK, body, object: named(credential) })
}

/// The credential that the path names, and its token.
async fn find(txn: &mut Txn<'_>, call: &Call) -> Result<(Stored, TokenHash), Refusal> {
    let missing = || Refusal::Missing {
        status: StatusCode::NOT_FOUND,
        text: "credential not found".to_owned(),
    };
    let named = call.params.first().and_then(|text| Ref::parse(text)).ok_or_else(missing)?;
    let id = txn.resolve(Kind::Credential, &named).await?.ok_or_else(missing)?;
    let credential = txn.object(Kind::Credential, id).await?.ok_or_else(missing)?;
    let token = token_of(&credential).ok_or_else(without_token)?;
    Ok((credential, token))
}

async fn usage(state: &AdminState, token: &TokenHash) -> Result<Usage, Refusal> {
    state.enforcer.usage(token).await?.ok_or_else(without_token)
}

pub(crate) fn without_token() -> Refusal {
    let text = "the credential has no token that gateways know".to_owned();
    Refusal::Missing { status: StatusCode::NOT_FOUND, text }
}

fn named(credential: &Stored) -> String {
    format!("credential {}", credential.id)
}

/// A plan as the portal's pages show it.
pub(crate) fn plan_text(plan: &Stored) -> Value {
    let mut members = plan.members.clone();
    plan::show_as_text(&mut members);
    json!({
        "id": plan.id,
        "name": plan.text("Name"),
        "rate_limit": members.get("RateLimit"),
        "quota": members.get("Quota"),
    })
}

/// A limit as usage reports show it.
pub(crate) fn limit(usage: &LimitUsage) -> Value {
    let apis: Vec<_> = usage.apis.iter().map(|api| api.as_str()).collect();
    let mut shown = match &usage.used {
        LimitUsed::Rate { rate, held, remaining, reset_ms } => json!({
            "kind": "rate",
            "limit": rate.requests,
            "per_ms": rate.per_ms,
            "used": rate.requests.get().saturating_sub(*remaining),
            "held": held,
            "remaining": remaining,
            "reset_in_ms": reset_ms,
        }),
        LimitUsed::Quota { limit, spread, window, now } => json!({
            "kind": "quota",
            "limit": limit,
            "used": spread.used,
            "reported": spread.reported,
            "held": spread.held,
            "lost": spread.lost,
            "remaining": spread.remaining,
            "window_start": window.map(|w| w.start).filter(|at| *at != UnixMs(0)).map(moment::exact),
            "window_end": window.and_then(|w| w.end).map(moment::exact),
            "reset_in_ms": window.and_then(|w| w.end).map(|end| end.since_ms(*now)),
        }),
    };
    if let Some(members) = shown.as_object_mut() {
        members.insert("scope".to_owned(), usage.scope.noun().into());
        members.insert("apis".to_owned(), apis.into());
        let of = match &usage.scope {
            LimitScope::Policy(id)
            | LimitScope::App(id)
            | LimitScope::Developer(id)
            | LimitScope::Organisation(id) => Some(("policy", id.to_string())),
            LimitScope::Endpoint { method, path, .. } => {
                Some(("endpoint", format!("{method} {path}")))
            }
            LimitScope::Credential | LimitScope::Api(_) => None,
        };
        if let Some((name, value)) = of {
            members.insert(name.to_owned(), value.into());
        }
    }
    shown
}
