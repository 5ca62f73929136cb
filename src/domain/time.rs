//! Points in time and spans. Integers only; every operation saturates.

use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC, by whoever is asked: the store's clock where it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// This time plus `span_ms`.
    #[must_use]
    pub fn plus_ms(self, span_ms: u64) -> Self {
        Self(self.0.saturating_add(span_ms))
    }

    /// Milliseconds from `earlier` to this time; 0 when `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since 1970, rounded up: a client that waits until then is never early.
    #[must_use]
    pub fn as_secs_up(self) -> u64 {
        self.0.div_ceil(1_000)
    }
}

/// Nanoseconds since the machine booted (`CLOCK_BOOTTIME`): it never steps, and it counts sleep.
///
/// It measures durations in one process and means nothing in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootNs(pub u64);

impl BootNs {
    /// This time plus `span_ms`.
    #[must_use]
    pub fn plus_ms(self, span_ms: u64) -> Self {
        Self(self.0.saturating_add(span_ms.saturating_mul(1_000_000)))
    }

    /// This time plus a duration.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Nanoseconds from `earlier` to this time; 0 when `earlier` is later.
    #[must_use]
    pub fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds from `earlier` to this time, rounded down; 0 when `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.since_ns(earlier) / 1_000_000
    }
}
