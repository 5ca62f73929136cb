//! From a token's record to a credential.

use std::sync::Arc;

use crate::catalog::policy_id;
use crate::domain::credential::{Credential, Owner, PolicyKind, PolicyRef, Status};
use crate::domain::id::{AppId, ConsumerOrgId, CredentialId, OrgId, UserId};
use crate::domain::policy::MetaValue;
use crate::domain::time::UnixMs;
use crate::store::Kind;
use crate::wire::record::KeyRecord;
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
    for (name, value) in &record.metadata {
        let text = MetaValue(value.to_string().into());
        credential.metadata.insert(Arc::from(name.as_str()), text);
    }
    // What the portal writes to every key, and what is told upstream: nobody's own metadata says it.
    for (name, id) in [
        ("ApplicationID", record.app),
        ("DeveloperID", record.user),
        ("OrganisationID", record.organisation),
    ] {
        let text = id.map(|id| MetaValue(id.to_string().into()));
        credential.metadata.extend(text.map(|text| (Arc::from(name), text)));
    }
    Ok((credential, record.resets))
}
