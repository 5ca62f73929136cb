//! What gateways tell of a long rate when the store has lost writes.
//!
//! A short rate is blind until all that may count has left. A long one would be so for hours, so
//! each gateway tells what it spent, by when it leaves.

use std::collections::BTreeMap;

use crate::domain::limit::Rate;
use crate::domain::ratelog::{Close, RateHand, RateLog, tail_ms};
use crate::domain::time::BootNs;

/// Rates of a longer window are told; `rate.lua` says it too.
const LONG_MS: u64 = 60_000;
/// Entries that one process tells of one rate: beyond, the oldest count as the next one.
const SPENT_MAX: usize = 256;

/// Units that were reported as spent, and may still count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent(Vec<(Close, BootNs)>);

/// Whether a rate is told of after a loss.
#[must_use]
pub fn is_told(rate: Rate) -> bool {
    LONG_MS < rate.per_ms.get()
}

impl Spent {
    /// Remembers what is reported now.
    pub fn add(&mut self, closes: &[Close], rate: Rate, now: BootNs) {
        let tail = tail_ms(rate);
        self.0.retain(|(_, at)| now < at.plus_ms(tail));
        let spent = closes.iter().filter(|close| 0 < close.spent);
        self.0.extend(spent.map(|close| (*close, ago(now, close.age_ms))));
        while SPENT_MAX < self.0.len() {
            let (oldest, _) = self.0.remove(0);
            if let Some((next, _)) = self.0.first_mut() {
                next.spent = next.spent.saturating_add(oldest.spent);
            }
        }
    }

    /// Forgets reports that were not heard: they are in hand again.
    pub fn take_back(&mut self, closes: &[Close]) {
        self.0.retain(|(known, _)| closes.iter().all(|close| close.q != known.q));
    }

    /// What to tell of this process: units, and in how many milliseconds they leave.
    #[must_use]
    pub fn told(&self, hand: &RateHand, rate: Rate, now: BootNs) -> Vec<(u64, u64)> {
        let tail = tail_ms(rate);
        let spent = self.0.iter().map(|(close, at)| (at.plus_ms(tail), close.spent));
        let held = hand.latest().map(|(deadline, units)| (deadline.plus_ms(tail), units));
        let leaves = |(at, units): (BootNs, u64)| (at.since_ns(now).div_ceil(1_000_000), units);
        spent.chain(held).map(leaves).filter(|(in_ms, units)| 0 < *in_ms && 0 < *units).collect()
    }
}

fn ago(now: BootNs, age_ms: u64) -> BootNs {
    BootNs(now.0.saturating_sub(age_ms.saturating_mul(1_000_000)))
}

impl RateLog {
    /// Takes in what all processes told together, units by the instant they leave: at each instant
    /// to come the log counts what it counted or what was told, whichever is more. Of a log that
    /// lost nothing that is itself; of one that lost everything, what was told.
    pub fn tell(&mut self, told: &[(u64, u64)], rate: Rate) {
        let mut known: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (leaves, units) in self.entries(rate) {
            let slot = &mut known.entry(leaves).or_default().0;
            *slot = slot.saturating_add(units);
        }
        for (leaves, units) in told {
            let slot = &mut known.entry(*leaves).or_default().1;
            *slot = slot.saturating_add(*units);
        }
        self.open.clear();
        self.closed.clear();
        let (mut here, mut there, mut counted) = (0_u64, 0_u64, 0_u64);
        for (leaves, (own, other)) in known.into_iter().rev() {
            here = here.saturating_add(own);
            there = there.saturating_add(other);
            let more = here.max(there);
            if counted < more {
                self.closed.insert(leaves, more.saturating_sub(counted));
            }
            counted = more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ratelog::{RateAnswer, rate};

    fn log(entries: &[(u64, u64)]) -> RateLog {
        let mut log = RateLog::default();
        entries.iter().for_each(|(leaves, units)| log.restore(*leaves, *units));
        log
    }

    #[test]
    fn a_log_counts_what_it_knew_or_was_told() {
        //    knew            told            counts
        check(&[(10, 3)], &[(10, 3)], &[(10, 3)]);
        check(&[(10, 3), (20, 1)], &[], &[(10, 3), (20, 1)]);
        check(&[], &[(10, 3), (10, 2)], &[(10, 5)]);
        check(&[(10, 3)], &[(12, 3)], &[(12, 3)]); // The same units, told a little later.
        check(&[(10, 5)], &[(12, 3)], &[(10, 2), (12, 3)]); // Two are of a process that is gone.
        check(&[(12, 3)], &[(10, 5)], &[(10, 2), (12, 3)]);
    }

    #[track_caller]
    fn check(knew: &[(u64, u64)], told: &[(u64, u64)], expect: &[(u64, u64)]) {
        let per_hour = rate(100, 3_600_000).unwrap();
        let mut log = log(knew);
        log.tell(told, per_hour);
        assert_eq!(log.entries(per_hour).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn what_was_spent_and_what_is_in_hand_is_told() {
        let hourly = rate(100, 3_600_000).unwrap();
        let at = |ms| BootNs(0).plus_ms(ms);
        let (mut spent, mut hand) = (Spent::default(), RateHand::default());
        let answer = |q, granted| RateAnswer { q, granted, free: 9, wait_ms: 0, reset_ms: 0 };
        hand.merge(&answer(1, 5), at(0), 1_000);
        assert!(hand.spend(5, at(400)));
        let closes = hand.closes(at(500));
        spent.add(&closes, hourly, at(500));
        hand.merge(&answer(2, 7), at(500), 1_000);
        assert!(hand.spend(2, at(600)));
        let (tail, now) = (3_603_600, at(700));
        assert_eq!(spent.told(&hand, hourly, now), [(tail - 300, 5), (tail + 800, 7)]);
        spent.take_back(&closes);
        hand.reopen(&closes, now);
        let told = spent.told(&hand, hourly, now);
        assert_eq!(told.iter().map(|(_, units)| units).sum::<u64>(), 12, "each unit once");
        assert_eq!(Spent::default().told(&RateHand::default(), hourly, now), []);
        assert!(is_told(hourly) && !is_told(rate(1, 60_000).unwrap()));
    }

    #[test]
    fn long_lists_are_cut_short_without_losing_a_unit() {
        let hourly = rate(100, 3_600_000).unwrap();
        let mut spent = Spent::default();
        for q in 1..=300 {
            spent.add(&[Close { q, spent: 2, age_ms: 0 }], hourly, BootNs(0).plus_ms(q));
        }
        let told = spent.told(&RateHand::default(), hourly, BootNs(0).plus_ms(301));
        assert_eq!((told.len(), told.iter().map(|(_, n)| n).sum()), (256, 600));
    }
}
