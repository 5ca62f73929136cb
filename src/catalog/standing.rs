//! How far this gateway is behind the store, and who else is alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use crate::domain::time::BootNs;
use crate::store::registry::Peer;

/// What following the store has shown so far.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// When this gateway last knew that it enforces everything there is.
    current: AtomicU64,
    resyncs: AtomicU64,
    peers: watch::Sender<Arc<Vec<Peer>>>,
    /// Somebody waits for what the other gateways say.
    asked: Notify,
}

impl Standing {
    pub(super) fn note_current(&self, now: BootNs) {
        self.current.store(now.0, Ordering::Relaxed);
    }

    pub(super) fn note_resync(&self) {
        self.resyncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn heard(&self, peers: Vec<Peer>) {
        self.peers.send_replace(Arc::new(peers));
    }

    pub(super) fn lag_ms(&self, now: BootNs) -> u64 {
        now.since_ms(BootNs(self.current.load(Ordering::Relaxed)))
    }

    pub(super) fn resyncs(&self) -> u64 {
        self.resyncs.load(Ordering::Relaxed)
    }

    pub(super) fn peers(&self) -> Arc<Vec<Peer>> {
        Arc::clone(&self.peers.borrow())
    }

    /// What the gateways say from now on.
    pub(super) fn hear(&self) -> watch::Receiver<Arc<Vec<Peer>>> {
        self.peers.subscribe()
    }

    /// Wants to hear from the other gateways now.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Returns when somebody wants to hear from the other gateways.
    pub(super) async fn until_asked(&self) {
        self.asked.notified().await;
    }
}
