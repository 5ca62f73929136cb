//! Whether a store's clock has stepped, as seen from a machine whose own only measures durations.

use crate::domain::time::{BootNs, UnixMs};

/// A smaller difference is no step, in nanoseconds: the guard of every rate covers it.
const STEP_NS_MIN: u64 = 5_000_000;
/// Clocks may differ in speed by one part in so many (design.md, section 4, rule 5).
const SPEED_DIVISOR: u64 = 1_000;
const MS: u64 = 1_000_000;

/// What is known of a store's clock from its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerClock {
    seen: Option<Seen>,
}

/// How far it is ahead of the time since boot, in nanoseconds: between these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    at: BootNs,
    least: u64,
    most: u64,
}

impl ServerClock {
    /// Takes in that a call sent at `sent` and answered at `received` was executed when the store's
    /// clock read `now`. Says whether that clock was stepped since the answers before.
    pub fn note(&mut self, sent: BootNs, now: UnixMs, received: BootNs) -> bool {
        let now_ns = now.0.saturating_mul(MS);
        let fresh = Seen {
            at: received,
            least: now_ns.saturating_sub(received.0),
            // Its milliseconds are cut off.
            most: now_ns.saturating_add(MS).saturating_sub(sent.0),
        };
        let Some(Seen { at, least, most }) = self.seen else {
            self.seen = Some(fresh);
            return false;
        };
        let drift = received.since_ns(at) / SPEED_DIVISOR;
        let (least, most) = (least.saturating_sub(drift), most.saturating_add(drift));
        let stepped = fresh.most.saturating_add(STEP_NS_MIN) < least
            || most.saturating_add(STEP_NS_MIN) < fresh.least;
        let (least, most) = (least.max(fresh.least), most.min(fresh.most));
        // Both say something of the same clock, unless it moved.
        let both = Seen { at: received, least, most };
        self.seen = Some(if least <= most { both } else { fresh });
        stepped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that takes `way` microseconds each way, at `ms` since boot, with a clock that is
    /// `ahead` milliseconds ahead.
    fn call(clock: &mut ServerClock, ms: u64, way_us: u64, ahead: u64) -> bool {
        let sent = BootNs(ms * MS);
        let executed = sent.0 + way_us * 1_000;
        let received = BootNs(executed + way_us * 1_000);
        clock.note(sent, UnixMs(executed / MS + ahead), received)
    }

    #[test]
    fn a_step_either_way_is_seen_once() {
        for (before, after) in [(1_000, 1_010), (1_010, 1_000), (5_000, 3_605_000)] {
            let mut clock = ServerClock::default();
            for n in 0..100 {
                assert!(!call(&mut clock, n * 10, 200, before), "the same clock");
            }
            assert!(call(&mut clock, 1_000, 200, after), "{before} {after}");
            assert!(!call(&mut clock, 1_001, 200, after), "{before} {after}");
        }
    }

    #[test]
    fn slow_answers_and_long_pauses_are_no_steps() {
        let mut clock = ServerClock::default();
        for (ms, way_us) in [(0, 100), (10, 90_000), (300, 1), (400, 2_000_000), (9_000, 100)] {
            assert!(!call(&mut clock, ms, way_us, 7_777), "{ms}");
        }
        // An hour later it may have run 3.6 s ahead.
        assert!(!call(&mut clock, 3_609_000, 100, 7_777 + 3_600));
        assert!(call(&mut clock, 7_209_000, 100, 7_777 + 3_600 + 3_700));
    }

    #[test]
    fn a_clock_that_is_slewed_is_followed() {
        let mut clock = ServerClock::default();
        for n in 0..10_000_u64 {
            // Five percent too fast.
            assert!(!call(&mut clock, n, 100, 1_000 + n / 20), "{n}");
        }
    }
}
