//! The services on Pingora's server, and the way they end.
//!
//! Pingora's own graceful stop sleeps its whole grace period, and then drops what still runs. So
//! the signal watch here does the draining itself, and tells Pingora to stop at once afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownWatch};
use pingora_core::services::Service;
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::app::following::FollowService;
use crate::app::handover::{GiveService, Inherited, Named, copies};
use crate::app::reload::ReloadService;
use crate::app::{App, Ended, supervisor};
use crate::config::Certificates;
use crate::enforce::Enforcer;
use crate::proxy::ProxyService;

mod ending;
mod http;

use ending::Ending;
use http::HttpService;

/// How often idle units are returned and sizes published.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(app: App, ready: impl FnOnce() + Send + 'static) -> Ended {
    let (stop, stopping) = watch::channel(false);
    let (running, drained) = watch::channel(());
    let drain = Duration::from_secs(app.config.proxy.drain_s);
    let conf = ServerConf { threads: app.config.proxy.threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let (catalog, metrics) = (Arc::clone(&app.proxy.catalog), Arc::clone(&app.proxy.metrics));
    let service = ProxyService::new(app.proxy, app.listeners.proxy, drain);
    let (patience, accepting) = (service.patience(), service.accepting());
    let ops = app.ops.until(stopping.clone());
    server.add_service(DataPlane { service, stopping, drained: Some(drained) });
    let (leave, leaving) = watch::channel(false);
    let (admin_running, left) = watch::channel(());
    let admin = admin::router(app.admin).merge(admin::ops::router(ops.clone()));
    let ops = admin::ops::alone(ops);
    let both = [
        ("admin", admin, Some(app.listeners.admin), &app.config.admin.tls),
        ("ops", ops, app.listeners.ops, &app.config.ops.tls),
    ];
    for (name, router, listener, tls) in both {
        if listener.is_none() {
            continue;
        }
        let certificates = tls.as_ref().map(|tls| Arc::new(Certificates::new(tls)));
        let (leaving, left) = (leaving.clone(), Some(left.clone()));
        server.add_service(HttpService { name, router, listener, certificates, leaving, left });
    }
    drop(left);
    server.add_service(SweepService { enforcer: Arc::clone(&app.enforcer) });
    server.add_service(FollowService(Arc::clone(&app.member)));
    if let Some(source) = app.source {
        let (fixed, metrics) = (app.config.fixed.clone(), Arc::clone(&metrics));
        server.add_service(ReloadService { source, fixed, catalog, metrics });
    }
    let sockets = Arc::new(Mutex::new(app.listeners.named));
    let (tell, told) = mpsc::channel(1);
    let folder = app.config.store.path.clone();
    server.add_service(GiveService { folder, sockets: Arc::clone(&sockets), told: tell });
    let inherited = app.inherited;
    let ready = move || {
        ready();
        inherited.serving();
        supervisor::ready();
    };
    let forsaken = Arc::new(AtomicBool::new(false));
    let ending = Ending {
        ready: Mutex::new(Some(Box::new(ready))),
        told: tokio::sync::Mutex::new(told),
        sockets: Arc::clone(&sockets),
        stop,
        running,
        leave,
        admin_running,
        drain,
        patience,
        accepting,
        metrics,
        enforcer: app.enforcer,
        store: app.store,
        member: app.member,
        forsaken: Arc::clone(&forsaken),
    };
    server.run(RunArgs { shutdown_signal: Box::new(ending) });
    // What was logged last is written now.
    drop(app.access_log);
    if !forsaken.load(Ordering::SeqCst) {
        return Ended::Stopped;
    }
    go_on(&sockets.lock())
}

/// The end of a process whose successor took its listeners and never served.
fn go_on(sockets: &[Named]) -> Ended {
    match copies(sockets) {
        Ok(sockets) => Ended::Forsaken(Inherited::own(sockets)),
        Err(error) => {
            tracing::error!(%error, "the listeners cannot be kept");
            Ended::Stopped
        }
    }
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
        // On this runtime: one that is stuck must not look alive.
        tokio::spawn(supervisor::beat());
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

/// What happens once a second, and when others give a hint.
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
        let sweeping = async {
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
        };
        tokio::join!(sweeping, self.enforcer.follow_hints());
    }

    fn name(&self) -> &str {
        "sweep"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
