//! Policies: named access rights and/or limits, with partitions. A product is a policy with only
//! the `acl` partition; a plan is one with only `rate_limit` and/or `quota`.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::domain::id::{ApiId, OrgId, PolicyId};
use crate::domain::limit::{Period, Quota, Rate};

/// One value of the metadata of a policy or credential: JSON text, kept as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaValue(pub Arc<str>);

/// Metadata, by name.
pub type Metadata = BTreeMap<Arc<str>, MetaValue>;

/// Which parts of a credential a policy sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// All of them: what Tyk calls a policy without partitions.
    Monolithic,
    /// Only those that are on.
    Parts(Parts),
    /// Each API of the policy has limits of its own.
    PerApi,
    /// `per_api` beside another partition: never applied, always an error.
    PerApiAndParts,
}

/// The partitions that are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Access rights.
    pub acl: bool,
    /// Quota.
    pub quota: bool,
    /// Rate limit.
    pub rate_limit: bool,
    /// GraphQL depth.
    pub complexity: bool,
}

/// What a policy says of one number that may be left out or unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// Says nothing.
    #[default]
    Unset,
    /// No limit.
    Unlimited,
    /// This limit.
    Limited(T),
}

impl<T> Setting<T> {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        matches!(self, Self::Unset)
    }
}

/// The limits that a policy, a credential or one of its APIs carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Rate limit.
    pub rate: Setting<Rate>,
    /// The window that an unlimited rate was written with. It limits nothing, but Tyk takes a rate
    /// of -1 for unlimited only where there is a window beside it, and shows it again.
    pub unlimited_per_ms: Option<NonZeroU64>,
    /// Units per quota period.
    pub quota: Setting<NonZeroU64>,
    /// The quota's period; `None` says nothing (and means "never" where a quota is set).
    pub period: Option<Period>,
    /// Throttle: wait this long and try again, at most so many times.
    pub throttle: Throttle,
    /// GraphQL query depth.
    pub depth: Setting<u32>,
    /// When the current quota period ends, in unix seconds, as a Tyk key carries it.
    pub quota_renews_s: u64,
}

impl Limits {
    /// Whether nothing at all is set. An API whose own limits are empty takes those of the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rate.is_unset()
            && self.quota.is_unset()
            && self.period.is_none()
            && self.throttle == Throttle::default()
            && self.depth.is_unset()
            && self.quota_renews_s == 0
    }

    /// The quota with its period, which belong together.
    #[must_use]
    pub fn quota_with_period(&self) -> Setting<Quota> {
        match self.quota {
            Setting::Unset => Setting::Unset,
            Setting::Unlimited => Setting::Unlimited,
            Setting::Limited(limit) => Setting::Limited(Quota {
                limit,
                period: self.period.clone().unwrap_or(Period::Never),
            }),
        }
    }
}

/// Tyk's throttle settings; kept and merged, 0 means unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Wait before a retry, in milliseconds.
    pub interval_ms: u64,
    /// Retries at most.
    pub retries_max: u32,
}

/// What a policy or credential says of one API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiAccess {
    /// Versions of the API.
    pub versions: VersionAccess,
    /// Paths and methods.
    pub allowed_urls: UrlAccess,
    /// Limits of this API alone.
    pub limits: Limits,
    /// Limits of single endpoints.
    pub endpoints: Vec<EndpointLimit>,
    /// Whose counter this API uses, as a stored Tyk key names it; `None` is the credential's own.
    pub scope: Option<Arc<str>>,
}

/// Which versions of an API may be called. An API without versions does not ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionAccess {
    /// Every version.
    Any,
    /// Only these, in the order first seen. An empty list opens no version: Tyk's rule.
    Only(Vec<Arc<str>>),
}

impl Default for VersionAccess {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// Which paths and methods of an API may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UrlAccess {
    /// All of them.
    #[default]
    Unrestricted,
    /// Only these, in the order first seen. An empty list opens none.
    Only(Vec<AllowedUrl>),
}

/// By whose rules a path pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatternSyntax {
    /// Ours: `{x}`, `*`, `**`, anchored at both ends.
    Native,
    /// Tyk's: regular expressions, anchored as the gateway's configuration says.
    Tyk,
}

/// One entry of an allow list: a path pattern and its methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedUrl {
    /// By whose rules `url` matches.
    pub syntax: PatternSyntax,
    /// The pattern as it was written.
    pub url: Arc<str>,
    /// Its methods.
    pub methods: Methods,
}

/// The methods of an allow list's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// Every method: what an entry of ours without methods means.
    Any,
    /// Only these, upper case. An empty list matches nothing, as in Tyk.
    Only(Vec<Arc<str>>),
}

