//! Credentials: one token with its products, plan, expiry and status.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::id::{ApiId, AppId, ConsumerOrgId, CredentialId, OrgId, PolicyId, UserId};
use crate::domain::policy::{ApiAccess, Limits, Metadata, PostExpiry, Signing};
use crate::domain::time::UnixMs;

/// What a stored credential says, before its policies are merged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its id, which survives rotation of its token.
    pub id: CredentialId,
    /// The organisation of API providers in which its policies are looked up.
    pub org: OrgId,
    /// Its own status.
    pub status: Status,
    /// When it stops working; `None` is never.
    pub expires: Option<UnixMs>,
    /// When this token of it goes: another one has taken its place, and it is unknown from then on.
    pub retires: Option<UnixMs>,
    /// Its policies. Their order decides nothing but whose metadata wins.
    pub policies: Vec<PolicyRef>,
    /// Limits of its own, which count for what no policy sets.
    pub limits: Limits,
    /// Access rights of its own, which count only where it has no policies.
    pub access: BTreeMap<ApiId, ApiAccess>,
    /// Tags for logs.
    pub tags: Vec<Arc<str>>,
    /// Metadata.
    pub metadata: Metadata,
    /// Whose it is.
    pub owner: Owner,
    /// When it was made; 0 when that is not known.
    pub created: UnixMs,
    /// When it was last changed, in unix seconds.
    pub last_updated_s: u64,
    /// What happens to its record after it expired.
    pub post_expiry: PostExpiry,
    /// Request signing.
    pub signing: Signing,
}

impl Credential {
    /// An active credential without policies or rights, to be filled in. It opens nothing.
    #[must_use]
    pub fn empty(id: CredentialId, org: OrgId) -> Self {
        Self {
            id,
            org,
            status: Status::Active,
            expires: None,
            retires: None,
            policies: Vec::new(),
            limits: Limits::default(),
            access: BTreeMap::new(),
            tags: Vec::new(),
            metadata: Metadata::new(),
            owner: Owner::default(),
            created: UnixMs::default(),
            last_updated_s: 0,
            post_expiry: PostExpiry::default(),
            signing: Signing::default(),
        }
    }
}

/// Whether an administrator switched a credential off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Active,
    /// It is suspended.
    Inactive,
}

/// A policy that a credential names, and what it is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// Its id within the credential's organisation.
    pub id: PolicyId,
    /// What the credential takes it for.
    pub kind: PolicyKind,
}

/// What a policy is to a credential. It decides what happens when the policy is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// A product: without it, its access rights are gone, and the rest still stands.
    Product,
    /// A plan: without it, nobody knows the limits.
    Plan,
    /// One of Tyk's `apply_policies`, which do not say.
    Any,
}

/// Whose credential it is: the subjects of shared quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The app.
    pub app: Option<AppId>,
    /// The developer.
    pub user: Option<UserId>,
    /// The developer's organisation.
    pub consumer_org: Option<ConsumerOrgId>,
}
