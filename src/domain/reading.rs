//! What a limit says of itself after a decision: the numbers behind the limit headers.

use crate::domain::time::BootNs;

/// Limits that one request can be charged to, at most.
pub const LIMITS_MAX: usize = 8;

/// What kind of limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitKind {
    /// A short sliding window.
    Rate,
    /// A long fixed period.
    Quota,
}

impl LimitKind {
    /// Its name in headers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Quota => "quota",
        }
    }
}

/// How much of a quota is used: what operators and consumers are told of, once in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaShare {
    /// Four fifths of it.
    Most,
    /// All of it.
    All,
}

impl QuotaShare {
    /// The share of `limit` that is used when `free` is not; `None`: less than what is told of.
    #[must_use]
    pub fn used(limit: u64, free: u64) -> Option<Self> {
        if free == 0 {
            Some(Self::All)
        } else {
            let most = u128::from(free) * 5 <= u128::from(limit);
            most.then_some(Self::Most)
        }
    }

    /// All shares that are told of.
    pub const TOLD: [Self; 2] = [Self::Most, Self::All];

    /// Whether it is used when so many units of `limit` are.
    #[must_use]
    pub fn is_reached(self, limit: u64, used: u64) -> bool {
        Some(self) <= Self::used(limit, limit.saturating_sub(used))
    }

    /// In percent.
    #[must_use]
    pub fn percent(self) -> u64 {
        match self {
            Self::Most => 80,
            Self::All => 100,
        }
    }
}

/// One limit after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What kind of limit it is.
    pub kind: LimitKind,
    /// Units per window.
    pub limit: u64,
    /// Units left in it.
    pub remaining: u64,
    /// Milliseconds until units come back; `None`: never.
    pub reset_ms: Option<u64>,
    /// Length of the window, in milliseconds; `None`: it never ends.
    pub window_ms: Option<u64>,
}

/// The limits of one decision, without allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    items: [Option<Reading>; LIMITS_MAX],
    len: usize,
    at: Option<BootNs>,
}

/// How long after its charge a request may be written upstream, for a rate of this window: waiting
/// for a connection is not late, a process that stood still is.
fn late_ms(window_ms: u64) -> u64 {
    const LATE_MS_MIN: u64 = 5;
    const LATE_MS_MAX: u64 = 1_000;
    (window_ms / 4).clamp(LATE_MS_MIN, LATE_MS_MAX)
}

impl Readings {
    /// None yet, of limits that are looked at, and charged if they allow it, at `now`.
    #[must_use]
    pub fn at(now: BootNs) -> Self {
        Self { at: Some(now), ..Self::default() }
    }

    /// The instant that counts for a charge; `None` where nothing was looked at.
    #[must_use]
    pub fn when(&self) -> Option<BootNs> {
        self.at
    }

    /// By when a request charged to these must have been written upstream; after it, what was
    /// charged may have left its rate's window. `None`: any time, since a quota's unit belongs to
    /// its period whenever it arrives.
    #[must_use]
    pub fn write_by(&self) -> Option<BootNs> {
        let rates = self.iter().filter(|reading| reading.kind == LimitKind::Rate);
        let late_ms = rates.filter_map(|reading| reading.window_ms).map(late_ms).min()?;
        Some(self.at?.plus_ms(late_ms))
    }

    /// Adds one; beyond [`LIMITS_MAX`] it is left out.
    pub fn push(&mut self, reading: Reading) {
        if let Some(slot) = self.items.get_mut(self.len) {
            *slot = Some(reading);
            self.len = self.len.saturating_add(1);
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Reading> {
        self.items.iter().flatten()
    }

    /// The limit with the smallest share left: what a client should heed first.
    ///
    /// Shares compare as remaining / limit, cross-multiplied.
    #[must_use]
    pub fn tightest(&self) -> Option<&Reading> {
        self.iter().min_by(|a, b| {
            let share = |x: &Reading, y: &Reading| u128::from(x.remaining) * u128::from(y.limit);
            share(a, b).cmp(&share(b, a))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_of_from_four_fifths_on() {
        let check = |limit, free, expect| assert_eq!(QuotaShare::used(limit, free), expect);
        check(10, 3, None);
        check(10, 2, Some(QuotaShare::Most));
        check(10, 0, Some(QuotaShare::All));
        check(1, 1, None);
        check(u64::MAX, u64::MAX / 5, Some(QuotaShare::Most));
        let reached = |used| QuotaShare::TOLD.map(|share| share.is_reached(10, used));
        assert_eq!([7, 8, 9].map(reached), [[false, false], [true, false], [true, false]]);
        assert_eq!([10, 11].map(reached), [[true, true]; 2]);
    }

    #[test]
    fn the_smallest_share_is_the_tightest() {
        check(&[(50, 100), (5, 1_000)], 1);
        check(&[(1, 2), (400, 1_000)], 1);
        check(&[(0, 5), (0, 7)], 0);
    }

    #[test]
    fn only_a_rate_is_to_be_written_in_time() {
        let by = |limits: &[(LimitKind, u64)]| {
            let mut readings = Readings::at(BootNs(0).plus_ms(100));
            for (kind, window_ms) in limits.iter().copied() {
                let window_ms = Some(window_ms);
                readings.push(Reading { kind, limit: 9, remaining: 0, reset_ms: None, window_ms });
            }
            readings.write_by()
        };
        assert_eq!(by(&[(LimitKind::Quota, 1_000)]), None);
        assert_eq!(by(&[(LimitKind::Rate, 60_000)]), Some(BootNs(0).plus_ms(1_100)));
        let two = [(LimitKind::Rate, 60_000), (LimitKind::Rate, 1_000), (LimitKind::Quota, 4)];
        assert_eq!(by(&two), Some(BootNs(0).plus_ms(350)));
        assert_eq!(by(&[(LimitKind::Rate, 2)]), Some(BootNs(0).plus_ms(105)));
    }

    #[track_caller]
    fn check(limits: &[(u64, u64)], expect: usize) {
        let mut readings = Readings::default();
        for (remaining, limit) in limits {
            let (remaining, limit) = (*remaining, *limit);
            let kind = LimitKind::Rate;
            readings.push(Reading { kind, limit, remaining, reset_ms: None, window_ms: None });
        }
        assert_eq!(readings.tightest(), readings.iter().nth(expect));
    }
}
