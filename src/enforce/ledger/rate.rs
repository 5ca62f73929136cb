//! Asking for units of a rate.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::limit::Rate;
use crate::domain::ratelog::{RATE_SINGLE_MAX, RateCall, is_told, validity_ms};
use crate::domain::time::BootNs;
use crate::enforce::ledger::quota::HOLD_OFF_MS;
use crate::enforce::ledger::{Ledger, spent_in};
use crate::enforce::slot::{Charge, InHand};
use crate::store::{CounterStore, RateReserve, StoreError};

/// The slowest way to the store and back of late, in microseconds: no lease is shorter than it
/// takes to hear of it twice.
#[derive(Debug, Default)]
pub(super) struct RoundTrip(AtomicU64);

impl RoundTrip {
    fn note(&self, took_ns: u64) {
        self.0.fetch_max(took_ns / 1_000, Ordering::Relaxed);
    }

    /// Milliseconds, rounded up.
    fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed).div_ceil(1_000)
    }

    /// Forgets a part of it. Runs about once a second: what was slow a minute ago is forgotten.
    pub(super) fn fade(&self) {
        let slowest = self.0.load(Ordering::Relaxed);
        self.0.fetch_sub(slowest / 8, Ordering::Relaxed);
    }
}

impl Ledger {
    pub(super) async fn call_rate(
        &self,
        charge: &Charge,
        rate: Rate,
        cost: u64,
    ) -> Result<(), StoreError> {
        let shard = self.store.shard(&charge.slot.key);
        let life = self.store.member(shard).incarnation();
        let Some((call, sent)) = self.rate_call(charge, rate, cost) else { return Ok(()) };
        let reserve = RateReserve { key: charge.slot.key.clone(), call };
        let answer = self.store.rate(&reserve).await;
        let mut state = charge.lock();
        let now = self.clock.boot();
        state.answered = now;
        let InHand::Rate(held) = &mut state.hand else { return Ok(()) };
        match answer {
            Ok(mut answer) => {
                self.round_trip.note(now.since_ns(sent));
                // Read under the slot's lock, as for quotas: what a store granted before it lost
                // writes is either told to it or not spent.
                if self.store.member(shard).incarnation() != life {
                    answer.granted = 0;
                }
                held.rate = Some(rate);
                held.hand.merge(&answer, sent, reserve.call.validity_ms);
                Ok(())
            }
            Err(error) => {
                held.hold_off = now.plus_ms(HOLD_OFF_MS);
                held.spent.take_back(&reserve.call.closes);
                held.hand.reopen(&reserve.call.closes, now);
                Err(error)
            }
        }
    }

    fn rate_call(&self, charge: &Charge, rate: Rate, cost: u64) -> Option<(RateCall, BootNs)> {
        let mut state = charge.lock();
        let now = self.clock.boot();
        let (waiting, answered) = (state.waiting.max(cost), state.answered);
        let InHand::Rate(held) = &mut state.hand else { return None };
        // Units of another rate go back: a lowered one holds for them too.
        let closes = if held.rate.is_none_or(|told| told == rate) {
            held.hand.closes(now)
        } else {
            held.hand.close_all(now)
        };
        if is_told(rate) && self.store.may_forget() {
            held.spent.add(&closes, rate, now);
        }
        let hand = &mut held.hand;
        let limit = rate.requests.get();
        let used = limit.saturating_sub(hand.remaining(now));
        let validity_ms = validity_ms(rate, used, self.round_trip.ms().max(self.round_trip_ms));
        let units = hand.units(now);
        let want = if limit <= RATE_SINGLE_MAX {
            0
        } else {
            spent_in(validity_ms, hand.spent_since_answer(), answered, now)
        };
        let call = RateCall {
            process: self.process,
            q: self.next_q(),
            rate,
            closes,
            want,
            need: waiting.saturating_sub(units),
            least: cost.saturating_sub(units),
            validity_ms,
        };
        Some((call, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_remembered_for_a_while() {
        let trip = RoundTrip::default();
        assert_eq!(trip.ms(), 0);
        trip.note(1_000);
        assert_eq!(trip.ms(), 1, "rounded up");
        trip.note(80_000_000);
        trip.note(2_000_000);
        assert_eq!(trip.ms(), 80);
        for _ in 0..60 {
            trip.fade();
        }
        assert_eq!(trip.ms(), 1);
    }
}
