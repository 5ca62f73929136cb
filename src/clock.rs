//! The only place that reads a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::time::{BootNs, UnixMs};

/// Tells the time. Everything else takes it as an argument.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// The machine's wall clock. It may step; nothing that counts relies on its steadiness.
    fn unix(&self) -> UnixMs;
    /// Time since boot, `CLOCK_BOOTTIME`: never steps, counts sleep.
    fn boot(&self) -> BootNs;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    fn unix(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn boot(&self) -> BootNs {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let secs = u64::try_from(t.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
        BootNs(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

/// A clock that moves when told to; for tests and simulation.
#[derive(Debug)]
pub struct ManualClock {
    unix_ms: AtomicU64,
    boot_ns: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `unix`, one hour after boot.
    #[must_use]
    pub fn at(unix: UnixMs) -> Self {
        Self { unix_ms: AtomicU64::new(unix.0), boot_ns: AtomicU64::new(3_600_000_000_000) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.unix_ms.fetch_add(ms, Ordering::SeqCst);
        self.boot_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as an administrator or NTP would.
    pub fn step_unix(&self, to: UnixMs) {
        self.unix_ms.store(to.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix(&self) -> UnixMs {
        UnixMs(self.unix_ms.load(Ordering::SeqCst))
    }

    fn boot(&self) -> BootNs {
        BootNs(self.boot_ns.load(Ordering::SeqCst))
    }
}
