//! Sessions: Tyk's stored keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limit::Limit;
use super::{
    AccessRight, AccessRights, access_to_domain, metadata_from_domain, metadata_to_domain,
    post_expiry_from_domain, post_expiry_to_domain, seconds, seconds_text, strings, text_or_number,
    texts, unix_seconds,
};
use crate::domain::credential::{Credential, Owner, PolicyKind, PolicyRef, Status};
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::merge::{ApiGrant, Merged};
use crate::domain::policy::Signing;
use crate::domain::time::UnixMs;
use crate::wire::{Invalid, is_default, or_default};

/// A key as Tyk writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Limits of the key as a whole.
    #[serde(flatten)]
    pub limit: Limit,
    /// Unix seconds; less than 1 is never.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub expires: i64,
    /// Access rights by API.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub access_rights: AccessRights,
    /// Its organisation; empty is the gateway's default.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub org_id: String,
    /// Policies, in order.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub apply_policies: Vec<String>,
    /// One policy; counts only if the list is empty.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub apply_policy_id: String,
    /// Signed requests.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub hmac_enabled: bool,
    /// Signed requests.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub enable_http_signature_validation: bool,
    /// Whether it is suspended.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub is_inactive: bool,
    /// Metadata.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub meta_data: Map<String, Value>,
    /// Tags.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Unix seconds.
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "is_default")]
    pub last_updated: String,
    /// RFC 3339.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub date_created: String,
    /// `retain` or `delete`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub post_expiry_action: String,
    /// Seconds; -1 is for ever.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub post_expiry_grace_period: i64,
    /// Members we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Session {
    /// The credential this says, with an id of the caller's; `default_org` is the organisation of a
    /// key that names none. Its owner is not in here.
    ///
    /// # Errors
    /// [`Invalid`] with the path of the first member without a meaning.
    pub fn to_domain(&self, id: CredentialId, default_org: &OrgId) -> Result<Credential, Invalid> {
        let org = match self.org_id.as_str() {
            "" => default_org.clone(),
            org => org.parse().map_err(|fault| Invalid::new("org_id", fault))?,
        };
        let post_expiry =
            post_expiry_to_domain(&self.post_expiry_action, self.post_expiry_grace_period)?;
        let to_ms = |seconds: u64| UnixMs(seconds.saturating_mul(1_000));
        Ok(Credential {
            id,
            org,
            status: if self.is_inactive { Status::Inactive } else { Status::Active },
            expires: unix_seconds(self.expires).map(to_ms),
            retires: None,
            policies: self.policies()?,
            limits: self.limit.to_domain()?,
            access: access_to_domain(&self.access_rights)?,
            tags: texts(&self.tags),
            metadata: metadata_to_domain(&self.meta_data),
            owner: Owner::default(),
            created: self.created(),
            last_updated_s: seconds(&self.last_updated),
            post_expiry,
            signing: Signing {
                hmac: self.hmac_enabled,
                http_signature: self.enable_http_signature_validation,
            },
        })
    }

    /// The policies it names: the list, or the single one where the list is empty.
    fn policies(&self) -> Result<Vec<PolicyRef>, Invalid> {
        let single = Some(&self.apply_policy_id).filter(|id| !id.is_empty());
        let single = single.filter(|_| self.apply_policies.is_empty());
        let one = |text: &String| match text.parse() {
            Ok(id) => Ok(PolicyRef { id, kind: PolicyKind::Any }),
            Err(fault) => Err(Invalid::new("apply_policies", fault)),
        };
        self.apply_policies.iter().chain(single).map(one).collect()
    }

    /// When it was made; 0 when it does not say, or says the year 1, as Go's zero time does.
    fn created(&self) -> UnixMs {
        let at: Option<jiff::Timestamp> = self.date_created.parse().ok();
        UnixMs(at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(0))
    }

    /// The key with the result of its merge in place of what it sets, as Tyk shows keys. What is
    /// left of quotas is the counters' to tell, and is left out where policies decide.
    #[must_use]
    pub fn merged(&self, merged: &Merged) -> Self {
        let with_policies = !self.apply_policies.is_empty() || !self.apply_policy_id.is_empty();
        let mut shown = self.clone();
        shown.limit = Limit::from(&merged.root);
        if !with_policies {
            shown.limit.quota_remaining = self.limit.quota_remaining;
        }
        shown.access_rights = merged
            .apis
            .iter()
            .map(|(api, grant)| {
                let own = self.access_rights.get(api.as_str()).filter(|_| !with_policies);
                (api.to_string(), show(own, grant))
            })
            .collect();
        shown.is_inactive = merged.inactive;
        shown.tags = strings(&merged.tags);
        shown.meta_data = metadata_from_domain(&merged.metadata);
        shown.last_updated = seconds_text(merged.last_updated_s);
        let (action, grace) = post_expiry_from_domain(merged.post_expiry);
        shown.post_expiry_action = action;
        shown.post_expiry_grace_period = grace;
        shown.hmac_enabled = merged.signing.hmac;
        shown.enable_http_signature_validation = merged.signing.http_signature;
        shown
    }
}

fn show(own: Option<&AccessRight>, grant: &ApiGrant) -> AccessRight {
    let mut right = own.cloned().unwrap_or_default();
    let remaining = right.limit.quota_remaining;
    right.show(&grant.versions, &grant.allowed_urls, &grant.limits, &grant.endpoints);
    right.limit.quota_remaining = remaining;
    right.allowance_scope = grant.allowance_scope().unwrap_or_default().to_owned();
    right
}

impl From<&Credential> for Session {
    fn from(credential: &Credential) -> Self {
        let (action, grace) = post_expiry_from_domain(credential.post_expiry);
        let seconds = |at: UnixMs| i64::try_from(at.as_secs_up()).unwrap_or(i64::MAX);
        let access: BTreeMap<_, _> = credential
            .access
            .iter()
            .map(|(api, access)| (api.to_string(), AccessRight::from(access)))
            .collect();
        let created = i64::try_from(credential.created.0).ok().filter(|ms| *ms > 0);
        let created = created.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        Self {
            limit: Limit::from(&credential.limits),
            expires: credential.expires.map_or(0, seconds),
            access_rights: access,
            org_id: credential.org.to_string(),
            apply_policies: credential.policies.iter().map(|one| one.id.to_string()).collect(),
            apply_policy_id: String::new(),
            hmac_enabled: credential.signing.hmac,
            enable_http_signature_validation: credential.signing.http_signature,
            is_inactive: credential.status == Status::Inactive,
            meta_data: metadata_from_domain(&credential.metadata),
            tags: strings(&credential.tags),
            last_updated: seconds_text(credential.last_updated_s),
            date_created: created.map(|at| at.to_string()).unwrap_or_default(),
            post_expiry_action: action,
            post_expiry_grace_period: grace,
            other: Map::new(),
        }
    }
}
