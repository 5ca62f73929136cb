//! Units that were used up before a credential came here.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::domain::counter::{CounterKey, ProcessId};
use crate::domain::grant::{Grant, Limit, LimitScope};
use crate::domain::id::CredentialId;
use crate::domain::lease::{Cell, QuotaCall};
use crate::domain::limit::{Period, Quota};
use crate::domain::period::window_at;
use crate::domain::time::UnixMs;
use crate::domain::token::TokenHash;
use crate::enforce::Enforcer;
use crate::enforce::usage::specs;
use crate::store::{CounterStore, QuotaReserve, StoreError};

/// How often a window is looked for by the store's clock: only a clock that runs wild needs more.
const WINDOWS_TRIED_MAX: usize = 3;
/// With a credential's number, the process that used the units: one that never was. Gateways have
/// random numbers, so that none of them has this one.
const ELSEWHERE: u64 = 0x656c_7365_7768_0000;

/// What was used up elsewhere of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its token.
    pub token: TokenHash,
    /// The token's record.
    pub record: Arc<[u8]>,
    /// Units of the quota.
    pub used: u64,
    /// When the period ends that they were used in, where that is known.
    pub renews: Option<UnixMs>,
}

impl Enforcer {
    /// Counts units of credentials' quotas that were used up elsewhere, in the periods that run.
    ///
    /// The units go into a cell of their own, whose totals only grow: telling them again changes
    /// nothing, telling of more adds the difference. A rolling period that has not begun begins
    /// now, or so that it ends when the one elsewhere does.
    ///
    /// # Errors
    /// When the store does not answer, or is learning. The same call can be made again.
    pub async fn carry(&self, all: &[Carried]) -> Result<(), StoreError> {
        let mut left = Vec::with_capacity(all.len());
        for carried in all {
            // Whoever else is served on this thread is not kept waiting by many.
            tokio::task::consume_budget().await;
            self.units(carried, &mut left)?;
        }
        self.begin(&mut left).await?;
        let mut now = self.clock.unix();
        for _ in 0..WINDOWS_TRIED_MAX {
            let calls: Vec<_> = left.iter().map(|units| units.report(now)).collect();
            let mut told = self.catalog.store().reports(&calls).await?.into_iter();
            left.retain(|_| match told.next().flatten() {
                Some(theirs) => {
                    now = theirs;
                    true
                }
                None => false,
            });
            if left.is_empty() {
                return Ok(());
            }
        }
        Err(StoreError::Damaged { what: "the clock" })
    }

    /// What there is to tell of one credential.
    fn units(&self, carried: &Carried, all: &mut Vec<Units>) -> Result<(), StoreError> {
        let Carried { token, record, used, renews } = carried;
        let (credential, resets) = Catalog::read_key(record)?;
        // Without usable policies there is no quota, and every request is refused.
        let snapshot = self.catalog.snapshot();
        let Ok(merged) = snapshot.merged(&credential, self.settings.mode) else { return Ok(()) };
        let grant = Grant::compile(&credential, token, &merged, self.settings.defaults);
        // A limit never has generation 0: see `Session::compile`.
        let generation = snapshot.generation.0.saturating_add(1);
        for (spec, _) in specs(&grant) {
            // An API's own quota is not what the credential used up.
            let own = matches!(spec.scope, LimitScope::Api(_) | LimitScope::Endpoint { .. });
            if let Limit::Quota(quota) = &spec.limit
                && !own
            {
                all.push(Units {
                    of: credential.id,
                    key: spec.key.clone(),
                    quota: quota.clone(),
                    resets: spec.resets(resets),
                    generation,
                    used: *used,
                    renews: *renews,
                    anchor: UnixMs(0),
                });
            }
        }
        Ok(())
    }

    /// Sees to it that rolling periods have begun.
    async fn begin(&self, all: &mut [Units]) -> Result<(), StoreError> {
        let mut rolling: Vec<_> = all.iter_mut().filter_map(Units::rolling).collect();
        let asked: Vec<_> =
            rolling.iter().map(|(units, begun)| (units.key.subject, *begun)).collect();
        let anchors = self.catalog.store().anchors(&asked, self.clock.unix()).await?;
        for ((units, _), anchor) in rolling.iter_mut().zip(anchors) {
            units.anchor = anchor;
        }
        Ok(())
    }
}

/// Units that the counter of a quota is told of.
struct Units {
    of: CredentialId,
    key: CounterKey,
    quota: Quota,
    resets: u64,
    generation: u64,
    used: u64,
    renews: Option<UnixMs>,
    /// When its rolling periods began, if they roll.
    anchor: UnixMs,
}

impl Units {
    /// If its periods roll: with when they began elsewhere, where that is known.
    fn rolling(&mut self) -> Option<(&mut Self, Option<UnixMs>)> {
        let Period::Every { ms } = &self.quota.period else { return None };
        let begun = self.renews.and_then(|ends| ends.0.checked_sub(ms.get()));
        Some((self, begun.map(UnixMs)))
    }

    /// The call that tells of them, in the window of a moment.
    fn report(&self, now: UnixMs) -> QuotaReserve {
        let used = self.used;
        let call = QuotaCall {
            process: ProcessId(ELSEWHERE ^ self.of.0),
            cell: Cell { first_call: 1, last_call: used.max(1), local: used, ..Cell::default() },
            limit: self.quota.limit.get(),
            generation: self.generation,
            want: 0,
            need: 0,
            least: 0,
            live: 1,
        };
        let window = window_at(&self.quota.period, self.anchor, self.resets, now);
        QuotaReserve { key: self.key.clone(), window, call }
    }
}
