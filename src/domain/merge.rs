//! Merges what a credential's policies say into one grant.
//!
//! Pure. It runs when a credential, or one of its policies, changes; never per request. There are
//! two sets of rules ([`Mode`]): Tyk's, reproduced as far as they can be observed, and ours, which
//! never depend on the order of policies but for metadata.
//!
//! Invariant of both: a credential without access rights opens nothing, and nothing the merge
//! returns is more generous than the most generous of its inputs.

mod merged;
mod ours;
mod rules;
mod tyk;

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::credential::{Credential, PolicyKind, Status};
use crate::domain::id::{OrgId, PolicyId};
use crate::domain::policy::{EndpointLimit, Limits, Metadata, Partitions, Policy};

pub use merged::{ApiGrant, Contributors, CounterScope, Merged};

/// Whose rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Ours: design.md, section 3, "Merging" and "A plan or policy that is gone closes".
    #[default]
    Ours,
    /// Tyk's observable results, its oddities included (`tyk_parity = true`).
    Tyk,
}

/// What the look-up of one policy reference brought, in the order of the credential's references.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// The policy, looked up by (the credential's organisation, id).
    Policy(&'a Policy),
    /// Nobody has the id (any more).
    Missing {
        /// The id looked for.
        id: &'a PolicyId,
        /// What the credential, or a tombstone, says it was.
        kind: PolicyKind,
    },
    /// Only another organisation has the id.
    OtherOrg {
        /// The id looked for.
        id: &'a PolicyId,
    },
}

/// Why a credential has no grant. Every one of them refuses. The texts are Tyk's, which its users
/// look for in their logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A policy is gone: any but a product (ours), or the only one (Tyk's).
    #[error("policy not found: \"{id}\"")]
    PolicyMissing {
        /// The id looked for.
        id: PolicyId,
    },
    /// A policy belongs to another organisation than the API or the credential.
    #[error("attempting to apply policy from different organisation to key, skipping")]
    OtherOrganisation {
        /// The policy's id.
        id: PolicyId,
    },
    /// A policy sets `per_api` beside another partition.
    #[error("cannot apply policy {id} which has per_api and any of partitions set")]
    PerApiAndParts {
        /// The policy's id.
        id: PolicyId,
    },
    /// Some policies set `per_api`, others have partitions.
    #[error("cannot apply multiple policies when some have per_api set and some are partitioned")]
    Mixed,
    /// No policy that was found grants access to any API.
    #[error("key has no valid policies to be applied")]
    NoAccess,
}

/// Merges `policies`, the credential's references as they were looked up, in their order.
///
/// `api_org` is the organisation of the API on which the credential is used; `None` checks nothing.
/// A credential without policies keeps its own access rights, of which there may be none: the
/// result then is `Ok` and opens nothing.
///
/// # Errors
/// Those of [`MergeError`]; the caller refuses the credential.
pub fn merge(
    credential: &Credential,
    policies: &[Found<'_>],
    api_org: Option<&OrgId>,
    mode: Mode,
) -> Result<Merged, MergeError> {
    match mode {
        Mode::Ours => {
            let looked_up = ours::look_over(policies, api_org)?;
            let mut merged = ours::merge(credential, &looked_up.policies)?;
            merged.skipped = looked_up.skipped;
            Ok(merged)
        }
        Mode::Tyk => tyk::merge(credential, policies, api_org),
    }
}

/// The rate step alone: raises the rate of `current` to that of `policy` where that is more
/// generous. Other limits stay.
pub fn raise_rate(current: &mut Limits, policy: &Limits, mode: Mode) {
    match mode {
        Mode::Tyk => rules::raise_rate_as_tyk(current, policy),
        Mode::Ours => rules::raise_rate(current, policy),
    }
}

/// The endpoint step alone: unites two lists of endpoint limits, the more generous of two for the
/// same path and method winning. The result is sorted by path and method.
///
/// Tyk loses paths with a `:` when both lists have entries; we do not.
#[must_use]
pub fn merge_endpoints(
    policy: &[EndpointLimit],
    current: &[EndpointLimit],
    mode: Mode,
) -> Vec<EndpointLimit> {
    match mode {
        Mode::Tyk => rules::unite_endpoints_as_tyk(policy, current),
        Mode::Ours => rules::unite_endpoints(policy, current),
    }
}

/// The parts of the result that need no API, alike in both modes.
fn shell(credential: &Credential, policies: &[&Policy]) -> Merged {
    let mut tags: BTreeSet<_> = credential.tags.iter().cloned().collect();
    let mut metadata: Metadata = credential.metadata.clone();
    let mut signing = credential.signing;
    for policy in policies {
        tags.extend(policy.tags.iter().cloned());
        metadata.extend(policy.metadata.iter().map(|(name, value)| (name.clone(), value.clone())));
        signing.hmac |= policy.signing.hmac;
        signing.http_signature |= policy.signing.http_signature;
    }
    Merged {
        inactive: credential.status == Status::Inactive,
        root: credential.limits.clone(),
        apis: BTreeMap::new(),
        tags: tags.into_iter().collect(),
        metadata,
        post_expiry: credential.post_expiry,
        key_expires_in_s: 0,
        last_updated_s: credential.last_updated_s,
        signing,
        extras: rules::unite_extras(policies),
        skipped: Vec::new(),
    }
}

/// Refuses a policy that may not be applied on its own.
fn check_alone(policy: &Policy, api_org: Option<&OrgId>) -> Result<(), MergeError> {
    if api_org.is_some_and(|org| *org != policy.org) {
        return Err(MergeError::OtherOrganisation { id: policy.id.clone() });
    }
    match policy.partitions {
        Partitions::PerApiAndParts => Err(MergeError::PerApiAndParts { id: policy.id.clone() }),
        Partitions::Monolithic | Partitions::Parts(_) | Partitions::PerApi => Ok(()),
    }
}

#[cfg(test)]
mod tests;
