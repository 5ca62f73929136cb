//! A gateway's own log of a rate, while the store is away.

use crate::domain::counter::ProcessId;
use crate::domain::limit::Rate;
use crate::domain::ratelog::{Close, RateCall, RateLog};
use crate::domain::time::BootNs;

/// What a gateway admitted by itself of one rate. It costs nothing until it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwayLog {
    log: Option<Box<RateLog>>,
    calls: u64,
}

impl AwayLog {
    /// Whether nothing that was taken of `share` counts any more.
    pub fn is_idle(&mut self, share: Rate, now: BootNs) -> bool {
        self.free(share, now) == share.requests.get()
    }

    /// Units of `share`, this gateway's part of the rate, that are free.
    pub fn free(&mut self, share: Rate, now: BootNs) -> u64 {
        match &mut self.log {
            None => share.requests.get(),
            Some(log) => log.reserve(&RateCall::look(share), ms(now)).free,
        }
    }

    /// Takes units that [`Self::free`] found.
    pub fn take(&mut self, share: Rate, cost: u64, now: BootNs) {
        let log = self.log.get_or_insert_default();
        let q = self.calls.saturating_add(1);
        let call =
            RateCall { process: ProcessId(1), q, need: cost, least: cost, ..RateCall::look(share) };
        let granted = log.reserve(&call, ms(now)).granted;
        debug_assert_eq!(granted, cost, "found free under the same lock");
        // Spent at once, so that the log keeps units by their time and not one by one.
        let closes = vec![Close { q, spent: granted, age_ms: 0 }];
        self.calls = q.saturating_add(1);
        log.reserve(&RateCall { q: self.calls, need: 0, least: 0, closes, ..call }, ms(now));
    }
}

/// Steady milliseconds.
fn ms(now: BootNs) -> u64 {
    now.0 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ratelog::rate;

    #[test]
    fn no_window_has_more_than_the_share() {
        for (requests, per_ms) in [(3_usize, 1_000_u64), (500, 1_000)] {
            let share = rate(u64::try_from(requests).unwrap(), per_ms).unwrap();
            let mut log = AwayLog::default();
            let mut admitted = Vec::new();
            for at in (0..5 * per_ms).step_by(7) {
                let now = BootNs(at * 1_000_000);
                for _ in 0..20 {
                    if 1 <= log.free(share, now) {
                        log.take(share, 1, now);
                        admitted.push(at);
                    }
                }
            }
            let most = admitted.iter().map(|from| {
                admitted.iter().filter(|at| (*from..from + per_ms).contains(at)).count()
            });
            assert_eq!(most.max().unwrap(), requests);
            assert!(requests * 4 <= admitted.len(), "{}", admitted.len());
        }
    }
}
