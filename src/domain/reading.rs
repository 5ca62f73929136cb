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
    }

    #[test]
    fn the_smallest_share_is_the_tightest() {
        check(&[(50, 100), (5, 1_000)], 1);
        check(&[(1, 2), (400, 1_000)], 1);
        check(&[(0, 5), (0, 7)], 0);
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
