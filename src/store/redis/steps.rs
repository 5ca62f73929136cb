//! Steps of the server's clock: after one, what a rate counted leaves too early or too late.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::server_clock::ServerClock;
use crate::domain::time::{BootNs, UnixMs};
use crate::store::redis::keys::SHARDS;
use crate::store::shards::ShardId;

/// What is known of the server's clock, and which shards have to be told that it was stepped.
#[derive(Debug)]
pub(super) struct Steps {
    /// And when a step was last found: answers to calls sent before may be of either time.
    clock: Mutex<(ServerClock, Option<BootNs>)>,
    steps: AtomicU64,
    untold: Vec<AtomicU64>,
}

impl Steps {
    pub(super) fn new() -> Self {
        let untold = (0..SHARDS).map(|_| AtomicU64::new(0)).collect();
        Self { clock: Mutex::default(), steps: AtomicU64::new(0), untold }
    }

    /// Takes in when a call was sent and answered, and what the server's clock read. Says whether
    /// that may have been stepped since the call before: what was granted from a rate is then not
    /// to be spent, and every shard is told before it grants more.
    pub(super) fn note(&self, sent: BootNs, now: UnixMs, received: BootNs) -> bool {
        let mut seen = self.clock.lock();
        let (clock, found) = &mut *seen;
        if clock.note(sent, now, received) {
            *found = Some(received);
            let step = self.steps.fetch_add(1, Ordering::SeqCst).saturating_add(1);
            self.untold.iter().for_each(|shard| shard.store(step, Ordering::SeqCst));
            tracing::warn!("the clock of redis was stepped: rates are counted anew");
        }
        found.is_some_and(|found| sent <= found)
    }

    /// The step that a shard has not been told of yet; 0: there is none.
    pub(super) fn untold(&self, shard: ShardId) -> u64 {
        self.of(shard).map_or(0, |untold| untold.load(Ordering::SeqCst))
    }

    /// A shard was told of a step.
    pub(super) fn told(&self, shard: ShardId, step: u64) {
        if let Some(untold) = self.of(shard) {
            // Unless there was another one since.
            let _other = untold.compare_exchange(step, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    fn of(&self, shard: ShardId) -> Option<&AtomicU64> {
        self.untold.get(usize::from(shard.0))
    }
}
