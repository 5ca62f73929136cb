//! Rate limits: a sliding log of leases. design.md, section 4, "Rate: a batched sliding log".
//!
//! A gateway opens a lease of some units, to be spent within a short validity, and closes it with
//! the next call, saying how many units it spent and how long ago the last one was. The store
//! grants only while open and closed leases together stay within the rate, and counts a unit
//! until a whole window after it can last have been spent. So in no window more is admitted than
//! the rate, and a busy counter costs a call per validity instead of one per request.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use crate::domain::counter::ProcessId;
use crate::domain::limit::Rate;

mod away;
mod hand;
#[cfg(test)]
mod tests;
mod told;

pub use away::AwayLog;
pub use hand::RateHand;
pub use told::{Spent, is_told};

/// Up to this rate a lease holds only what waits: every admitted request costs a call.
pub const RATE_SINGLE_MAX: u64 = 64;
/// A unit's leaving time is rounded up to this fraction of the window where the rate is above
/// [`RATE_SINGLE_MAX`], so that a log has at most some 130 entries.
const LOG_STEPS: u64 = 128;
/// What a lease of a very short window may be valid for all the same, in milliseconds.
const VALIDITY_MS_FLOOR: u64 = 20;
/// The longest validity of a lease at a rate of at most [`RATE_SINGLE_MAX`], in milliseconds.
const VALIDITY_SINGLE_MS_MAX: u64 = 100;
/// Leases one process may have open at once; more means it does not close them.
pub const OPEN_MAX: usize = 64;

/// What is added to a window for what may happen between the check and the arrival upstream.
#[must_use]
pub fn guard_ms(rate: Rate) -> u64 {
    (rate.per_ms.get() / 1_000).max(5)
}

/// How long a lease may be spent from, in milliseconds, given the share of the rate in use and
/// the 99th percentile of the round trip to the store.
#[must_use]
pub fn validity_ms(rate: Rate, used: u64, round_trip_ms: u64) -> u64 {
    let per = rate.per_ms.get();
    let busy = rate.requests.get() <= used.saturating_mul(2);
    let share = if busy { per / 50 } else { per / 4 };
    // Not longer: that is what is waited for after a loss, beyond the window.
    let longest = (per / 4).max(VALIDITY_MS_FLOOR);
    let floor = round_trip_ms.saturating_mul(2).max(1).min(longest);
    if rate.requests.get() <= RATE_SINGLE_MAX {
        share.max(floor).min(VALIDITY_SINGLE_MS_MAX.max(floor))
    } else {
        share.max(floor)
    }
}

/// One lease that a process reports as done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The call that opened it.
    pub q: u64,
    /// Units spent of it.
    pub spent: u64,
    /// Milliseconds since the last of them was spent, rounded down.
    pub age_ms: u64,
}

/// One call of a process on one rate counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateCall {
    /// Who asks.
    pub process: ProcessId,
    /// This call's number, above all earlier ones of the process; 0 only reads.
    pub q: u64,
    /// The rate as the caller knows it.
    pub rate: Rate,
    /// Leases the caller is done with.
    pub closes: Vec<Close>,
    /// Units the caller would like to hold.
    pub want: u64,
    /// Units that requests are waiting for now.
    pub need: u64,
    /// The smallest waiting request's cost less what is in hand.
    pub least: u64,
    /// How long the opened lease may be spent from, from the moment the call is sent.
    pub validity_ms: u64,
}

impl RateCall {
    /// A call that changes nothing: its answer says what is free.
    #[must_use]
    pub fn look(rate: Rate) -> Self {
        Self {
            process: ProcessId(0),
            q: 0,
            rate,
            closes: Vec::new(),
            want: 0,
            need: 0,
            least: 0,
            validity_ms: 0,
        }
    }
}

/// What the store says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateAnswer {
    /// The call this answers.
    pub q: u64,
    /// Units granted with this call.
    pub granted: u64,
    /// Units of the rate that neither open nor closed leases hold, after the grant.
    pub free: u64,
    /// Milliseconds until `least` units (at least one) are free again, if nothing comes back
    /// early; 0 while they are free.
    pub wait_ms: u64,
    /// Milliseconds until the whole rate is free again.
    pub reset_ms: u64,
}

/// One change of a log, in absolute times: what a journal keeps, so that reading it back needs
/// none of the arithmetic here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateEffect {
    /// A lease was opened.
    Opened {
        /// By whom.
        process: ProcessId,
        /// The call that opened it.
        q: u64,
        /// When its units leave the log, if it is never closed.
        leaves_ms: u64,
        /// Units it holds.
        units: u64,
    },
    /// A lease was closed: it counts no more, what was spent of it does.
    Closed {
        /// Whose it was.
        process: ProcessId,
        /// The call that had opened it.
        q: u64,
        /// When the spent units leave the log.
        leaves_ms: u64,
        /// Units spent.
        units: u64,
    },
    /// Spent units that count; which lease they were of is not known any more.
    Counted {
        /// When they leave the log.
        leaves_ms: u64,
        /// How many.
        units: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    expires_ms: u64,
    units: u64,
}

/// One rate counter, as the store keeps it. Times are the store's, in milliseconds, and steady.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLog {
    last_call: BTreeMap<ProcessId, u64>,
    open: BTreeMap<(ProcessId, u64), Open>,
    /// Units by the time they leave.
    closed: BTreeMap<u64, u64>,
}

impl RateLog {
    /// Units that count against the rate at `now_ms`.
    #[must_use]
    pub fn used(&self) -> u64 {
        let open = self.open.values().map(|open| open.units);
        open.chain(self.closed.values().copied()).fold(0, u64::saturating_add)
    }

