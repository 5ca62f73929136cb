//! What all connections share, and how one is served.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{convert, net};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::domain::denial::Denial;
use crate::enforce::Refusal;
use crate::proxy::ProxyState;
use crate::proxy::body::AnswerBody;
use crate::proxy::call::{self, Client};
use crate::proxy::downstream::{ClientIo, Gate, plain_ip};
use crate::proxy::patience::millis;
use crate::proxy::published::Upstreams;
use crate::proxy::respond::{self, X_REQUEST_ID};

/// The longest request id taken over from a client, in bytes.
const REQUEST_ID_LEN_MAX: usize = 128;
/// What hyper may buffer of a connection: reads of bodies come in such pieces.
const BUFFER_BYTES: usize = 64 * 1024;
/// How much of an unread body is read before a connection is closed, and for how long.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) state: Arc<ProxyState>,
    pub(super) upstreams: Upstreams,
    pub(super) ids: RequestIds,
    connections: AtomicUsize,
    http: http1::Builder,
}

/// Makes request ids: unique, and without a system call each.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

/// One of the connections there may be.
#[derive(Debug)]
pub(super) struct Seat(Arc<Engine>);

impl Engine {
    pub(super) fn new(state: Arc<ProxyState>) -> Arc<Self> {
        let config = &state.config;
        let mut http = http1::Builder::new();
        http.half_close(false)
            .max_headers(config.headers_max)
            .max_header_size(config.header_bytes_max)
            .max_buf_size(config.header_bytes_max.max(BUFFER_BYTES))
            // ClientIo has the deadlines.
            .header_read_timeout(None)
            // On, hyper loses the last answer when bytes are left that it will not read.
            .pipeline_flush(false);
        let upstreams = Upstreams::new(config.upstream_idle_max);
        let connections = AtomicUsize::new(0);
        Arc::new(Self { state, upstreams, ids: RequestIds::new(), connections, http })
    }

    /// A place for one more connection, if there is one.
    pub(super) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(self));
        self.state.metrics.connections().inc();
        if self.state.config.connections_max <= before {
            self.state.metrics.connections_refused().inc();
            return None;
        }
        Some(seat)
    }

    /// Serves one connection to its end. When `shutdown` turns true it ends after the request
    /// under way, which is answered with `Connection: close`.
    pub(super) async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: net::SocketAddr,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let ip = plain_ip(peer.ip());
        let text = HeaderValue::from_maybe_shared(Bytes::from(ip.to_string()));
        let forwarded_for = text.unwrap_or_else(|_never| HeaderValue::from_static("unknown"));
        let gate = Gate::new();
        let client = Client { ip, forwarded_for, gate: Arc::clone(&gate) };
        let client = Arc::new(client);
        let config = &self.state.config;
        let (head_max, idle_max) = (millis(config.head_timeout_ms), millis(config.keep_alive_ms));
        let io = ClientIo::new(stream, Arc::clone(&gate), head_max, idle_max);
        let engine = Arc::clone(&self);
        let service = service_fn(move |request| {
            let (engine, client) = (Arc::clone(&engine), Arc::clone(&client));
            async move { Ok::<_, convert::Infallible>(guarded(&engine, &client, request).await) }
        });
        let mut conn = self.http.serve_connection(TokioIo::new(io), service);
        let stop = async {
            // Whoever could say so is gone: that means it too.
            drop(shutdown.wait_for(|stop| *stop).await);
        };
        let mut stop = pin!(stop);
        let done = tokio::select! {
            done = &mut conn => done,
            () = &mut stop => {
                Pin::new(&mut conn).graceful_shutdown();
                (&mut conn).await
            }
        };
        // hyper refused what it read, and there may be more of it.
        let refused = done.as_ref().is_err_and(hyper::Error::is_parse);
        if let Err(error) = done {
            tracing::debug!(%error, "a connection ended");
        }
        if refused || gate.left_unread() {
            conn.into_parts().io.into_inner().linger(LINGER_BYTES, LINGER).await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.state.metrics.connections().dec();
    }
}

/// Serves one request; a panic in it is answered with 500 and costs nobody else.
async fn guarded(
    engine: &Engine,
    client: &Client,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    match Caught(pin!(call::serve(engine, client, request))).await {
        Some(response) => response,
        None => {
            tracing::error!("a request ended in a panic");
            engine.state.metrics.panics().inc();
            let id = engine.ids.make();
            let now = crate::domain::time::UnixMs(0);
            let refusal = Refusal::new(Denial::Internal);
            let answer = respond::rescue(&refusal, &engine.state.policies, &id, false, now);
            let mut response = call::own(answer).map(AnswerBody::bare);
            response.headers_mut().insert(X_REQUEST_ID, id);
            client.gate.leave_unread();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(http::header::CONNECTION, close);
            response
        }
    }
}

/// A future whose panics end it with `None`.
struct Caught<'a, F>(Pin<&'a mut F>);

impl<F: Future> Future for Caught<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What the future shared with others is behind locks that do not poison, or atomic.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_panic) => Poll::Ready(None),
        }
    }
}

impl RequestIds {
    fn new() -> Self {
        let mut prefix = [0; 8];
        // Without randomness ids of two processes may meet; that harms nobody but a reader of logs.
        let _ = getrandom::fill(&mut prefix);
        Self { prefix: u64::from_ne_bytes(prefix), next: AtomicU64::new(1) }
    }

    /// The id that came with a request, if it is one and harmless, or a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(id), None) if is_harmless(id.as_bytes()) => id.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let text = format!("{:016x}{n:016x}", self.prefix);
        let made = HeaderValue::from_maybe_shared(Bytes::from(text));
        made.unwrap_or_else(|_never| HeaderValue::from_static("0"))
    }
}

fn is_harmless(id: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=:@".contains(b);
    (1..=REQUEST_ID_LEN_MAX).contains(&id.len()) && id.iter().all(plain)
}
