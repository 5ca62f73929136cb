//! The leases in hand: charging a request locally, and asking the store when that is not enough.
//!
//! A request is charged to all its limits in one step, under their locks taken in one order: all
//! or nothing. Calls to the store only move capacity into hands, so they need no such order.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;

use crate::clock::Clock;
use crate::domain::counter::{CounterKey, ProcessId};
use crate::domain::policy::FailureMode;
use crate::domain::reading::{LIMITS_MAX, LimitKind, QuotaShare, Readings};
use crate::domain::time::BootNs;
use crate::enforce::Settings;
use crate::enforce::ledger::rate::RoundTrip;
use crate::enforce::live::Live;
use crate::enforce::slot::{Charge, ChargeLimit, Slot, Verdict};
use crate::metrics::Metrics;
use crate::store::shares::Shares;
use crate::store::{AnyStore, StoreError};

mod ask;
mod keep_up;
mod local;
mod look;
mod quota;
mod rate;
mod recall;
mod sweep;

/// How often a request asks the store before it gives up, as a bound on its work: each round ends
/// with units in hand, with a refusal, or with others having taken the units.
const ROUNDS_MAX: usize = 64;

/// All slots of this process.
#[derive(Debug)]
pub(super) struct Ledger {
    store: Arc<AnyStore>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    process: ProcessId,
    slots: DashMap<CounterKey, Arc<Slot>>,
    numbers: AtomicU64,
    /// Rises over all calls of the process.
    calls: AtomicU64,
    /// Live gateways, as the store last told.
    peers: Arc<Live>,
    round_trip: RoundTrip,
    timeout: Duration,
    round_trip_ms: u64,
    /// Where is written down what is admitted without the store; nothing is, if nowhere.
    folder: OnceLock<PathBuf>,
    shares: OnceLock<Arc<Shares>>,
    /// Held while a block of a share is written down.
    taking: tokio::sync::Mutex<()>,
}

/// What became of a charge.
#[derive(Debug)]
pub(super) enum Charged {
    /// Every limit was charged.
    Admitted(Readings),
    /// The store is away; every limit was charged to a hand or to this gateway's share.
    Locally(Readings),
    /// One limit is used up, and nothing was charged.
    Refused { kind: LimitKind, wait_ms: Option<u64>, readings: Readings },
    /// The store could not be asked, and nothing was charged.
    Unknown(StoreError),
}

enum Step {
    Done(Charged),
    /// The limits (by position) that the store has to be asked about.
    Ask([bool; LIMITS_MAX]),
}

impl Ledger {
    pub(super) fn new(
        store: Arc<AnyStore>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        (process, live): (ProcessId, Arc<Live>),
        settings: &Settings,
    ) -> Self {
        Self {
            store,
            clock,
            metrics,
            process,
            slots: DashMap::new(),
            numbers: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            peers: live,
            round_trip: RoundTrip::default(),
            timeout: settings.store_timeout,
            round_trip_ms: settings.round_trip_ms,
            folder: OnceLock::new(),
            shares: OnceLock::new(),
            taking: tokio::sync::Mutex::new(()),
        }
    }

    /// The slot of a counter, made if there is none.
    pub(super) fn slot(&self, key: &CounterKey, kind: LimitKind) -> Arc<Slot> {
        if let Some(slot) = self.slots.get(key) {
            return Arc::clone(&slot);
        }
        let make = || {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            Arc::new(Slot::new(number, key.clone(), kind))
        };
        Arc::clone(&self.slots.entry(key.clone()).or_insert_with(make))
    }

