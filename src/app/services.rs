//! The services on Pingora's server, and the way they end.
//!
//! Pingora's own graceful stop sleeps its whole grace period, and then drops what still runs. So
//! the signal watch here does the draining itself, and tells Pingora to stop at once afterwards.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{
    ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch,
};
use pingora_core::services::Service;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::enforce::Enforcer;
use crate::proxy::ProxyService;
use crate::store::AnyStore;

/// How often idle units are returned and sizes published.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long the way out may take beyond the drain: connections are told to close, units go back.
const CLOSE_SLACK: Duration = Duration::from_secs(2);

pub(super) fn run(app: App, ready: impl FnOnce() + Send + 'static) {
    let (stop, stopping) = watch::channel(false);
    let (running, drained) = watch::channel(());
    let drain = Duration::from_secs(app.config.proxy.drain_s);
    let conf = ServerConf { threads: app.config.proxy.threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let service = ProxyService::new(app.proxy, app.proxy_listeners, drain);
    server.add_service(DataPlane { service, stopping, drained: Some(drained) });
    let router = crate::admin::router(app.admin).merge(crate::admin::ops::router(app.ops));
    server.add_service(AdminService { router, listener: Some(app.admin_listener) });
    server.add_service(SweepService { enforcer: Arc::clone(&app.enforcer) });
    let ready: Ready = Box::new(ready);
    let ready = Mutex::new(Some(ready));
    let ending = Ending { ready, stop, running, drain, enforcer: app.enforcer, store: app.store };
    server.run(RunArgs { shutdown_signal: Box::new(ending) });
    // What was logged last is written now.
    drop(app.access_log);
}

/// The data plane, stopped by our own watch instead of Pingora's.
struct DataPlane {
    service: ProxyService,
    stopping: watch::Receiver<bool>,
    /// Dropped when the last request is answered.
    drained: Option<watch::Receiver<()>>,
}

#[async_trait]
impl Service for DataPlane {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        let drained = self.drained.take();
        self.service.start_service(fds, self.stopping.clone(), listeners_per_fd).await;
        drop(drained);
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }
}

/// The admin listener, on a thread of its own: no bulk of admin work slows the data plane.
struct AdminService {
    router: Router,
    listener: Option<TcpListener>,
}

#[async_trait]
impl Service for AdminService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let Some(listener) = self.listener.take() else { return };
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, self.router.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "the admin listener ended");
        }
    }

    fn name(&self) -> &str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// What happens once a second.
struct SweepService {
    enforcer: Arc<Enforcer>,
}

#[async_trait]
impl Service for SweepService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let mut every = tokio::time::interval(SWEEP_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {
                    self.enforcer.keep_up().await;
                    self.enforcer.sweep().await;
                }
                () = self.enforcer.until_store_lost() => self.enforcer.keep_up().await,
            }
        }
    }

    fn name(&self) -> &str {
        "sweep"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// What is done once a signal would be heard.
type Ready = Box<dyn FnOnce() + Send>;

/// Waits for the signal, lets requests in flight end, returns what is in hand.
struct Ending {
    ready: Mutex<Option<Ready>>,
    stop: watch::Sender<bool>,
    running: watch::Sender<()>,
    drain: Duration,
    enforcer: Arc<Enforcer>,
    store: Arc<AnyStore>,
}

#[async_trait]
impl ShutdownSignalWatch for Ending {
    async fn recv(&self) -> ShutdownSignal {
        let ready = self.ready.lock().take();
        wait_for_signal(ready).await;
        tracing::info!(drain_s = self.drain.as_secs(), "stopping");
        self.stop.send_replace(true);
        if tokio::time::timeout(self.drain + CLOSE_SLACK, self.running.closed()).await.is_err() {
            tracing::warn!("requests were still in flight when their time was over");
        }
        self.enforcer.close().await;
        if let Err(error) = self.store.close() {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
        tracing::info!("stopped");
        ShutdownSignal::FastShutdown
    }
}

/// Whoever starts a gateway may stop it as soon as it says that it is ready: only from here on a
/// signal lets it end in order.
async fn wait_for_signal(ready: Option<Ready>) {
    let terminate = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    if let Some(ready) = ready {
        ready();
    }
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be watched: only a kill ends this process");
            std::future::pending::<()>().await;
        }
    }
}
