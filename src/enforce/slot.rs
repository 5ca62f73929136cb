//! One counter as this gateway holds it: leases in hand, behind a lock of a few lines.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::domain::counter::{CounterKey, Window};
use crate::domain::lease::QuotaAnswer;
use crate::domain::limit::{Period, Rate};
use crate::domain::ratelog::{AwayLog, RateHand, Spent};
use crate::domain::reading::{LimitKind, QuotaShare, Reading};
use crate::domain::shard::{Accepted, Held, Member, QuotaReply};
use crate::domain::time::{BootNs, UnixMs};
use crate::enforce::sync::{Mutex, MutexGuard};

mod turn;

pub(super) use turn::{Asking, Failure, Turn};

/// The shortest and longest pause before a used-up quota is asked about again, in milliseconds,
/// while other gateways hold units of it.
const ASK_AGAIN_MS_MIN: u64 = 1_000;
const ASK_AGAIN_MS_MAX: u64 = 30_000;

/// One counter. Cloning the `Arc` shares the hand; there is one slot per key in a process.
#[derive(Debug)]
pub(super) struct Slot {
    /// Slots of one request are locked in the order of their numbers, so that no two requests
    /// wait for each other.
    pub(super) number: u64,
    pub(super) key: CounterKey,
    pub(super) state: Mutex<State>,
    /// Told whenever an answer came in.
    pub(super) changed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) hand: InHand,
    /// Whether a call is under way: one at a time.
    pub(super) asking: bool,
    /// Calls that got no answer: who waited for one is told by it.
    pub(super) failures: u64,
    /// Why the last of them got none.
    pub(super) failure: Failure,
    /// Units that requests are waiting for.
    pub(super) waiting: u64,
    /// When the last answer came in.
    pub(super) answered: BootNs,
    /// When a unit was last spent.
    pub(super) used: BootNs,
}

#[derive(Debug)]
pub(super) enum InHand {
    Quota(QuotaInHand),
    Rate(RateInHand),
}

#[derive(Debug, Default)]
pub(super) struct RateInHand {
    pub(super) hand: RateHand,
    /// What was reported as spent of a long rate, in case the store loses it.
    pub(super) spent: Spent,
    /// What was admitted of it while the store was away.
    pub(super) away: AwayLog,
    /// The rate that the last answered call carried: another one has to be told.
    pub(super) rate: Option<Rate>,
    /// After a call without an answer, what is in hand is spent before another one is tried.
    pub(super) hold_off: BootNs,
}

#[derive(Debug, Default)]
pub(super) struct QuotaInHand {
    pub(super) held: Held,
    /// The window the hand belongs to, and when it ends by this process's clock.
    pub(super) window: Option<(Window, Option<BootNs>)>,
    /// When the window ends as the store said it: what clients are told. The end above is earlier
    /// by what two clocks may differ, and only says how long the hand may be spent from.
    pub(super) renews: Option<BootNs>,
    /// When the subject's rolling periods began, once known.
    pub(super) anchor: Option<UnixMs>,
    /// The limit that the last answered call carried, and its generation: a later one has to be
    /// told.
    pub(super) limit: u64,
    pub(super) generation: u64,
    /// After a call without an answer, what is in hand is spent before another one is tried.
    pub(super) hold_off: BootNs,
    /// Not to be asked again before this, after an answer with nothing in it.
    pub(super) ask_again: BootNs,
    pub(super) ask_again_ms: u64,
    /// When others were last asked to give units back.
    pub(super) recalled: Option<BootNs>,
    /// Units of this gateway's share that are written down and not used yet.
    pub(super) block: u64,
    /// So many units more were not to be had of the share.
    pub(super) share_lacks: Option<u64>,
    /// The share that the store last heard of, or is to hear of at once, and in which window.
    pub(super) told: Option<(Window, QuotaShare)>,
}

/// One limit of one API of one credential: what to charge, and where.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub(super) slot: Arc<Slot>,
    pub(super) limit: ChargeLimit,
}

#[derive(Clone, Debug)]
pub(super) enum ChargeLimit {
    Rate(Rate),
    Quota { limit: u64, period: Period, resets: u64, generation: u64 },
}

/// What a slot says to a cost, while its lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Enough is in hand.
    Enough,
    /// There is nothing to be had before so many milliseconds have passed; `None`: never.
    Refused { wait_ms: Option<u64> },
    /// The store has to be asked.
    Ask,
}

