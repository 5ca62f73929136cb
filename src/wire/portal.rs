//! The portal's objects: how bodies are read, how they lie in the store, what policies they are.
//!
//! Bodies are read leniently: numbers and booleans may come as texts, and only what cannot be
//! coerced is refused; unknown members are kept and returned, unless they carry secrets ([`secrets`]).

pub mod catalogue;
pub mod credential;
pub mod fields;
pub mod moment;
pub mod people;
pub mod plan;
pub mod product;
pub mod request;
pub mod secrets;
pub mod stored;
pub mod values;

use crate::domain::id::{OrgId, PolicyId};
use crate::domain::policy::{Partitions, Parts, Policy};
use fields::{Faults, Fields};
use stored::Stored;

/// The providers' organisation that products, plans and their credentials belong to.
pub const ORG: &str = "default";

/// The provider: this gateway itself. There is no other.
pub const PROVIDER: u64 = 1;

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
    derive(value, "product", |fields, policy| product::Product::read(fields).fill(policy))
}

/// The policy that a stored plan is: limits, no access rights. Its id is `plan-<number>`.
///
/// # Errors
/// When the record was not written by this gateway.
pub fn plan_policy(value: &[u8]) -> Result<Policy, RecordFault> {
    derive(value, "plan", |fields, policy| plan::Plan::read(fields).fill(policy))
}

/// The id of the policy that an object is.
#[must_use]
pub fn reference_id(noun: &str, id: u64) -> String {
    format!("{noun}-{id}")
}

fn derive(
    value: &[u8],
    noun: &str,
    fill: impl FnOnce(&mut Fields<'_>, &mut Policy),
) -> Result<Policy, RecordFault> {
    let stored = Stored::decode(value)?;
    let id: Result<PolicyId, _> = reference_id(noun, stored.id).parse();
    let org: Result<OrgId, _> = ORG.parse();
    let (Ok(id), Ok(org)) = (id, org) else { return Err(RecordFault::Shape) };
    let mut policy = Policy::empty(id, org, Partitions::Parts(Parts::default()));
    policy.last_updated_s = stored.updated_ms / 1_000;
    let mut faults = Faults::default();
    fill(&mut Fields::of(stored.members, &mut faults), &mut policy);
    match faults.into_texts().into_iter().next() {
        Some(fault) => Err(RecordFault::Rule(fault)),
        None => Ok(policy),
    }
}
