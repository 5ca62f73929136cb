//! Policies.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limit::Limit;
use super::{
    AccessRights, access_to_domain, metadata_from_domain, metadata_to_domain,
    post_expiry_from_domain, post_expiry_to_domain, seconds, seconds_text, strings, text_or_number,
    texts, unix_seconds,
};
use crate::domain::id::{OrgId, PolicyId};
use crate::domain::policy::{self as domain, Parts, PlanExtras, Signing};
use crate::wire::extras::Extras;
use crate::wire::{Invalid, is_default, or_default};

/// A policy as Tyk writes it, with our additions in the object `turnpike`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Its id.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub id: String,
    /// The id of a document store, which stands in for an empty `id`.
    #[serde(rename = "_id", deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub document_id: String,
    /// Its organisation; empty is the gateway's default.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub org_id: String,
    /// Limits.
    #[serde(flatten)]
    pub limit: Limit,
    /// Access rights by API.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub access_rights: AccessRights,
    /// Signed requests.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub hmac_enabled: bool,
    /// Signed requests.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub enable_http_signature_validation: bool,
    /// Switches its keys off.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub is_inactive: bool,
    /// Tags.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Life of keys made under it, in seconds; 0 or less is for ever.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub key_expires_in: i64,
    /// `retain` or `delete`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub post_expiry_action: String,
    /// Seconds; -1 is for ever.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub post_expiry_grace_period: i64,
    /// What it sets.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub partitions: Partitions,
    /// Unix seconds.
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "is_default")]
    pub last_updated: String,
    /// Metadata.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub meta_data: Map<String, Value>,
    /// Our additions.
    #[serde(skip_serializing_if = "is_default")]
    pub turnpike: Option<Extras>,
    /// Members we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a policy sets; none of them is all but `per_api`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Partitions {
    /// Quota.
    pub quota: bool,
    /// Rate limit.
    pub rate_limit: bool,
    /// GraphQL depth.
    pub complexity: bool,
    /// Access rights.
    pub acl: bool,
    /// Limits by API.
    pub per_api: bool,
}

impl Policy {
    /// The policy this says; `default_org` is the organisation of one that names none.
    ///
    /// # Errors
    /// [`Invalid`] with the path of the first member without a meaning. A policy with neither `id`
    /// nor `_id` has no name and is refused.
    pub fn to_domain(&self, default_org: &OrgId) -> Result<domain::Policy, Invalid> {
        let id = if self.id.is_empty() { &self.document_id } else { &self.id };
        let id: PolicyId = id.parse().map_err(|fault| Invalid::new("id", fault))?;
        let org = match self.org_id.as_str() {
            "" => default_org.clone(),
            org => org.parse().map_err(|fault| Invalid::new("org_id", fault))?,
        };
        let mut limits = self.limit.to_domain()?;
        let mut extras = PlanExtras::default();
        if let Some(ours) = &self.turnpike {
            let (said, period) = ours.to_domain().map_err(|fault| fault.within("turnpike"))?;
            extras = said;
            limits.period = period.or(limits.period);
        }
        let post_expiry =
            post_expiry_to_domain(&self.post_expiry_action, self.post_expiry_grace_period)?;
        Ok(domain::Policy {
            id,
            org,
            partitions: self.partitions.into(),
            limits,
            access: access_to_domain(&self.access_rights)?,
            inactive: self.is_inactive,
            tags: texts(&self.tags),
            metadata: metadata_to_domain(&self.meta_data),
            key_expires_in_s: unix_seconds(self.key_expires_in).unwrap_or(0),
            last_updated_s: seconds(&self.last_updated),
            post_expiry,
            signing: Signing {
                hmac: self.hmac_enabled,
                http_signature: self.enable_http_signature_validation,
            },
            extras,
        })
    }
}

impl From<&domain::Policy> for Policy {
    fn from(policy: &domain::Policy) -> Self {
        let ours = Extras::from_domain(&policy.extras, policy.limits.period.as_ref());
        let (action, grace) = post_expiry_from_domain(policy.post_expiry);
        let right = |(api, access)| (ToString::to_string(api), super::AccessRight::from(access));
        Self {
            id: policy.id.to_string(),
            document_id: String::new(),
            org_id: policy.org.to_string(),
            limit: Limit::from(&policy.limits),
            access_rights: policy.access.iter().map(right).collect(),
            hmac_enabled: policy.signing.hmac,
            enable_http_signature_validation: policy.signing.http_signature,
            is_inactive: policy.inactive,
            tags: strings(&policy.tags),
            key_expires_in: i64::try_from(policy.key_expires_in_s).unwrap_or(i64::MAX),
            post_expiry_action: action,
            post_expiry_grace_period: grace,
            partitions: policy.partitions.into(),
            last_updated: seconds_text(policy.last_updated_s),
            meta_data: metadata_from_domain(&policy.metadata),
            turnpike: Some(ours).filter(|ours| *ours != Extras::default()),
            other: Map::new(),
        }
    }
}

impl From<Partitions> for domain::Partitions {
    fn from(said: Partitions) -> Self {
        let parts = Parts {
            acl: said.acl,
            quota: said.quota,
            rate_limit: said.rate_limit,
            complexity: said.complexity,
        };
        match (said.per_api, parts == Parts::default()) {
            (false, true) => Self::Monolithic,
            (false, false) => Self::Parts(parts),
            (true, true) => Self::PerApi,
            (true, false) => Self::PerApiAndParts,
        }
    }
}

impl From<domain::Partitions> for Partitions {
    fn from(partitions: domain::Partitions) -> Self {
        match partitions {
            domain::Partitions::Monolithic => Self::default(),
            domain::Partitions::PerApi => Self { per_api: true, ..Self::default() },
            // Which parts they were is not kept; that they do not go together is.
            domain::Partitions::PerApiAndParts => {
                Self { quota: true, rate_limit: true, complexity: true, acl: true, per_api: true }
            }
            domain::Partitions::Parts(parts) => Self {
                quota: parts.quota,
                rate_limit: parts.rate_limit,
                complexity: parts.complexity,
                acl: parts.acl,
                per_api: false,
            },
        }
    }
}
