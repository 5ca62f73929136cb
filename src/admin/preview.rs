//! What a credential would open that is not stored.

use http::StatusCode;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::cid::new_cid;
use super::crud::{Operation, Writable, refuse};
use super::draft::Draft;
use super::explain::metadata;
use super::keys::{enforced, token_of};
use super::txn::Txn;
use crate::catalog::Catalog;
use crate::domain::credential::Credential as Enforced;
use crate::domain::grant::{Limit, LimitSpec, Opened};
use crate::domain::id::{ApiId, PolicyId};
use crate::domain::limit::{CalendarUnit, Period};
use crate::domain::merge::ApiGrant;
use crate::domain::policy::{Methods, UrlAccess, VersionAccess};
use crate::domain::time::UnixMs;
use crate::enforce::Effective;
use crate::store::Kind;
use crate::wire::portal::credential::{Credential, Purpose};
use crate::wire::portal::fields::{Fields, Members};
use crate::wire::portal::stored::Stored;
use crate::wire::portal::{moment, secrets};
use crate::wire::record::KeyRecord;

/// Where it is asked for.
pub(crate) const PATH: &str = "/v1/preview";

/// Takes the body of a new custom credential and tells what the gateway would enforce of it, with
/// the faults that the portal would name. Nothing is stored.
pub(crate) struct Preview;

impl Operation for Preview {
    async fn run(state: &AdminState, txn: &mut Txn<'_>, call: &Call) -> Result<Answer, Refusal> {
        let credential = draft(state, txn, call.members()?).await?;
        let token = token_of(&credential).ok_or_else(|| {
            refuse("Type must be CREDENTIAL_TYPE_TYK_MANAGED: a pair for display opens nothing")
        })?;
        let record = enforced(txn, &credential, KeyRecord::default()).await?;
        let record = serde_json::to_vec(&record).map_err(|_shape| Refusal::Internal)?;
        let (enforced, _) = Catalog::read_key(&record)?;
        let now = state.clock.unix();
        let (usable, body) = match state.enforcer.effective(&enforced, &token) {
            Ok(effective) => (Ok(status(&enforced, &effective, now)), Some(effective)),
            Err(error) => (Err(error.to_string()), None),
        };
        let mut shown = json!({
            "status": usable.as_ref().map_or("policies_unusable", |status| status),
            "reason": usable.as_ref().err(),
            "expires": enforced.expires.map(moment::exact),
            "apis": [],
        });
        if let (Some(members), Some(effective)) = (shown.as_object_mut(), body) {
            members.extend(opened(&effective));
        }
        Ok(Answer { status: StatusCode::OK, body: shown, object: String::new() })
    }
}

/// The credential that a body would make. What every body of the portal has to say, one that is
/// only looked at may leave out.
async fn draft(
    state: &AdminState,
    txn: &mut Txn<'_>,
    mut body: Members,
) -> Result<Stored, Refusal> {
    secrets::discard(&mut body, Credential::SECRETS);
    let given = body.get("KeyID").is_some_and(|key| !key.is_null());
    let token_type = if given { "AUTH_TOKEN_CUSTOM" } else { "AUTH_TOKEN_STANDARD" };
    for (name, usual) in [("Type", "CREDENTIAL_TYPE_TYK_MANAGED"), ("AuthTokenType", token_type)] {
        body.entry(name).or_insert_with(|| usual.into());
    }
    // One that nobody has.
    body.entry("Alias").or_insert_with(|| new_cid(state.clock.unix(), 0).into());
    let mut draft = Draft::new(state, None, Stored::default());
    let mut faults = std::mem::take(&mut draft.faults);
    let mut fields = Fields::of(body, &mut faults);
    let app = fields.reference("AppID");
    let mut credential = Credential::read(&mut fields, Purpose::Create);
    draft.after.members = fields.finish();
    draft.faults = faults;
    draft.after.links.parent = draft.refer(txn, Kind::App, "AppID", app.as_ref()).await?;
    draft.after.members.remove("AppID");
    credential.check(&mut draft, txn).await?;
    Refusal::unless_empty(std::mem::take(&mut draft.faults))?;
    Ok(draft.after)
}

