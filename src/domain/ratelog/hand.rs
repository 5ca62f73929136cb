//! The gateway's side of one rate counter.

use crate::domain::ratelog::{Close, OPEN_MAX, RateAnswer};
use crate::domain::time::BootNs;

/// One lease in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    q: u64,
    left: u64,
    spent: u64,
    last_spent: BootNs,
    deadline: BootNs,
}

/// Leases in hand, oldest first, and what the last answer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateHand {
    leases: Vec<Lease>,
    free: u64,
    last_grant: u64,
    spent_since_answer: u64,
    /// No unit is free before this: refuse without asking.
    full_until: BootNs,
    reset_at: BootNs,
}

impl RateHand {
    /// Units that can be spent at `now`.
    #[must_use]
    pub fn units(&self, now: BootNs) -> u64 {
        let valid = self.leases.iter().filter(|lease| now < lease.deadline);
        valid.map(|lease| lease.left).fold(0, u64::saturating_add)
    }

    /// Spends units, if as many are in hand; they may come from several leases.
    pub fn spend(&mut self, cost: u64, now: BootNs) -> bool {
        if self.units(now) < cost {
            return false;
        }
        let mut owed = cost;
        for lease in self.leases.iter_mut().filter(|lease| now < lease.deadline) {
            let take = owed.min(lease.left);
            lease.left = lease.left.saturating_sub(take);
            lease.spent = lease.spent.saturating_add(take);
            if 0 < take {
                // Who read the clock first may come second.
                lease.last_spent = lease.last_spent.max(now);
            }
            owed = owed.saturating_sub(take);
        }
        self.spent_since_answer = self.spent_since_answer.saturating_add(cost);
        true
    }

    /// Units that a client may still use now, as far as this gateway knows.
    #[must_use]
    pub fn remaining(&self, now: BootNs) -> u64 {
        self.free.saturating_add(self.units(now))
    }

    /// Units the last answer said are free at the store.
    #[must_use]
    pub fn free_at_store(&self) -> u64 {
        self.free
    }

    /// When the log is known to be full until; a time that has passed says nothing.
    #[must_use]
    pub fn full_until(&self) -> BootNs {
        self.full_until
    }

    /// When the whole rate is free again, if nothing more is used.
    #[must_use]
    pub fn reset_at(&self) -> BootNs {
        self.reset_at
    }

    /// Whether units that were not spent in time wait to be reported: the next call frees them.
    #[must_use]
    pub fn can_return(&self, now: BootNs) -> bool {
        self.leases.iter().any(|lease| 0 < lease.left && lease.deadline <= now)
    }

    /// Whether it is time to ask ahead.
    #[must_use]
    pub fn is_low(&self, now: BootNs) -> bool {
        1 < self.last_grant && self.units(now) < self.last_grant / 2 && 0 < self.free
    }

    /// Units spent since the last answer: the recent pace.
    #[must_use]
    pub fn spent_since_answer(&self) -> u64 {
        self.spent_since_answer
    }

    /// Units that are in hand or were spent from it, by the instant they can last be spent.
    pub(super) fn latest(&self) -> impl Iterator<Item = (BootNs, u64)> {
        self.leases.iter().map(|lease| {
            let last = if lease.left == 0 { lease.last_spent } else { lease.deadline };
            (last, lease.left.saturating_add(lease.spent))
        })
    }

    /// Takes the leases out that are used up or too old, to be reported with the next call.
    ///
    /// The newest lease is reported too when it is empty: the sooner the store knows when its
    /// units were spent, the sooner it lets go of them.
    pub fn closes(&mut self, now: BootNs) -> Vec<Close> {
        let mut closes = Vec::new();
        self.leases.retain(|lease| {
            let done = lease.left == 0 || lease.deadline <= now;
            if done && closes.len() < OPEN_MAX {
                let age_ms = now.since_ms(lease.last_spent);
                closes.push(Close { q: lease.q, spent: lease.spent, age_ms });
            }
            !done
        });
        closes
    }

    /// Takes everything out: nothing of it can be spent any more.
    pub fn close_all(&mut self, now: BootNs) -> Vec<Close> {
        for lease in &mut self.leases {
            lease.left = 0;
        }
        self.closes(now)
    }

    /// Puts closes back that no answer confirmed: they go out again with the next call.
    pub fn reopen(&mut self, closes: &[Close], now: BootNs) {
        for close in closes {
            let ago = BootNs(now.0.saturating_sub(close.age_ms.saturating_mul(1_000_000)));
            let lease =
                Lease { q: close.q, left: 0, spent: close.spent, last_spent: ago, deadline: now };
            self.leases.insert(0, lease);
        }
        self.leases.truncate(OPEN_MAX);
    }

    /// Takes an answer in. `sent` is when its call was sent, `validity_ms` what the call said.
    pub fn merge(&mut self, answer: &RateAnswer, sent: BootNs, validity_ms: u64) {
        if 0 < answer.granted {
            let deadline = sent.plus_ms(validity_ms);
            let lease =
                Lease { q: answer.q, left: answer.granted, spent: 0, last_spent: sent, deadline };
            self.leases.push(lease);
        }
        self.free = answer.free;
        self.last_grant = answer.granted;
        self.spent_since_answer = 0;
        self.full_until = sent.plus_ms(answer.wait_ms);
        self.reset_at = sent.plus_ms(answer.reset_ms);
    }
}
