//! Asking the store for units: one call per counter at a time, everybody else waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::domain::counter::Window;
use crate::domain::lease::{QuotaAnswer, QuotaCall};
use crate::domain::limit::{Period, Rate};
use crate::domain::period::window_at;
use crate::domain::ratelog::{RATE_SINGLE_MAX, RateCall, validity_ms};
use crate::domain::time::{BootNs, UnixMs};
use crate::enforce::ledger::{Ledger, pace_per_s};
use crate::enforce::slot::{Charge, ChargeLimit, InHand, QuotaInHand, Slot};
use crate::store::{CounterStore, QuotaReserve, QuotaReserved, RateReserve, StoreError};

/// For how much of the recent pace a quota is asked ahead: 1 s in short windows, 10 s in long.
const AHEAD_SHORT_S: u64 = 1;
const AHEAD_LONG_S: u64 = 10;
/// Windows up to this length are short.
const SHORT_WINDOW_MS: u64 = 60_000;
/// An end is taken to be this fraction of the answer's span earlier: clocks may differ in speed
/// by as much (design.md, section 4, rule 5).
const CLOCK_SPEED_DIVISOR: u64 = 1_000;
/// How long an edited limit waits to be told again after a call without an answer.
const HOLD_OFF_MS: u64 = 1_000;

/// Clears the mark of a call under way and wakes who waits, also when the asking request is gone.
struct Asking<'a>(&'a Slot);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.state.lock().asking = false;
        self.0.changed.notify_waiters();
    }
}

/// Counts the cost of a waiting request in, for as long as it waits.
struct Waiting<'a>(&'a Slot, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waiting = state.waiting.saturating_sub(self.1);
    }
}

impl Ledger {
    /// Asks about one limit, or waits for the answer that another request asked for.
    pub(super) async fn ask(&self, charge: &Charge, cost: u64) -> Result<(), StoreError> {
        let slot = charge.slot.as_ref();
        let changed = slot.changed.notified();
        tokio::pin!(changed);
        let asks = {
            let mut state = slot.state.lock();
            state.waiting = state.waiting.saturating_add(cost);
            changed.as_mut().enable();
            !std::mem::replace(&mut state.asking, true)
        };
        let _waiting = Waiting(slot, cost);
        let deadline_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let answer = async {
            if asks {
                let _asking = Asking(slot);
                self.call(charge, cost).await
            } else {
                changed.await;
                Ok(())
            }
        };
        tokio::time::timeout(self.timeout, answer)
            .await
            .unwrap_or(Err(StoreError::Timeout { deadline_ms }))
    }

    /// Asks ahead, so that the next requests find units in hand. Nobody waits for it.
    pub(super) fn ask_ahead(self: &Arc<Self>, charge: &Charge) {
        if std::mem::replace(&mut charge.lock().asking, true) {
            return;
        }
        let (ledger, charge) = (Arc::clone(self), charge.clone());
        tokio::spawn(async move {
            let _asking = Asking(&charge.slot);
            if let Err(error) = ledger.call(&charge, 0).await {
                tracing::debug!(counter = %charge.slot.key, %error, "could not ask ahead");
            }
        });
    }

    /// One call; the caller holds the slot's `asking` mark.
    async fn call(&self, charge: &Charge, cost: u64) -> Result<(), StoreError> {
        let started = self.clock.boot();
        let result = match &charge.limit {
            ChargeLimit::Rate(rate) => self.call_rate(charge, *rate, cost).await,
            ChargeLimit::Quota { limit, period, resets, generation } => {
                let quota =
                    QuotaTerms { limit: *limit, period, resets: *resets, generation: *generation };
                self.call_quota(charge, &quota, cost).await
            }
        };
        let took_ns = self.clock.boot().since_ns(started);
        self.metrics.reserve(charge.kind(), result.is_ok(), took_ns);
        result
    }