impl Slot {
    pub(super) fn new(number: u64, key: CounterKey, kind: LimitKind) -> Self {
        let hand = match kind {
            LimitKind::Quota => InHand::Quota(QuotaInHand::default()),
            LimitKind::Rate => InHand::Rate(RateInHand::default()),
        };
        let zero = BootNs::default();
        let state = State {
            hand,
            asking: false,
            failures: 0,
            failure: Failure::Away,
            waiting: 0,
            answered: zero,
            used: zero,
        };
        Self { number, key, state: Mutex::new(state), changed: Notify::new() }
    }
}

impl Charge {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.slot.state.lock()
    }

    /// Whether `cost` can be had from the hand, cannot be had at all, or only the store knows.
    pub(super) fn judge(&self, state: &State, cost: u64, now: BootNs) -> Verdict {
        match (&state.hand, &self.limit) {
            (InHand::Quota(quota), ChargeLimit::Quota { resets, generation, .. }) => {
                if quota.generation < *generation && quota.hold_off <= now {
                    return Verdict::Ask;
                }
                quota.judge(cost, *resets, now)
            }
            (InHand::Rate(held), ChargeLimit::Rate(rate)) => {
                let hand = &held.hand;
                if rate.requests.get() < cost {
                    Verdict::Refused { wait_ms: None }
                } else if held.rate != Some(*rate) && held.hold_off <= now {
                    Verdict::Ask
                } else if cost <= hand.units(now) {
                    Verdict::Enough
                } else if now < hand.full_until()
                    && hand.remaining(now) < cost
                    && !hand.can_return(now)
                {
                    Verdict::Refused { wait_ms: Some(wait_ms(now, hand.full_until())) }
                } else {
                    Verdict::Ask
                }
            }
            // A key names its kind, so a slot and its limits agree.
            (InHand::Quota(_), ChargeLimit::Rate(_))
            | (InHand::Rate(_), ChargeLimit::Quota { .. }) => Verdict::Ask,
        }
    }

    /// Spends what [`Self::judge`] found to be enough.
    pub(super) fn spend(&self, state: &mut State, cost: u64, now: BootNs) {
        let spent = match &mut state.hand {
            InHand::Quota(quota) => quota.held.hand.spend(cost),
            InHand::Rate(held) => held.hand.spend(cost, now),
        };
        debug_assert!(spent, "judged enough under the same lock");
        state.used = now;
    }

    /// Whether it is time to ask ahead, so that no request has to wait.
    pub(super) fn is_low(&self, state: &State, now: BootNs) -> bool {
        !state.asking
            && match &state.hand {
                InHand::Quota(quota) => quota.held.hand.is_low(),
                InHand::Rate(held) => held.hand.is_low(now),
            }
    }

    /// Whether a share of a quota is used now that was not before in its window, as far as this
    /// gateway knows: then the store is to hear at once of what was spent.
    pub(super) fn reaches(&self, state: &mut State) -> bool {
        let (InHand::Quota(quota), ChargeLimit::Quota { limit, .. }) =
            (&mut state.hand, &self.limit)
        else {
            return false;
        };
        let free = quota.held.hand.remaining().saturating_add(quota.held.hand.held_by_others());
        match (quota.window, QuotaShare::used(*limit, free)) {
            (Some((window, _)), Some(share)) => quota.is_news(window, share),
            (None, _) | (_, None) => false,
        }
    }

    pub(super) fn reading(&self, state: &State, now: BootNs) -> Reading {
        match (&state.hand, &self.limit) {
            (InHand::Quota(quota), ChargeLimit::Quota { limit, .. }) => {
                let (window_ms, reset_ms) = quota.spans(now);
                Reading {
                    kind: LimitKind::Quota,
                    limit: *limit,
                    remaining: quota.held.hand.remaining().min(*limit),
                    reset_ms,
                    window_ms,
                }
            }
            (InHand::Rate(held), ChargeLimit::Rate(rate)) => Reading {
                kind: LimitKind::Rate,
                limit: rate.requests.get(),
                remaining: held.hand.remaining(now).min(rate.requests.get()),
                reset_ms: Some(wait_ms(now, held.hand.reset_at())),
                window_ms: Some(rate.per_ms.get()),
            },
            (InHand::Quota(_), ChargeLimit::Rate(_))
            | (InHand::Rate(_), ChargeLimit::Quota { .. }) => Reading {
                kind: LimitKind::Rate,
                limit: 0,
                remaining: 0,
                reset_ms: None,
                window_ms: None,
            },
        }
    }
}

