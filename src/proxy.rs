//! The HTTP data plane: thin. It reads a request, asks the enforcer, passes it on, and says
//! what became of it.
//!
//! hyper speaks HTTP on both sides. What is refused on top of what hyper refuses is in `head`;
//! deadlines are in `downstream`, `body` and `upstream`. Of hyper one has to know:
//!
//! * What it refuses itself (syntax, framing, a head that is too large or has too many fields) is
//!   400 or 431 without a body, and neither counted nor logged: no request came of it.
//! * A request-target beyond the whole head's bound is 431, not 414.
//! * It repairs bare line feeds, and `Content-Length` beside `Transfer-Encoding` (chunks count, the
//!   connection closes); a fragment in a request-target is cut off.
//! * It takes `Content-Length` off a 304, and refuses `"`, `<` and `>` in a query with 400.
//! * A client that closes its sending side is gone: its request is cancelled.
//! * It drops what it has not flushed when an answer's body fails, and with `pipeline_flush` an
//!   answer beside unread bytes.
//!
//! Trailers go on both ways without what must not stand in them (`head::trailers`); over HTTP/1.1 hyper
//! sends those that `Trailer` names, to a client that says `TE: trailers`.

use std::net;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{PoliciesConfig, ProxyConfig};
use crate::enforce::Enforcer;
use crate::metrics::Metrics;
use crate::telemetry::AccessLog;

mod answer;
mod body;
mod call;
mod connection;
mod credentials;
mod downstream;
mod engine;
mod forward;
mod forwarded;
mod head;
mod holder;
mod limits;
mod patience;
mod peer;
mod published;
mod record;
mod respond;
mod rules;
mod tunnel;
mod upkeep;
mod upstream;

use downstream::door::Door;
use engine::Engine;

/// How often files of certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(1);
/// The pause after a failed accept: mostly there are too many open files, and trying again at
/// once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that may wait to be accepted when the gateway stops: the kernel's own bound.
const QUEUED_MAX: usize = 4_096;

/// What the kernel takes of answers before their client has room for it, in bytes for each connection:
/// from half of it on more is asked for. Without a bound it takes up to 4 MiB.
const UNSENT_BYTES: u32 = 128 * 1024;

/// What the data plane works with. Shared as an `Arc`.
#[derive(Debug)]
pub struct ProxyState {
    /// APIs, policies, credentials.
    pub catalog: Arc<Catalog>,
    /// Decides.
    pub enforcer: Arc<Enforcer>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// One line per request.
    pub access_log: AccessLog,
    /// Bounds and deadlines.
    pub config: ProxyConfig,
    /// How refusals are answered.
    pub policies: PoliciesConfig,
}

/// The data plane as a service of Pingora's server.
#[derive(Debug)]
pub struct ProxyService {
    engine: Arc<Engine>,
    listeners: Vec<net::TcpListener>,
    threads: usize,
    drain: Duration,
}

impl ProxyService {
    /// A service on sockets that are bound and do not block, in the order of the configuration's
    /// listeners. Once told to stop, it waits up to
    /// `drain` for requests under way.
    #[must_use]
    pub fn new(state: Arc<ProxyState>, listeners: Vec<net::TcpListener>, drain: Duration) -> Self {
        let threads = state.config.threads;
        Self { engine: Engine::new(state), listeners, threads, drain }
    }

    /// How long connections without a request are kept after the stop, in milliseconds. It is read
    /// at the stop.
    #[must_use]
    pub fn patience(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.engine.patience_ms)
    }

    /// How many listeners connections are taken from: after a stop that is soon none.
    #[must_use]
    pub fn accepting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.engine.accepting)
    }
}

#[async_trait]
impl Service for ProxyService {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let mut upkeep = JoinSet::new();
        upkeep.spawn(upkeep::upkeep(Arc::clone(&self.engine)));
        let mut loops = JoinSet::new();
        for (n, listener) in self.listeners.drain(..).enumerate() {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let (engine, shutdown) = (Arc::clone(&self.engine), shutdown.clone());
                    let door = self.engine.door(n);
                    self.engine.accepting.fetch_add(1, Ordering::SeqCst);
                    loops.spawn(accept(engine, listener, door, shutdown, self.drain));
                }
                Err(error) => tracing::error!(%error, "a listener cannot be used"),
            }
        }
        while loops.join_next().await.is_some() {}
    }

    fn name(&self) -> &'static str {
        "proxy"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

/// Serves one listener, the first of the configuration, on the runtime it is called on, until `shutdown` turns true; returns when
/// no request is under way any more, or after `drain`.
pub async fn serve(
    state: Arc<ProxyState>,
    listener: TcpListener,
    shutdown: watch::Receiver<bool>,
    drain: Duration,
) {
    let engine = Engine::new(state);
    let door = engine.door(0);
    engine.accepting.fetch_add(1, Ordering::SeqCst);
    tokio::select! {
        () = upkeep::upkeep(Arc::clone(&engine)) => {}
        () = accept(engine, listener, door, shutdown, drain) => {}
    }
}

async fn accept(
    engine: Arc<Engine>,
    listener: TcpListener,
    door: Arc<Door>,
    mut shutdown: watch::Receiver<bool>,
    drain: Duration,
) {
    // Connections inherit it.
    if let Err(error) = SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::warn!(%error, "what slow readers leave unsent is not bounded");
    }
    let mut connections = JoinSet::new();
    let mut certificates = tokio::time::interval(CERTIFICATES);
    let stop = async {
        // Whoever could say so is gone: that means it too.
        drop(shutdown.wait_for(|stop| *stop).await);
    };
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => welcome(&engine, &door, stream, peer, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => note(ended),
            _ = certificates.tick(), if door.is_tls() => {
                if let Some(usable) = door.refresh() {
                    engine.state.metrics.tls_reloaded(usable);
                }
            }
        }
    }
    // Those that the kernel has let in are answered, too.
    for _ in 0..QUEUED_MAX {
        let Ok(accepted) = tokio::time::timeout(Duration::ZERO, listener.accept()).await else {
            break;
        };
        let Ok((stream, peer)) = accepted else { break };
        welcome(&engine, &door, stream, peer, &mut connections);
    }
    // Before the end of listening can be seen: whoever is answered after it is told to close.
    engine.leave();
    drop(listener);
    engine.accepting.fetch_sub(1, Ordering::SeqCst);
    let patience = Duration::from_millis(engine.patience_ms.load(Ordering::SeqCst)).min(drain / 2);
    if tokio::time::timeout(patience, emptied(&mut connections)).await.is_ok() {
        return;
    }
    engine.end.send_replace(true);
    let rest = drain.saturating_sub(patience);
    if tokio::time::timeout(rest, emptied(&mut connections)).await.is_err() {
        tracing::warn!("requests were cut off at shutdown");
    }
}

/// Serves a connection, if there is a place for it.
fn welcome(
    engine: &Arc<Engine>,
    door: &Arc<Door>,
    stream: TcpStream,
    peer: net::SocketAddr,
    connections: &mut JoinSet<()>,
) {
    let Some(seat) = engine.seat() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was closed at once");
        return;
    }
    let (serving, door) = (Arc::clone(engine), Arc::clone(door));
    let serving = serving.connection(stream, peer, door, engine.end.subscribe());
    connections.spawn(async move {
        serving.await;
        drop(seat);
    });
}

async fn emptied(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended in a panic");
    }
}
