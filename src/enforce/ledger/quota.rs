//! Asking for units of a quota, and giving them back.

use crate::domain::counter::{ProcessId, Window};
use crate::domain::lease::{Cell, QuotaAnswer, QuotaCall};
use crate::domain::limit::Period;
use crate::domain::period::window_at;
use crate::domain::shard::{Accepted, QuotaReply};
use crate::domain::time::{BootNs, UnixMs};
use crate::enforce::ledger::ask::LEARN_WAIT;
use crate::enforce::ledger::{Ledger, spent_in};
use crate::enforce::slot::{Charge, InHand, QuotaInHand, Slot};
use crate::store::hint::HintKind;
use crate::store::{CounterStore, QuotaReserve, QuotaReserved, StoreError};

/// For how much of the recent pace a quota is asked ahead: 1 s in short windows, 10 s in long.
const AHEAD_SHORT_MS: u64 = 1_000;
const AHEAD_LONG_MS: u64 = 10_000;
/// Windows up to this length are short.
const SHORT_WINDOW_MS: u64 = 60_000;
/// An end is taken to be this fraction of the answer's span earlier: clocks may differ in speed
/// by as much (design.md, section 4, rule 5).
const CLOCK_SPEED_DIVISOR: u64 = 1_000;
/// How long an edited limit waits to be told again after a call without an answer.
pub(super) const HOLD_OFF_MS: u64 = 1_000;
/// Windows asked about in one call: a second only when the store's clock is in another window than
/// this machine's, a third when that one ended meanwhile.
const WINDOWS_TRIED_MAX: u8 = 3;
/// A store that is learning is asked again after so long, in milliseconds, if nothing is heard.
const LEARN_LOOK_MS: u64 = 25;

/// What a quota call needs to know of the limit.
pub(super) struct QuotaTerms<'a> {
    pub(super) limit: u64,
    pub(super) period: &'a Period,
    pub(super) resets: u64,
    pub(super) generation: u64,
}

/// One call, on its way.
struct Sent {
    reserve: QuotaReserve,
    at: BootNs,
    cost: u64,
}

impl Ledger {
    pub(super) async fn call_quota(
        &self,
        charge: &Charge,
        terms: &QuotaTerms<'_>,
        cost: u64,
    ) -> Result<(), StoreError> {
        let started = self.clock.boot();
        self.pay_debts(Some(&charge.slot.key)).await?;
        let mut now_unix = self.clock.unix();
        let mut windows_tried = 0;
        while windows_tried < WINDOWS_TRIED_MAX {
            let window = match self.open_window(charge, terms).filter(|_| windows_tried == 0) {
                Some(window) => window,
                None => match self.anchor(charge, terms).await {
                    Err(StoreError::Learning) => {
                        self.wait_until_open(started, cost).await?;
                        continue;
                    }
                    anchor => window_at(terms.period, anchor?, terms.resets, now_unix),
                },
            };
            self.leave_window(charge, &window).await?;
            let sent = self.quota_call(charge, terms, window, cost);
            let reserved = self.store.quota(&sent.reserve).await;
            match reserved.inspect_err(|_| self.hold_off(charge))? {
                QuotaReserved::Answer { answer, ends_in_ms, incarnation, copy } => {
                    let q = sent.reserve.call.cell.last_call;
                    let reply = QuotaReply { incarnation, q, answer, copy };
                    if self.accept(charge, terms, &sent, &reply, ends_in_ms) == Accepted::Yes {
                        self.settle(&charge.slot);
                        return Ok(());
                    }
                }
                QuotaReserved::OtherWindow { now } => {
                    windows_tried += 1;
                    now_unix = now;
                }
                QuotaReserved::Learn => self.wait_until_open(started, cost).await?,
            }
        }
        Err(StoreError::Damaged { what: "the clock" })
    }

    /// Waits a little for a store that is learning, or gives up. Who asks ahead does not wait.
    async fn wait_until_open(&self, started: BootNs, cost: u64) -> Result<(), StoreError> {
        let waited_ms = self.clock.boot().since_ms(started);
        if cost == 0 || LEARN_WAIT.as_millis() <= u128::from(waited_ms) {
            return Err(StoreError::Learning);
        }
        let look = std::time::Duration::from_millis(LEARN_LOOK_MS);
        // Either way the store is asked again.
        let _told = tokio::time::timeout(look, self.store.until_told()).await;
        Ok(())
    }