impl QuotaInHand {
    fn judge(&self, cost: u64, resets: u64, now: BootNs) -> Verdict {
        let Some((window, ends)) = self.window else { return Verdict::Ask };
        if window.reset != resets || ends.is_some_and(|ends| ends <= now) {
            return Verdict::Ask;
        }
        if cost <= self.held.hand.units() {
            Verdict::Enough
        } else if now < self.ask_again && self.held.hand.remaining() < cost {
            Verdict::Refused { wait_ms: self.renews.map(|renews| wait_ms(now, renews)) }
        } else {
            Verdict::Ask
        }
    }

    /// After an answer: how long a refusal needs no further question.
    ///
    /// While nobody else holds units nothing can come back before the window ends, except by an
    /// edit, which makes a new session and wakes the slot. Else ask again after a pause, or when
    /// others say that they gave some back. Whether these should be asked to is returned.
    pub(super) fn pace(&mut self, cost: u64, now: BootNs) -> bool {
        if cost <= self.held.hand.remaining() {
            self.ask_again = now;
            self.ask_again_ms = 0;
            false
        } else if self.held.hand.held_by_others() == 0 {
            self.ask_again = match self.window {
                Some((_, Some(ends))) => ends,
                Some((_, None)) | None => BootNs(u64::MAX),
            };
            false
        } else {
            let doubled = self.ask_again_ms.saturating_mul(2);
            self.ask_again_ms = doubled.clamp(ASK_AGAIN_MS_MIN, ASK_AGAIN_MS_MAX);
            self.ask_again = now.plus_ms(self.ask_again_ms);
            // Whoever is refused can ask as often as he likes.
            let again = |recalled: BootNs| recalled.plus_ms(ASK_AGAIN_MS_MIN) <= now;
            let recalls = self.recalled.is_none_or(again);
            if recalls {
                self.recalled = Some(now);
            }
            recalls
        }
    }

    /// Whether a share was not told of yet in its window. From now on it is.
    fn is_news(&mut self, window: Window, share: QuotaShare) -> bool {
        let known = self.told.is_some_and(|(when, told)| when == window && share <= told);
        if !known {
            self.told = Some((window, share));
        }
        !known
    }

    /// Takes an answer of the store in, and says which shares of the quota its call was the one to
    /// report: each is reported by one call of all gateways in a window. A limit that was lowered
    /// below what is used is news to every gateway that knew the higher one.
    pub(super) fn hear(
        &mut self,
        member: &Member,
        reply: &QuotaReply,
        window: Window,
    ) -> (Accepted, Vec<(QuotaShare, u64)>) {
        let told = match &reply.answer {
            QuotaAnswer::State(state) => self.held.hand.reported(state).zip(Some(state.limit)),
            QuotaAnswer::Gone => None,
        };
        let accepted = self.held.accept(member, reply);
        let Some((reported, limit)) = told.filter(|_| accepted == Accepted::Yes) else {
            return (accepted, Vec::new());
        };
        let same = self.window.is_some_and(|(known, _)| known == window);
        let had = if same { limit.max(self.limit) } else { limit };
        let reached = QuotaShare::TOLD.into_iter().filter(|share| {
            share.is_reached(limit, reported.after) && !share.is_reached(had, reported.before)
        });
        let reached: Vec<_> = reached.map(|share| (share, limit)).collect();
        for (share, _) in &reached {
            self.is_news(window, *share);
        }
        (accepted, reached)
    }

    /// Length of the window and time to its end, in milliseconds.
    fn spans(&self, now: BootNs) -> (Option<u64>, Option<u64>) {
        let Some((window, _)) = self.window else { return (None, None) };
        let length = window.end.map(|end| end.since_ms(window.start));
        (length, self.renews.map(|renews| wait_ms(now, renews)))
    }
}

/// Milliseconds from `now` to `then`, rounded up: who waits so long is not early.
pub(super) fn wait_ms(now: BootNs, then: BootNs) -> u64 {
    then.since_ns(now).div_ceil(1_000_000)
}
