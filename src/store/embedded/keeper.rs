//! The thread behind an embedded store: it syncs, forgets, and keeps the journal short.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::store::StoreError;
use crate::store::embedded::Shared;
use crate::store::embedded::counters::SHARDS;

/// How often the thread looks after things when it syncs on demand, in milliseconds.
const TICK_MS: u64 = 100;
/// How long to wait before a disk that refused is asked again, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// Every counter is looked at once in this time, in milliseconds.
const SWEEP_MS: u64 = 10_000;

/// Stops the thread, after a last sync, when dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(shared: Arc<Shared>, fsync_ms: u64) -> Result<Self, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let tick_ms = if fsync_ms == 0 { TICK_MS } else { fsync_ms };
        let journal = Arc::clone(&shared);
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("store-keeper".to_owned());
        let thread = builder.spawn(move || run(&shared, &stopped, tick_ms));
        let thread = thread.map_err(|e| StoreError::io("opened", e))?;
        journal.journal.kept_by(thread.thread().clone());
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A keeper that panicked has said so already; there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, stop: &AtomicBool, tick_ms: u64) {
    let mut failing = false;
    let mut next = 0;
    loop {
        let wait_ms = if failing { tick_ms.max(RETRY_MS) } else { tick_ms };
        std::thread::park_timeout(Duration::from_millis(wait_ms));
        let last = stop.load(Ordering::SeqCst);
        let done = upkeep(shared, last);
        match &done {
            Err(error) if !failing => {
                tracing::error!(%error, "the journal of counters cannot be kept");
            }
            Ok(()) if failing => tracing::info!("the journal of counters is kept again"),
            Err(_) | Ok(()) => {}
        }
        failing = done.is_err();
        if last {
            return;
        }
        for _ in 0..shards_per_tick(tick_ms) {
            shared.sweep(next);
            next = next.saturating_add(1) % SHARDS;
        }
    }
}

/// Syncs; a journal that is due, or could not be synced, is made anew.
fn upkeep(shared: &Shared, last: bool) -> Result<(), StoreError> {
    let synced = shared.sync();
    if shared.journal.is_due() && (synced.is_err() || !last) {
        return shared.compact();
    }
    synced
}

fn shards_per_tick(tick_ms: u64) -> usize {
    let shards = u64::try_from(SHARDS).unwrap_or(u64::MAX);
    let due = shards.saturating_mul(tick_ms).div_ceil(SWEEP_MS).min(shards);
    usize::try_from(due).unwrap_or(SHARDS)
}
