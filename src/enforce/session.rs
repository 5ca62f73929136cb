//! One credential as requests see it: its grant, compiled, with the slots its limits charge.

use std::sync::Arc;

use crate::catalog::Snapshot;
use crate::clock::Clock;
use crate::domain::api::Api;
use crate::domain::credential::Credential;
use crate::domain::decision::{Access, Request, authorize};
use crate::domain::denial::Denial;
use crate::domain::grant::{Defaults, Grant, Limit, LimitSpec};
use crate::domain::merge::{Merged, Mode};
use crate::domain::reading::{LIMITS_MAX, LimitKind};
use crate::domain::time::{BootNs, UnixMs};
use crate::domain::token::TokenHash;
use crate::enforce::history::Tally;
use crate::enforce::in_flight::{InFlight, Places};
use crate::enforce::ledger::Ledger;
use crate::enforce::slot::{Charge, ChargeLimit};
use crate::enforce::usage::Usage;
use crate::store::Generation;

/// One token's credential, ready to decide.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) record: TokenRecord,
    /// The snapshot it was compiled from.
    pub(super) version: u64,
    /// Why policies could not be applied, for the operator.
    pub(super) fault: Option<String>,
    /// The grant, or why there is none.
    pub(super) outcome: Result<Granted, Denial>,
    /// Where its requests are counted.
    pub(super) tally: Arc<Tally>,
    /// What its holder was last told of its limits, and when. Held while the store is asked, so
    /// that it is asked once for all who want to know.
    pub(super) told: tokio::sync::Mutex<Option<(BootNs, Arc<Usage>)>>,
}

/// What the store says of a token.
#[derive(Clone, Debug)]
pub(super) struct TokenRecord {
    pub(super) token: TokenHash,
    pub(super) credential: Credential,
    /// How often its quotas were reset.
    pub(super) resets: u64,
    /// The commit that last wrote it, or an earlier one where this was read ahead of the feed.
    pub(super) generation: Generation,
}

/// A grant with its charges.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) grant: Grant,
    pub(super) merged: Merged,
    /// Where requests in flight are counted, if they are limited.
    pub(super) places: Option<Places>,
    /// By the grant's positions.
    charges: Vec<ApiCharges>,
}

#[derive(Debug)]
struct ApiCharges {
    every: Vec<Charge>,
    endpoints: Vec<Vec<Charge>>,
}

impl Session {
    /// What a request of it may, limits aside.
    pub(super) fn access(
        &self,
        request: &Request<'_>,
        now: UnixMs,
    ) -> Result<(&Granted, Access<'_>), Denial> {
        let granted = self.outcome.as_ref().map_err(|denial| *denial)?;
        let expires = self.record.credential.expires;
        Ok((granted, authorize(&granted.grant, expires, request, now)?))
    }

    /// Merges and compiles. A credential whose policies cannot be applied gets a denial.
    pub(super) fn compile(
        record: TokenRecord,
        snapshot: &Snapshot,
        mode: Mode,
        defaults: Defaults,
        ledger: &Ledger,
        in_flight: &InFlight,
        tally: Arc<Tally>,
    ) -> Self {
        let TokenRecord { token, credential, resets, generation } = &record;
        // A limit changes with its plan, and with the credential that moves to another plan.
        let generation = snapshot.generation.max(*generation).0;
        let mut fault = None;
        let outcome = match snapshot.merged(credential, mode) {
            Ok(merged) => {
                let grant = Grant::compile(credential, token, &merged, defaults);
                for fault in &grant.faults {
                    let id = credential.id.0;
                    tracing::warn!(credential = id, %fault, "part of a grant is unusable");
                }
                let bind = |specs: &[LimitSpec]| charges(specs, *resets, generation, ledger);
                let charges = grant
                    .apis()
                    .map(|(_, opened)| ApiCharges {
                        every: bind(&opened.limits),
                        endpoints: opened.endpoints.iter().map(|e| bind(&e.limits)).collect(),
                    })
                    .collect();
                let places = grant.in_flight_max.map(|max| in_flight.places(credential.id, max));
                Ok(Granted { grant, merged, places, charges })
            }
            Err(error) => {
                tracing::warn!(credential = credential.id.0, %error, "a credential is refused");
                fault = Some(error.to_string());
                Err(Denial::PoliciesUnusable)
            }
        };
        let told = tokio::sync::Mutex::default();
        Self { record, version: snapshot.version, fault, outcome, tally, told }
    }

    /// Whether the credential may be used on an API of this organisation at all.
    pub(super) fn is_of(&self, api: &Api) -> bool {
        self.record.credential.org == api.org
    }

    /// Whether another token took the place of this one, and its time beside that one is over.
    pub(super) fn has_retired(&self, clock: &dyn Clock) -> bool {
        // Few tokens retire: for all others the clock is not read.
        self.record.credential.retires.is_some_and(|retires| retires <= clock.unix())
    }
}

impl Granted {
    /// What a request with this access is charged to.
    pub(super) fn charges(&self, access: &Access<'_>) -> &[Charge] {
        let Some(api) = self.charges.get(access.api) else { return &[] };
        match access.endpoint {
            None => &api.every,
            Some(at) => api.endpoints.get(at).map_or(&[], Vec::as_slice),
        }
    }
}

fn charges(specs: &[LimitSpec], resets: u64, generation: u64, ledger: &Ledger) -> Vec<Charge> {
    debug_assert!(specs.len() <= LIMITS_MAX);
    let mut charges: Vec<Charge> = specs
        .iter()
        .map(|spec| match &spec.limit {
            Limit::Rate(rate) => Charge {
                slot: ledger.slot(&spec.key, LimitKind::Rate),
                limit: ChargeLimit::Rate(*rate),
            },
            Limit::Quota(quota) => Charge {
                slot: ledger.slot(&spec.key, LimitKind::Quota),
                limit: ChargeLimit::Quota {
                    limit: quota.limit.get(),
                    period: quota.period.clone(),
                    resets: spec.resets(resets),
                    // Never 0: calls that only return units say 0, and do not set the limit.
                    generation: generation.saturating_add(1),
                },
            },
        })
        .collect();
    charges.sort_by_key(|charge| charge.slot.number);
    charges
}
