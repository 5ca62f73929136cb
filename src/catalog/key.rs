//! From a token's record to a credential.

use std::sync::Arc;

use crate::catalog::policy_id;
use crate::domain::credential::{Credential, Owner, PolicyKind, PolicyRef, Status};
use crate::domain::id::{AppId, ConsumerOrgId, CredentialId, OrgId, UserId};
use crate::domain::policy::MetaValue;
use crate::domain::time::UnixMs;
use crate::store::Kind;
use crate::wire::record::{KeyRecord, TIES};
use crate::wire::tyk;

/// Reads a record; beside the credential, how often its quotas were reset.
pub(super) fn credential(value: &[u8]) -> Result<(Credential, u64), String> {
    let record: KeyRecord = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let org: OrgId = record.org.parse().map_err(|error| format!("org {error}"))?;
    let id = CredentialId(record.credential);
    let mut credential = match &record.session {
        None => Credential::empty(id, org),
        Some(session) => serde_json::from_value::<tyk::Session>(session.clone())
            .map_err(|error| error.to_string())?
            .to_domain(id, &org)
            .map_err(|error| error.to_string())?,
    };
    let products = record.products.iter().map(|n| (Kind::Product, PolicyKind::Product, *n));
    let plan = record.plan.iter().map(|n| (Kind::Plan, PolicyKind::Plan, *n));
    for (record_kind, kind, number) in products.chain(plan) {
        let id = policy_id(record_kind, number).ok_or("a policy number has no id")?;
        credential.policies.push(PolicyRef { id, kind });
    }
    for id in &record.policies {
        let id = id.parse().map_err(|error| format!("policy {error}"))?;
        credential.policies.push(PolicyRef { id, kind: PolicyKind::Any });
    }
    if record.inactive {
        credential.status = Status::Inactive;
    }
    credential.expires = record.expires_ms.map(UnixMs).or(credential.expires);
    credential.retires = record.retires_ms.map(UnixMs);
    credential.owner = Owner {
        app: record.app.map(AppId),
        user: record.user.map(UserId),
        consumer_org: record.organisation.map(ConsumerOrgId),
    };
    credential.tags.extend(record.tags.iter().map(|tag| Arc::from(tag.as_str())));
    // Of two of one name the credential's own counts.
    let own = record.attributes.iter().chain(&record.metadata);
    for (name, value) in own.filter(|(name, _)| !TIES.contains(&name.as_str())) {
        let text = MetaValue(value.to_string().into());
        credential.metadata.insert(Arc::from(name.as_str()), text);
    }
    credential.metadata.extend(ties(&record));
    Ok((credential, record.resets))
}

/// What the portal writes to every key, and what is told upstream: nobody's own metadata says it.
fn ties(record: &KeyRecord) -> impl Iterator<Item = (Arc<str>, MetaValue)> {
    let number = |id: Option<u64>| id.map(|id| id.to_string());
    let teams: Vec<_> = record.teams.iter().map(u64::to_string).collect();
    let teams = (!teams.is_empty()).then(|| format!("\"{}\"", teams.join(",")));
    let values =
        [number(record.app), number(record.user), number(record.organisation), teams].into_iter();
    let names = TIES.into_iter().zip(values);
    names.filter_map(|(name, value)| Some((Arc::from(name), MetaValue(value?.into()))))
}