    fn next_q(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    async fn call_rate(&self, charge: &Charge, rate: Rate, cost: u64) -> Result<(), StoreError> {
        let (call, sent) = {
            let mut state = charge.lock();
            let now = self.clock.boot();
            let per_s = pace_per_s(&state.hand, state.answered, now);
            let waiting = state.waiting.max(cost);
            let InHand::Rate(held) = &mut state.hand else { return Ok(()) };
            // Units of another rate go back: a lowered one holds for them too.
            let closes = if held.rate.is_none_or(|told| told == rate) {
                held.hand.closes(now)
            } else {
                held.hand.close_all(now)
            };
            let hand = &mut held.hand;
            let limit = rate.requests.get();
            let used = limit.saturating_sub(hand.remaining(now));
            let validity_ms = validity_ms(rate, used, self.round_trip_ms);
            let units = hand.units(now);
            let want = if limit <= RATE_SINGLE_MAX {
                0
            } else {
                per_s.saturating_mul(validity_ms).div_ceil(1_000)
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
            (call, now)
        };
        let reserve = RateReserve { key: charge.slot.key.clone(), call };
        let answer = self.store.rate(&reserve).await;
        let mut state = charge.lock();
        let now = self.clock.boot();
        state.answered = now;
        let InHand::Rate(held) = &mut state.hand else { return Ok(()) };
        match answer {
            Ok(answer) => {
                held.rate = Some(rate);
                held.hand.merge(&answer, sent, reserve.call.validity_ms);
                Ok(())
            }
            Err(error) => {
                held.hold_off = now.plus_ms(HOLD_OFF_MS);
                held.hand.reopen(&reserve.call.closes, now);
                Err(error)
            }
        }
    }

    async fn call_quota(
        &self,
        charge: &Charge,
        terms: &QuotaTerms<'_>,
        cost: u64,
    ) -> Result<(), StoreError> {
        let anchor = self.anchor(charge, terms).await?;
        let mut now_unix = self.clock.unix();
        // A second round only when the store's clock is in another window than this machine's.
        for _ in 0..3 {
            let window = window_at(terms.period, anchor, terms.resets, now_unix);
            self.leave_window(charge, &window).await?;
            let (reserve, sent) = self.quota_call(charge, terms, window, cost);
            let reserved = self.store.quota(&reserve).await;
            let reserved = reserved.inspect_err(|_| self.hold_off(charge))?;
            match reserved {
                QuotaReserved::Answer { answer, ends_in_ms } => {
                    let mut state = charge.lock();
                    state.answered = self.clock.boot();
                    if let InHand::Quota(quota) = &mut state.hand {
                        quota.window = Some((window, ends_in_ms.map(|ms| end_of(sent, ms))));
                        quota.renews = ends_in_ms.map(|ms| sent.plus_ms(ms));
                        if quota.generation <= terms.generation {
                            (quota.limit, quota.generation) = (terms.limit, terms.generation);
                        }
                        quota.hand.merge(&answer);
                        quota.pace(cost.max(1), sent);
                    }
                    return Ok(());
                }
                QuotaReserved::OtherWindow { now } => now_unix = now,
            }
        }
        Err(StoreError::Damaged { what: "the clock" })
    }

    fn quota_call(
        &self,
        charge: &Charge,
        terms: &QuotaTerms<'_>,
        window: Window,
        cost: u64,
    ) -> (QuotaReserve, BootNs) {
        let mut state = charge.lock();
        let now = self.clock.boot();
        let per_s = pace_per_s(&state.hand, state.answered, now);
        let waiting = state.waiting.max(cost);
        let short = window.end.is_some_and(|end| end.since_ms(window.start) <= SHORT_WINDOW_MS);
        let ahead_s = if short { AHEAD_SHORT_S } else { AHEAD_LONG_S };
        let q = self.next_q();
        let cell = match &mut state.hand {
            InHand::Quota(quota) => {
                if quota.generation < terms.generation && terms.limit < quota.limit {
                    // The limit was lowered: what is in hand goes back, and is granted anew.
                    quota.hand.give_back(u64::MAX);
                }
                quota.hand.next_call(q)
            }
            InHand::Rate(_) => crate::domain::lease::Cell::default(),
        };
        let units = cell.unspent();
        let call = QuotaCall {
            process: self.process,
            cell,
            limit: terms.limit,
            generation: terms.generation,
            want: per_s.saturating_mul(ahead_s),
            need: waiting.saturating_sub(units),
            least: cost.saturating_sub(units),
            live: 1,
        };
        (QuotaReserve { key: charge.slot.key.clone(), window, call }, now)
    }

    /// After a call without an answer: what is in hand is spent before another one is tried.
    fn hold_off(&self, charge: &Charge) {
        let now = self.clock.boot();
        if let InHand::Quota(quota) = &mut charge.lock().hand {
            quota.hold_off = now.plus_ms(HOLD_OFF_MS);
        }
    }

    /// Begins a new hand when the window is another than the hand's. What is left of the old hand
    /// belongs to the old window: it is reported there when that is still open (after a reset),
    /// and forgotten otherwise.
    async fn leave_window(&self, charge: &Charge, window: &Window) -> Result<(), StoreError> {
        let report = {
            let mut state = charge.lock();
            let now = self.clock.boot();
            let InHand::Quota(quota) = &mut state.hand else { return Ok(()) };
            match quota.window {
                Some((old, _)) if old == *window => return Ok(()),
                None => return Ok(()),
                Some((old, ends)) => {
                    let report = ends.is_none_or(|ends| now < ends).then(|| {
                        quota.hand.give_back(u64::MAX);
                        (old, quota.hand.next_call(self.next_q()))
                    });
                    *quota = QuotaInHand {
                        anchor: quota.anchor,
                        limit: quota.limit,
                        generation: quota.generation,
                        ..QuotaInHand::default()
                    };
                    report
                }
            }
        };
        let Some((old, cell)) = report else { return Ok(()) };
        let call = QuotaCall {
            process: self.process,
            cell,
            limit: 0,
            generation: 0,
            want: 0,
            need: 0,
            least: 0,
            live: 1,
        };
        let reserve = QuotaReserve { key: charge.slot.key.clone(), window: old, call };
        self.store.quota(&reserve).await.map(|_| ())
    }

    /// When the subject's rolling periods began: kept by the store from its first use.
    async fn anchor(&self, charge: &Charge, terms: &QuotaTerms<'_>) -> Result<UnixMs, StoreError> {
        if !matches!(terms.period, Period::Every { .. }) {
            return Ok(UnixMs(0));
        }
        if let InHand::Quota(quota) = &charge.lock().hand
            && let Some(anchor) = quota.anchor
        {
            return Ok(anchor);
        }
        let anchor = self.store.anchor(&charge.slot.key.subject, self.clock.unix()).await?;
        if let InHand::Quota(quota) = &mut charge.lock().hand {
            quota.anchor = Some(anchor);
        }
        Ok(anchor)
    }

    /// Sends everything in hand back: after it the store knows exactly what was spent.
    pub(super) async fn give_back(&self, slot: &Slot) -> Result<(), StoreError> {
        let reserve = {
            let mut state = slot.state.lock();
            if std::mem::replace(&mut state.asking, true) {
                return Ok(());
            }
            let InHand::Quota(quota) = &mut state.hand else {
                state.asking = false;
                return Ok(());
            };
            let Some((window, _)) = quota.window else {
                state.asking = false;
                return Ok(());
            };
            quota.hand.give_back(u64::MAX);
            let call = QuotaCall {
                process: self.process,
                cell: quota.hand.next_call(self.next_q()),
                limit: 0,
                generation: 0,
                want: 0,
                need: 0,
                least: 0,
                live: 1,
            };
            QuotaReserve { key: slot.key.clone(), window, call }
        };
        let _asking = Asking(slot);
        let reserved = self.store.quota(&reserve).await?;
        if let QuotaReserved::Answer { answer: answer @ QuotaAnswer::State(_), .. } = reserved
            && let InHand::Quota(quota) = &mut slot.state.lock().hand
        {
            quota.hand.merge(&answer);
        }
        Ok(())
    }
}

/// What a quota call needs to know of the limit.
struct QuotaTerms<'a> {
    limit: u64,
    period: &'a Period,
    resets: u64,
    generation: u64,
}

fn end_of(sent: BootNs, ends_in_ms: u64) -> BootNs {
    sent.plus_ms(ends_in_ms.saturating_sub(ends_in_ms / CLOCK_SPEED_DIVISOR))
}