    /// Takes an answer in, unless the store has begun a new life since.
    fn accept(
        &self,
        charge: &Charge,
        terms: &QuotaTerms<'_>,
        sent: &Sent,
        reply: &QuotaReply,
        ends_in_ms: Option<u64>,
    ) -> Accepted {
        let mut state = charge.lock();
        state.answered = self.clock.boot();
        let InHand::Quota(quota) = &mut state.hand else { return Accepted::Yes };
        // Read under the slot's lock: what is taken in before a new life is known is asserted in
        // it, for which the slot is locked later; what comes after is refused.
        let member = self.store.member(self.store.shard(&charge.slot.key));
        let before = quota.held.hand.totals();
        let reported = quota.held.hand.spent_as_heard();
        let (accepted, reached) = quota.hear(&member, reply, sent.reserve.window);
        if accepted == Accepted::No {
            return Accepted::No;
        }
        match reply.answer {
            QuotaAnswer::State(_) => {
                let now = quota.held.hand.totals();
                self.metrics.leased(now.granted.saturating_sub(before.granted));
                let heard = quota.held.hand.spent_as_heard();
                self.metrics.spent(heard.saturating_sub(reported));
            }
            QuotaAnswer::Gone => self.metrics.wasted(before.unspent()),
        }
        quota.window = Some((sent.reserve.window, ends_in_ms.map(|ms| end_of(sent.at, ms))));
        quota.renews = ends_in_ms.map(|ms| sent.at.plus_ms(ms));
        if quota.generation <= terms.generation {
            (quota.limit, quota.generation) = (terms.limit, terms.generation);
        }
        let short = quota.pace(sent.cost.max(1), sent.at);
        drop(state);
        self.announce(&charge.slot.key, &reached);
        if short {
            self.hint(HintKind::Short, &charge.slot.key);
        }
        Accepted::Yes
    }

    fn quota_call(
        &self,
        charge: &Charge,
        terms: &QuotaTerms<'_>,
        window: Window,
        cost: u64,
    ) -> Sent {
        let mut state = charge.lock();
        let now = self.clock.boot();
        let waiting = state.waiting.max(cost);
        let short = window.end.is_some_and(|end| end.since_ms(window.start) <= SHORT_WINDOW_MS);
        let ahead_ms = if short { AHEAD_SHORT_MS } else { AHEAD_LONG_MS };
        let answered = state.answered;
        let q = self.next_q();
        let (cell, want) = match &mut state.hand {
            InHand::Quota(quota) => {
                let spent = quota.held.hand.spent_since_answer();
                let lowered = quota.generation < terms.generation && terms.limit < quota.limit;
                if lowered {
                    // What is in hand goes back, and is granted anew.
                    self.give_up(quota);
                }
                (quota.held.hand.next_call(q), spent_in(ahead_ms, spent, answered, now))
            }
            InHand::Rate(_) => (Cell::default(), 0),
        };
        let units = cell.unspent();
        let call = QuotaCall {
            limit: terms.limit,
            generation: terms.generation,
            want,
            need: waiting.saturating_sub(units),
            least: cost.saturating_sub(units),
            live: self.peers.count(),
            ..release(self.process, cell)
        };
        Sent { reserve: QuotaReserve { key: charge.slot.key.clone(), window, call }, at: now, cost }
    }

    /// Takes everything out of a hand, to be given back with the next call.
    fn give_up(&self, quota: &mut QuotaInHand) {
        self.metrics.returned(quota.held.hand.units());
        quota.held.hand.give_back(u64::MAX);
    }

    /// After a call without an answer: what is in hand is spent before another one is tried.
    fn hold_off(&self, charge: &Charge) {
        let now = self.clock.boot();
        if let InHand::Quota(quota) = &mut charge.lock().hand {
            quota.hold_off = now.plus_ms(HOLD_OFF_MS);
        }
    }