    /// Whether nothing counts any more, so that the counter may be forgotten.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.closed.is_empty()
    }

    /// Executes one call at the store's time `now_ms`.
    pub fn reserve(&mut self, call: &RateCall, now_ms: u64) -> RateAnswer {
        self.reserve_recorded(call, now_ms, |_| {})
    }

    /// Executes one call like [`Self::reserve`], and tells `record` what it changed.
    pub fn reserve_recorded(
        &mut self,
        call: &RateCall,
        now_ms: u64,
        mut record: impl FnMut(RateEffect),
    ) -> RateAnswer {
        self.expire(call.rate, now_ms);
        let newest = self.last_call.get(&call.process).copied();
        let repeated = call.q == 0 || newest.is_some_and(|newest| call.q <= newest);
        if !repeated {
            self.last_call.insert(call.process, call.q);
            for close in &call.closes {
                if let Some(effect) = self.close(call, close, now_ms) {
                    record(effect);
                }
            }
        }
        let free = call.rate.requests.get().saturating_sub(self.used());
        let granted = if repeated || free < call.least || free == 0 {
            0
        } else {
            free.min(call.need.max(call.want))
        };
        if 0 < granted {
            let expires_ms = now_ms.saturating_add(call.validity_ms);
            self.open.insert((call.process, call.q), Open { expires_ms, units: granted });
            let (process, q) = (call.process, call.q);
            let leaves_ms = expires_ms.saturating_add(tail_ms(call.rate));
            record(RateEffect::Opened { process, q, leaves_ms, units: granted });
        }
        let free = free.saturating_sub(granted);
        let target = call.least.max(1);
        let (wait_ms, reset_ms) = self.waits(call.rate, target, free, now_ms);
        RateAnswer { q: call.q, granted, free, wait_ms, reset_ms }
    }

    /// Puts units back into the log as a journal recorded them: they leave at `leaves_ms`.
    pub fn restore(&mut self, leaves_ms: u64, units: u64) {
        let slot = self.closed.entry(leaves_ms).or_insert(0);
        *slot = slot.saturating_add(units);
    }

    /// Everything that counts, as (leaves at, units), with open leases at their latest time.
    pub fn entries(&self, rate: Rate) -> impl Iterator<Item = (u64, u64)> {
        let tail = tail_ms(rate);
        let open = self.open.values().map(move |o| (o.expires_ms.saturating_add(tail), o.units));
        self.closed.iter().map(|(leaves, units)| (*leaves, *units)).chain(open)
    }

    /// Everything that counts, so that a journal can begin with it.
    pub fn effects(&self, rate: Rate) -> impl Iterator<Item = RateEffect> {
        let counted = |(at, n): (&u64, &u64)| RateEffect::Counted { leaves_ms: *at, units: *n };
        let opened = move |(&(process, q), open): (&(ProcessId, u64), &Open)| RateEffect::Opened {
            process,
            q,
            leaves_ms: open.expires_ms.saturating_add(tail_ms(rate)),
            units: open.units,
        };
        self.closed.iter().map(counted).chain(self.open.iter().map(opened))
    }

    fn expire(&mut self, rate: Rate, now_ms: u64) {
        let tail = tail_ms(rate);
        self.open.retain(|_, open| now_ms < open.expires_ms.saturating_add(tail));
        self.closed = self.closed.split_off(&now_ms.saturating_add(1));
    }

    fn close(&mut self, call: &RateCall, close: &Close, now_ms: u64) -> Option<RateEffect> {
        let open = self.open.remove(&(call.process, close.q))?;
        let units = close.spent.min(open.units);
        let spent_at = open.expires_ms.min(now_ms.saturating_sub(close.age_ms));
        let leaves_ms = round_up(spent_at.saturating_add(tail_ms(call.rate)), call.rate);
        if 0 < units {
            let slot = self.closed.entry(leaves_ms).or_insert(0);
            *slot = slot.saturating_add(units);
        }
        Some(RateEffect::Closed { process: call.process, q: close.q, leaves_ms, units })
    }

    fn waits(&self, rate: Rate, target: u64, free: u64, now_ms: u64) -> (u64, u64) {
        let mut entries: Vec<(u64, u64)> = self.entries(rate).collect();
        entries.sort_unstable();
        let reset_ms = entries.last().map_or(0, |(leaves, _)| leaves.saturating_sub(now_ms));
        if target <= free {
            return (0, reset_ms);
        }
        let mut freed = free;
        for (leaves, units) in entries {
            freed = freed.saturating_add(units);
            if target <= freed {
                return (leaves.saturating_sub(now_ms), reset_ms);
            }
        }
        (reset_ms, reset_ms)
    }
}

/// How long after it was spent a unit counts, in milliseconds.
fn tail_ms(rate: Rate) -> u64 {
    rate.per_ms.get().saturating_add(guard_ms(rate))
}

fn round_up(leaves_ms: u64, rate: Rate) -> u64 {
    let step = (rate.per_ms.get() / LOG_STEPS).max(1);
    if rate.requests.get() <= RATE_SINGLE_MAX {
        leaves_ms
    } else {
        leaves_ms.div_ceil(step).saturating_mul(step)
    }
}

/// A rate that admits `requests` in `per_ms`; for callers that have plain numbers.
#[must_use]
pub fn rate(requests: u64, per_ms: u64) -> Option<Rate> {
    Some(Rate { requests: NonZeroU64::new(requests)?, per_ms: NonZeroU64::new(per_ms)? })
}
