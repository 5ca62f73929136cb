//! The way out: requests in flight end, units go back, the store is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::app::following::Membership;
use crate::app::handover::{Given, Named};
use crate::app::supervisor;
use crate::enforce::Enforcer;
use crate::metrics::Metrics;
use crate::store::AnyStore;

/// How long the way out may take beyond the drain: connections are told to close, units go back.
const CLOSE_SLACK: Duration = Duration::from_secs(2);
/// How long idle connections are kept when another process waits for the store: new ones wait with
/// it. Clients under load speak within it, and are told to connect anew.
const HANDOVER_PATIENCE_MS: u64 = 250;
/// By then what was begun before is decided: what is left in flight needs the store no more.
const DECIDED: Duration = Duration::from_millis(100);
/// How often is looked whether connections are left.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is done once a signal would be heard.
pub(super) type Ready = Box<dyn FnOnce() + Send>;

/// Waits for the signal or for another process, lets requests in flight end, returns what is in
/// hand.
pub(super) struct Ending {
    pub(super) ready: Mutex<Option<Ready>>,
    pub(super) told: tokio::sync::Mutex<mpsc::Receiver<Given>>,
    /// Copies of the listeners: as long as there is one, connections are let in.
    pub(super) sockets: Arc<Mutex<Vec<Named>>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) running: watch::Sender<()>,
    /// The same of the admin listener, and of the one for metrics.
    pub(super) leave: watch::Sender<bool>,
    pub(super) admin_running: watch::Sender<()>,
    pub(super) drain: Duration,
    /// How long the data plane keeps idle connections, in milliseconds.
    pub(super) patience: Arc<AtomicU64>,
    /// Listeners that the data plane still takes connections from.
    pub(super) accepting: Arc<AtomicUsize>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) enforcer: Arc<Enforcer>,
    pub(super) store: Arc<AnyStore>,
    pub(super) member: Arc<Membership>,
    /// Set when the process that wanted to take over is gone.
    pub(super) forsaken: Arc<AtomicBool>,
}

#[async_trait]
impl ShutdownSignalWatch for Ending {
    async fn recv(&self) -> ShutdownSignal {
        let ready = self.ready.lock().take();
        let mut told = self.told.lock().await;
        let given = tokio::select! {
            () = wait_for_signal(ready) => None,
            Some(given) = told.recv() => Some(given),
        };
        match given {
            None => {
                supervisor::stopping();
                self.stop_and_drain().await;
                // Until then it tells how far the gateway is.
                self.leave_admin(CLOSE_SLACK).await;
                self.close().await;
            }
            // It has a store of its own to open: both serve for a moment.
            Some(Given::Serving(pid)) => {
                supervisor::handed_over(pid);
                tokio::join!(self.leave_admin(CLOSE_SLACK), self.stop_and_drain());
                self.close().await;
            }
            Some(Given::Yield(done)) => {
                self.yield_store().await;
                // Whoever waited may be gone: the next word says so.
                let _waits = done.send(());
                self.see_off(told.recv()).await;
            }
            // Only said after the above.
            Some(Given::Lost) => {}
        }
        tracing::info!("stopped");
        ShutdownSignal::FastShutdown
    }
}

impl Ending {
    async fn stop_and_drain(&self) {
        tracing::info!(drain_s = self.drain.as_secs(), "stopping");
        self.sockets.lock().clear();
        self.stop.send_replace(true);
        self.drained(self.drain + CLOSE_SLACK).await;
    }

    async fn drained(&self, within: Duration) {
        if tokio::time::timeout(within, self.running.closed()).await.is_err() {
            tracing::warn!("requests were still in flight when their time was over");
        }
    }

    /// The admin listener answers what it was asked, and listens no more.
    async fn leave_admin(&self, within: Duration) {
        self.leave.send_replace(true);
        if tokio::time::timeout(within, self.admin_running.closed()).await.is_err() {
            tracing::warn!("the admin listener was still at work when its time was over");
        }
    }

    async fn close(&self) {
        self.enforcer.close().await;
        if let Err(error) = self.member.end().await {
            tracing::warn!(%error, "the store was not told that this gateway ends");
        }
        if let Err(error) = self.store.release() {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
    }

    /// Takes no more requests, and closes the store as soon as what is in flight needs it no more.
    async fn yield_store(&self) {
        tracing::info!("handing over");
        self.patience.store(HANDOVER_PATIENCE_MS, Ordering::SeqCst);
        self.stop.send_replace(true);
        let gone = async {
            // A connection that is let in late would find the store closed.
            while self.accepting.load(Ordering::SeqCst) != 0
                || self.metrics.connections().get() != 0
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let within = Duration::from_millis(HANDOVER_PATIENCE_MS).saturating_add(DECIDED);
        // What is left then is in flight.
        let _left = tokio::join!(tokio::time::timeout(within, gone), self.leave_admin(within));
        self.close().await;
    }

    /// Waits until the other process serves, and until what is in flight here has ended.
    async fn see_off(&self, word: impl Future<Output = Option<Given>> + Send) {
        match word.await {
            Some(Given::Serving(pid)) => {
                supervisor::handed_over(pid);
                tracing::info!("handed over");
                self.sockets.lock().clear();
                self.drained(self.drain + CLOSE_SLACK).await;
            }
            Some(Given::Lost | Given::Yield(_)) | None => {
                tracing::error!("the process that took over is gone: starting anew");
                self.forsaken.store(true, Ordering::SeqCst);
                // New connections wait meanwhile.
                self.drained(CLOSE_SLACK).await;
            }
        }
    }
}

/// Whoever starts a gateway may stop it as soon as it says that it is ready: only from here on a
/// signal lets it end in order.
async fn wait_for_signal(ready: Option<Ready>) {
    let terminate = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    let upgrade = signal(SignalKind::user_defined2());
    if let Some(ready) = ready {
        ready();
    }
    match (terminate, interrupt, upgrade) {
        (Ok(mut terminate), Ok(mut interrupt), Ok(mut upgrade)) => loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = upgrade.recv() => supervisor::upgrade(),
            }
        },
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            tracing::error!(%error, "signals cannot be watched: only a kill ends this process");
            std::future::pending::<()>().await;
        }
    }
}