    /// The hand's window, while it is not over: then this machine's wall clock is not asked.
    fn open_window(&self, charge: &Charge, terms: &QuotaTerms<'_>) -> Option<Window> {
        let now = self.clock.boot();
        let InHand::Quota(quota) = &charge.lock().hand else { return None };
        let (window, ends) = quota.window?;
        (window.reset == terms.resets && ends.is_none_or(|ends| now < ends)).then_some(window)
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
                    let open = ends.is_none_or(|ends| now < ends);
                    if open {
                        self.give_up(quota);
                    } else {
                        self.metrics.wasted(quota.held.hand.units());
                    }
                    let report = open.then(|| (old, quota.held.hand.next_call(self.next_q())));
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
        let call = release(self.process, cell);
        let reserve = QuotaReserve { key: charge.slot.key.clone(), window: old, call };
        self.store.quota(&reserve).await.map(|_| ())
    }

    /// When the subject's rolling periods began: kept by the store from its first use.
    async fn anchor(&self, charge: &Charge, terms: &QuotaTerms<'_>) -> Result<UnixMs, StoreError> {
        if !matches!(terms.period, Period::Every { .. }) {
            return Ok(UnixMs(0));
        }
        // Known while its window is open: from then on the store's counts, in case it lost it.
        if let InHand::Quota(quota) = &charge.lock().hand
            && let (Some(anchor), Some((_, ends))) = (quota.anchor, quota.window)
            && ends.is_none_or(|ends| self.clock.boot() < ends)
        {
            return Ok(anchor);
        }
        let anchor = self.store.anchor(&charge.slot.key.subject, self.clock.unix()).await?;
        if let InHand::Quota(quota) = &mut charge.lock().hand {
            quota.anchor = Some(anchor);
        }
        Ok(anchor)
    }

    /// Sends everything in hand back, so many units: after it the store knows exactly what was
    /// spent. The caller holds the slot's `asking` mark.
    pub(super) async fn give_back(&self, slot: &Slot) -> Result<u64, StoreError> {
        let (units, scarce);
        let reserve = {
            let mut state = slot.state.lock();
            let InHand::Quota(quota) = &mut state.hand else { return Ok(0) };
            let Some((window, _)) = quota.window else { return Ok(0) };
            units = quota.held.hand.units();
            scarce = quota.held.hand.remaining_at_store() < units;
            self.give_up(quota);
            let call = release(self.process, quota.held.hand.next_call(self.next_q()));
            QuotaReserve { key: slot.key.clone(), window, call }
        };
        match self.store.quota(&reserve).await? {
            QuotaReserved::Answer { answer, incarnation, copy, .. } => {
                let mut reached = Vec::new();
                if let InHand::Quota(quota) = &mut slot.state.lock().hand {
                    let q = reserve.call.cell.last_call;
                    let member = self.store.member(self.store.shard(&slot.key));
                    let reply = QuotaReply { incarnation, q, answer, copy };
                    (_, reached) = quota.hear(&member, &reply, reserve.window);
                }
                self.announce(&slot.key, &reached);
            }
            // It is over, and with it what was in hand.
            QuotaReserved::OtherWindow { .. } => {}
            QuotaReserved::Learn => return Err(StoreError::Learning),
        }
        if scarce {
            self.hint(HintKind::Freed, &slot.key);
        }
        self.settle(slot);
        Ok(units)
    }
}

/// A call that only reports and returns.
fn release(process: ProcessId, cell: Cell) -> QuotaCall {
    QuotaCall { process, cell, limit: 0, generation: 0, want: 0, need: 0, least: 0, live: 1 }
}

/// A call that tells what an ended process admitted by itself: its last one. Told again it changes
/// nothing.
pub(super) fn settlement(process: ProcessId, first_call: u64, local: u64) -> QuotaCall {
    /// Above all calls that a process can have made, and exact in a double.
    const LAST_CALL: u64 = (1 << 53) - 1;
    release(process, Cell { first_call, last_call: LAST_CALL, local, ..Cell::default() })
}

/// When a window ends by this process's clock, at the earliest. The store's milliseconds are cut
/// off, so one more goes.
fn end_of(sent: BootNs, ends_in_ms: u64) -> BootNs {
    let margin = (ends_in_ms / CLOCK_SPEED_DIVISOR).saturating_add(1);
    // In the last millisecond there would be nothing left to ask for.
    sent.plus_ms(ends_in_ms.saturating_sub(margin).max(1))
}
