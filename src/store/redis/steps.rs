//! Steps of the server's clock: after one, what a rate counted leaves too early or too late.

use std::sync::atomic::{AtomicBool, Ordering};

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
    untold: Vec<AtomicBool>,
}

impl Steps {
    pub(super) fn new() -> Self {
        let untold = (0..SHARDS).map(|_| AtomicBool::new(false)).collect();
        Self { clock: Mutex::default(), untold }
    }

    /// Takes in when a call was sent and answered, and what the server's clock read. Says whether
    /// that may have been stepped since the call before: what was granted from a rate is then not
    /// to be spent, and every shard is told before it grants more.
    pub(super) fn note(&self, sent: BootNs, now: UnixMs, received: BootNs) -> bool {
        let mut seen = self.clock.lock();
        let (clock, found) = &mut *seen;
        if clock.note(sent, now, received) {
            *found = Some(received);
            self.untold.iter().for_each(|shard| shard.store(true, Ordering::Relaxed));
            tracing::warn!("the clock of redis was stepped: rates are counted anew");
        }
        found.is_some_and(|found| sent <= found)
    }

    /// Whether a shard has to be told. Who does that says if it could not.
    pub(super) fn take(&self, shard: ShardId) -> bool {
        self.of(shard).is_some_and(|untold| untold.swap(false, Ordering::Relaxed))
    }

    /// It could not be told.
    pub(super) fn put_back(&self, shard: ShardId) {
        if let Some(untold) = self.of(shard) {
            untold.store(true, Ordering::Relaxed);
        }
    }

    fn of(&self, shard: ShardId) -> Option<&AtomicBool> {
        self.untold.get(usize::from(shard.0))
    }
}