fn status(credential: &Enforced, effective: &Effective, now: UnixMs) -> &'static str {
    if credential.expires.is_some_and(|expires| expires <= now) {
        "expired"
    } else if effective.grant.inactive {
        "inactive"
    } else {
        "active"
    }
}

fn opened(effective: &Effective) -> Members {
    let Effective { merged, grant } = effective;
    let apis = grant.apis().filter_map(|(id, opened)| {
        let by = merged.apis.get(id)?;
        Some(api(id, by, opened))
    });
    let members: [(&str, Value); 8] = [
        ("apis", apis.collect()),
        ("metadata", metadata(&merged.metadata).into()),
        ("tags", merged.tags.iter().map(ToString::to_string).collect()),
        ("skipped", ids(&merged.skipped)),
        ("shadow", grant.shadow.into()),
        ("max_in_flight", grant.in_flight_max.map(std::num::NonZeroU64::get).into()),
        ("on_store_unavailable", grant.on_store_unavailable.name().into()),
        ("warnings", grant.faults.clone().into()),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn api(id: &ApiId, by: &ApiGrant, opened: &Opened) -> Value {
    let versions = match &by.versions {
        VersionAccess::Any => Value::Null,
        VersionAccess::Only(names) => names.iter().map(ToString::to_string).collect(),
    };
    let urls = match &by.allowed_urls {
        UrlAccess::Unrestricted => Value::Null,
        UrlAccess::Only(urls) => urls
            .iter()
            .map(|url| {
                let methods = match &url.methods {
                    Methods::Any => Value::Null,
                    Methods::Only(names) => names.iter().map(ToString::to_string).collect(),
                };
                json!({ "url": &*url.url, "methods": methods })
            })
            .collect(),
    };
    let endpoints = opened.endpoints.iter().filter_map(|limited| {
        let named = by.endpoints.get(limited.at)?;
        let limits: Value = limited.limits.iter().map(promised).collect();
        Some(json!({ "path": &*named.path, "method": &*named.method, "limits": limits }))
    });
    json!({
        "api": id.as_str(),
        "versions": versions,
        "allowed_urls": urls,
        "limits": opened.limits.iter().map(promised).collect::<Value>(),
        "endpoints": endpoints.collect::<Value>(),
        "policies": {
            "access": ids(&by.by.access),
            "rate": by.by.rate.as_ref().map(PolicyId::as_str),
            "quota": by.by.quota.as_ref().map(PolicyId::as_str),
        },
    })
}

/// A limit of which nothing is used.
fn promised(spec: &LimitSpec) -> Value {
    let scope = spec.scope.noun();
    match &spec.limit {
        Limit::Rate(rate) => json!({
            "kind": "rate", "scope": scope, "limit": rate.requests, "per_ms": rate.per_ms,
        }),
        Limit::Quota(quota) => json!({
            "kind": "quota", "scope": scope, "limit": quota.limit, "period": period(&quota.period),
        }),
    }
}

fn period(period: &Period) -> Value {
    match period {
        Period::Never => Value::Null,
        Period::Every { ms } => json!({ "every_ms": ms }),
        Period::Calendar(calendar) => {
            let unit = match calendar.unit {
                CalendarUnit::Day => "day",
                CalendarUnit::Week => "week",
                CalendarUnit::Month => "month",
            };
            let (zone, day) = (calendar.zone.as_str(), calendar.anchor_day);
            json!({ "unit": unit, "time_zone": zone, "anchor_day": day })
        }
    }
}

fn ids(ids: &[PolicyId]) -> Value {
    ids.iter().map(PolicyId::as_str).collect()
}
