//! Requests in flight: counted per credential, in this process alone.
//!
//! A plan's limit is divided among the live gateways, rounded up. It is no charge: nothing is
//! asked or stored, and a place is free again when the answer has ended.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::domain::id::CredentialId;

/// The counts of all credentials whose plans limit requests in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    counts: DashMap<CredentialId, Arc<AtomicU64>>,
}

/// A credential's requests in flight, and how many its plan allows.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<AtomicU64>,
    max: NonZeroU64,
}

/// One request in flight, until dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicU64>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InFlight {
    /// The places of a credential. What is in flight goes on counting when its plan changes.
    pub(super) fn places(&self, of: CredentialId, max: NonZeroU64) -> Places {
        let taken = Arc::clone(&self.counts.entry(of).or_default());
        Places { taken, max }
    }

    /// Forgets counts that neither a session nor a request refers to; says how many requests are
    /// in flight.
    pub(super) fn sweep(&self) -> u64 {
        let mut all = 0_u64;
        // A count is cloned under the map's lock, or by who holds one already.
        self.counts.retain(|_, taken| {
            all = all.saturating_add(taken.load(Ordering::Relaxed));
            1 < Arc::strong_count(taken)
        });
        all
    }
}

impl Places {
    /// Takes a place, if this gateway's share of them is not used up.
    pub(super) fn take(&self, live: u64) -> Option<Place> {
        let share = self.max.get().div_ceil(live.max(1));
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < share).then(|| taken.saturating_add(1))
        });
        taken.ok().map(|_| Place(Arc::clone(&self.taken)))
    }

    /// Takes a place whether or not there is one.
    pub(super) fn take_anyway(&self) -> Place {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(&self.taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_has_its_share_rounded_up() {
        for (max, live, share) in [(3, 1, 3), (3, 2, 2), (3, 3, 1), (3, 4, 1), (10, 3, 4)] {
            let all = InFlight::default();
            let places = all.places(CredentialId(1), NonZeroU64::new(max).unwrap());
            let taken: Vec<_> = std::iter::from_fn(|| places.take(live)).collect();
            assert_eq!(u64::try_from(taken.len()).unwrap(), share, "{max} of {live}");
        }
    }

    #[test]
    fn counts_are_kept_while_somebody_is_in_flight() {
        let all = InFlight::default();
        let two = NonZeroU64::new(2).unwrap();
        let place = all.places(CredentialId(1), two).take(1).unwrap();
        assert_eq!(all.sweep(), 1);
        let places = all.places(CredentialId(1), two);
        let second = places.take(1).unwrap();
        assert!(places.take(1).is_none());
        let beyond = places.take_anyway();
        drop((place, second, beyond, places));
        assert_eq!(all.sweep(), 0);
        assert!(all.counts.is_empty());
    }
}
