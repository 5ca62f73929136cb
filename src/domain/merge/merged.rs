//! The result of a merge.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::id::{ApiId, PolicyId};
use crate::domain::policy::{
    EndpointLimit, Limits, Metadata, PlanExtras, PostExpiry, Signing, UrlAccess, VersionAccess,
};

/// The merged rights and limits of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Whether it is switched off, by itself or by a policy.
    pub inactive: bool,
    /// The limits of the credential as a whole, from which an API takes what it leaves unset.
    pub root: Limits,
    /// The APIs it opens. Empty: none.
    pub apis: BTreeMap<ApiId, ApiGrant>,
    /// Tags of the credential and its policies, sorted.
    pub tags: Vec<Arc<str>>,
    /// Metadata of the credential, overwritten by that of its policies in their order.
    pub metadata: Metadata,
    /// What happens after expiry.
    pub post_expiry: PostExpiry,
    /// Life of a credential that is issued now, in seconds; 0 is for ever. It never changes the
    /// expiry of a credential that exists.
    pub key_expires_in_s: u64,
    /// The latest change of the credential and its policies, in unix seconds.
    pub last_updated_s: u64,
    /// Request signing.
    pub signing: Signing,
    /// What plans of ours say beyond limits. `per_api` is empty: it is in `apis` already.
    pub extras: PlanExtras,
    /// Policies that are gone and were skipped, sorted: for the sync status.
    pub skipped: Vec<PolicyId>,
}

/// What a credential may do on one API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiGrant {
    /// Its versions; sorted in our mode, in the order first seen in Tyk's.
    pub versions: VersionAccess,
    /// Its paths and methods; sorted in our mode, in the order first seen in Tyk's.
    pub allowed_urls: UrlAccess,
    /// The limits that the API's policies set, as a Tyk key shows them.
    pub limits: Limits,
    /// The limits that hold: `limits`, with the root's for what they leave to it. What is unset
    /// here is not limited.
    pub effective: Limits,
    /// Rates of single endpoints, in place of the API's; sorted by path and method.
    pub endpoints: Vec<EndpointLimit>,
    /// Which counter `effective.rate` uses.
    pub rate_counter: CounterScope,
    /// Which counter `effective.quota` uses, unless the plan's [`PlanExtras::quota_scope`] (or the
    /// configured default) is wider or narrower than the credential. In our mode, all APIs of one
    /// counter have the same limit.
    pub quota_counter: CounterScope,
    /// Where it comes from.
    pub by: Contributors,
}

impl ApiGrant {
    /// The product whose allowance the API uses under quota scope `product`: the least id of those
    /// that open it, so that the order of products does not matter.
    #[must_use]
    pub fn product(&self) -> Option<&PolicyId> {
        self.by.access.first()
    }

    /// The name that a Tyk key shows as `allowance_scope`; `None` is the credential's own counter.
    #[must_use]
    pub fn allowance_scope(&self) -> Option<&str> {
        self.quota_counter.name().or_else(|| self.rate_counter.name())
    }
}

/// The policies behind a grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contributors {
    /// Those that opened the API, sorted. Empty: the credential's own rights.
    pub access: Vec<PolicyId>,
    /// The one whose rate holds; `None` where the credential's own does, or none.
    pub rate: Option<PolicyId>,
    /// The one whose quota holds; `None` where the credential's own does, or none.
    pub quota: Option<PolicyId>,
}

/// Which of a credential's counters a limit uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CounterScope {
    /// The credential's own, one for all APIs that use it.
    #[default]
    Credential,
    /// One for all APIs whose limit comes from this policy.
    Policy(PolicyId),
    /// One for this API alone.
    Api(ApiId),
}

impl CounterScope {
    /// The id that names it; `None` for the credential's own.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Credential => None,
            Self::Policy(id) => Some(id.as_str()),
            Self::Api(id) => Some(id.as_str()),
        }
    }
}