    /// Charges `cost` to every limit, all or nothing. `charges` are ordered by slot number;
    /// `away` says what to do when the store does not answer.
    ///
    /// Without a question to the store it takes no await, and allocates nothing.
    pub(super) async fn charge(
        self: &Arc<Self>,
        charges: &[Charge],
        cost: u64,
        away: FailureMode,
    ) -> Charged {
        for _ in 0..ROUNDS_MAX {
            match self.step(charges, cost) {
                Step::Done(charged) => return charged,
                Step::Ask(which) => {
                    for (charge, _) in charges.iter().zip(which).filter(|(_, ask)| *ask) {
                        // Apart: it is large, and rare.
                        if let Err(error) = Box::pin(self.ask(charge, cost)).await {
                            // A store that is learning what it lost is there: soon it answers.
                            let locally = away == FailureMode::Local && error.is_away();
                            let charged = match locally {
                                true => Box::pin(self.charge_locally(charges, cost)).await,
                                false => None,
                            };
                            return charged.unwrap_or(Charged::Unknown(error));
                        }
                    }
                }
            }
        }
        Charged::Unknown(self.too_late())
    }

    /// One look at all limits under their locks.
    fn step(self: &Arc<Self>, charges: &[Charge], cost: u64) -> Step {
        debug_assert!(charges.is_sorted_by_key(|charge| charge.slot.number));
        debug_assert!(charges.len() <= LIMITS_MAX);
        let now = self.clock.boot();
        let mut guards: [_; LIMITS_MAX] = std::array::from_fn(|n| charges.get(n).map(Charge::lock));
        let mut ask = [false; LIMITS_MAX];
        let mut refused = None;
        for ((charge, guard), ask) in charges.iter().zip(&guards).zip(&mut ask) {
            let Some(state) = guard else { continue };
            match charge.judge(state, cost, now) {
                Verdict::Enough => {}
                Verdict::Ask => *ask = true,
                // Of several refusals the longest wait counts: it ends the last.
                Verdict::Refused { wait_ms } => {
                    let kind = charge.kind();
                    let this = (wait_ms.unwrap_or(u64::MAX), kind, wait_ms);
                    refused = refused.max(Some(this));
                }
            }
        }
        let admitted = refused.is_none() && !ask.contains(&true);
        let mut readings = Readings::at(now);
        let mut tell = [false; LIMITS_MAX];
        for ((charge, guard), tell) in charges.iter().zip(&mut guards).zip(&mut tell) {
            let Some(state) = guard else { continue };
            if admitted {
                charge.spend(state, cost, now);
                *tell = charge.is_low(state, now) | charge.reaches(state);
            }
            readings.push(charge.reading(state, now));
        }
        drop(guards);
        if let Some((_, kind, wait_ms)) = refused {
            return Step::Done(Charged::Refused { kind, wait_ms, readings });
        }
        if !admitted {
            return Step::Ask(ask);
        }
        for (charge, _) in charges.iter().zip(tell).filter(|(_, tell)| *tell) {
            self.ask_ahead(charge);
        }
        Step::Done(Charged::Admitted(readings))
    }
}

impl Ledger {
    /// Says that most or all of a quota is used.
    fn announce(&self, counter: &CounterKey, reached: &[(QuotaShare, u64)]) {
        for (share, limit) in reached {
            self.metrics.quota_reached(*share);
            let percent = share.percent();
            tracing::info!(target: "quota", %counter, percent, limit, "a share of a quota is used");
        }
    }
}

impl Charge {
    fn kind(&self) -> LimitKind {
        match &self.limit {
            ChargeLimit::Rate(_) => LimitKind::Rate,
            ChargeLimit::Quota { .. } => LimitKind::Quota,
        }
    }
}

/// What is spent in so many milliseconds at the pace since the last answer, rounded up.
fn spent_in(span_ms: u64, spent: u64, answered: BootNs, now: BootNs) -> u64 {
    /// A shorter look would take a burst for a pace.
    const LOOK_MS_MIN: u64 = 10;
    spent.saturating_mul(span_ms).div_ceil(now.since_ms(answered).max(LOOK_MS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_pace_is_not_lost_in_rounding() {
        let at = |ms: u64| BootNs(ms * 1_000_000);
        assert_eq!(spent_in(10_000, 1, at(0), at(2_500)), 4);
        assert_eq!(spent_in(10_000, 1, at(0), at(60_000)), 1);
        assert_eq!(spent_in(1_000, 0, at(0), at(1)), 0);
        assert_eq!(spent_in(1_000, 5, at(7), at(7)), 500, "a burst is looked at for 10 ms");
    }
}