/// A rate limit of one path and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLimit {
    /// By whose rules `path` matches.
    pub syntax: PatternSyntax,
    /// The path pattern as it was written.
    pub path: Arc<str>,
    /// Upper case method.
    pub method: Arc<str>,
    /// Its rate.
    pub rate: Setting<Rate>,
}

/// Over what one quota allowance is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaScope {
    /// One allowance over all products of a credential (the portal's promise; the default).
    Credential,
    /// One per product (what Tyk does when several products are on a key).
    Product,
    /// One per API.
    Api,
    /// One for all credentials of an app.
    App,
    /// One for all credentials of a user.
    Developer,
    /// One for all credentials of a consumer organisation.
    Organisation,
}

/// What to do with a limit when the store cannot be asked and no lease is in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureMode {
    /// Refuse with 503.
    Closed,
    /// Admit without counting.
    Open,
    /// Admit this gateway's share of what was left.
    Local,
}

impl FailureMode {
    /// Its name in plans, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Local => "local",
        }
    }
}

/// How much one request costs on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostRule {
    /// The API it is for; `None` is any.
    pub api: Option<ApiId>,
    /// Path pattern (ours: `{x}`, `*`, `**`, anchored).
    pub path: Arc<str>,
    /// Methods, upper case; none means all.
    pub methods: Vec<Arc<str>>,
    /// Units; 0 is free.
    pub cost: u32,
}

/// What our plans say beyond Tyk's policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanExtras {
    /// Over what the quota is shared; `None` takes the configured default.
    pub quota_scope: Option<QuotaScope>,
    /// What to do without the store; `None` takes the configured default.
    pub on_store_unavailable: Option<FailureMode>,
    /// Decide and count, but let through.
    pub shadow: bool,
    /// Requests in flight at most.
    pub in_flight_max: Option<NonZeroU64>,
    /// Costs by path, first match wins; a request that matches none costs 1.
    pub costs: Vec<CostRule>,
    /// Limits of single APIs in place of the plan's own. What one leaves unset, the plan says.
    pub per_api: BTreeMap<ApiId, Limits>,
}

/// What happens to the record of a credential after it expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostExpiry {
    /// What to do; `None` says nothing.
    pub action: Option<PostExpiryAction>,
    /// How long a retained record stays, in seconds; unlimited is for ever.
    pub grace_s: Setting<NonZeroU64>,
}

/// Whether an expired credential's record goes or stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PostExpiryAction {
    /// It is deleted: its token is then unknown instead of expired.
    Delete,
    /// It stays for the grace period.
    Retain,
}

/// Tyk's flags for signed requests; kept and merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signing {
    /// `hmac_enabled`.
    pub hmac: bool,
    /// `enable_http_signature_validation`.
    pub http_signature: bool,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its id, unique in `org`.
    pub id: PolicyId,
    /// The organisation it belongs to.
    pub org: OrgId,
    /// Which parts it sets.
    pub partitions: Partitions,
    /// Limits.
    pub limits: Limits,
    /// Access rights by API. Empty: the policy names no API (its limits then are the root's).
    pub access: BTreeMap<ApiId, ApiAccess>,
    /// Switches every credential of the policy off.
    pub inactive: bool,
    /// Tags for logs.
    pub tags: Vec<Arc<str>>,
    /// Metadata copied to the credential.
    pub metadata: Metadata,
    /// Life of credentials issued under it, in seconds; 0 is for ever.
    pub key_expires_in_s: u64,
    /// When it was last changed, in unix seconds.
    pub last_updated_s: u64,
    /// What happens to expired credentials.
    pub post_expiry: PostExpiry,
    /// Request signing.
    pub signing: Signing,
    /// Our additions.
    pub extras: PlanExtras,
}

impl Policy {
    /// A policy that says nothing, to be filled in.
    #[must_use]
    pub fn empty(id: PolicyId, org: OrgId, partitions: Partitions) -> Self {
        Self {
            id,
            org,
            partitions,
            limits: Limits::default(),
            access: BTreeMap::new(),
            inactive: false,
            tags: Vec::new(),
            metadata: Metadata::new(),
            key_expires_in_s: 0,
            last_updated_s: 0,
            post_expiry: PostExpiry::default(),
            signing: Signing::default(),
            extras: PlanExtras::default(),
        }
    }
}

impl Partitions {
    /// The parts of a credential that the policy sets.
    #[must_use]
    pub fn parts(self) -> Parts {
        match self {
            Self::Parts(parts) => parts,
            Self::Monolithic | Self::PerApi | Self::PerApiAndParts => {
                Parts { acl: true, quota: true, rate_limit: true, complexity: true }
            }
        }
    }
}
