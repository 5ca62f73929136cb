//! The portal's objects: how bodies are read, how they lie in the store, what policies they are.
//!
//! Bodies are read leniently: numbers and booleans may come as texts, and only what cannot be
//! coerced is refused; unknown members are kept and returned.

pub mod credential;
pub mod decimal;
pub mod fields;
pub mod moment;
pub mod people;
pub mod plan;
pub mod product;
pub mod stored;

use std::collections::BTreeMap;

use crate::domain::id::{ApiId, OrgId, PolicyId};
use crate::domain::policy::{ApiAccess, Limits, Metadata, Partitions, PlanExtras, Policy};
use fields::{Faults, Fields};
use stored::Stored;

/// The providers' organisation that products, plans and their credentials belong to.
pub const ORG: &str = "default";

/// The provider: this gateway itself. There is no other.
pub const PROVIDER: u64 = 1;

/// What a product or a plan says as a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyBody {
    /// Which parts it sets.
    pub partitions: Partitions,
    /// Limits; only of a plan.
    pub limits: Limits,
    /// Access rights; only of a product.
    pub access: BTreeMap<ApiId, ApiAccess>,
    /// Metadata copied to credentials.
    pub metadata: Metadata,
    /// Life of credentials, in seconds; 0 is for ever.
    pub key_expires_in_s: u64,
    /// Our additions; only of a plan.
    pub extras: PlanExtras,
}

/// Why a stored record is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// It is not the JSON of such an object.
    #[error("record has another shape")]
    Shape,
    /// A member of it breaks a rule.
    #[error("record breaks a rule: {0}")]
    Rule(String),
}

/// The policy that a stored product is: access rights, no limits. Its id is `product-<number>`.
///
/// # Errors
/// When the record was not written by this gateway.
pub fn product_policy(value: &[u8]) -> Result<Policy, RecordFault> {
    derive(value, "product", |fields| product::Product::read(fields).policy())
}

/// The policy that a stored plan is: limits, no access rights. Its id is `plan-<number>`.
///
/// # Errors
/// When the record was not written by this gateway.
pub fn plan_policy(value: &[u8]) -> Result<Policy, RecordFault> {
    derive(value, "plan", |fields| plan::Plan::read(fields).policy())
}

/// The id of the policy that an object is.
#[must_use]
pub fn reference_id(noun: &str, id: u64) -> String {
    format!("{noun}-{id}")
}

fn derive(
    value: &[u8],
    noun: &str,
    read: impl FnOnce(&mut Fields<'_>) -> PolicyBody,
) -> Result<Policy, RecordFault> {
    let stored = Stored::decode(value)?;
    let mut faults = Faults::default();
    let body = read(&mut Fields::of(stored.members, &mut faults));
    let first = faults.into_texts().into_iter().next();
    first.map_or(Ok(()), |fault| Err(RecordFault::Rule(fault)))?;
    let id: Result<PolicyId, _> = reference_id(noun, stored.id).parse();
    let org: Result<OrgId, _> = ORG.parse();
    Ok(Policy {
        id: id.map_err(|_bad_id| RecordFault::Shape)?,
        org: org.map_err(|_bad_id| RecordFault::Shape)?,
        partitions: body.partitions,
        limits: body.limits,
        access: body.access,
        inactive: false,
        tags: Vec::new(),
        metadata: body.metadata,
        key_expires_in_s: body.key_expires_in_s,
        last_updated_s: stored.updated_ms / 1_000,
        extras: body.extras,
    })
}
