//! One connection to an upstream, or one stream of one that is shared.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::proxy::body::{RequestBody, Transfer};
use crate::proxy::downstream::stream::Stream;
use crate::proxy::patience::Patience;
use crate::proxy::upstream::UpstreamError;

/// HTTP/1: what is read ahead of a slow client, in bytes, and of an answer's head, or a little more.
const BUFFER_BYTES: usize = 64 * 1024;
/// HTTP/2: streams of one connection at most. Where the upstream allows fewer, some wait for a turn.
const STREAMS_MAX: usize = 100;
/// HTTP/2: what may come of a stream before its client took it; of a connection as much as all its
/// streams together, so that none stands in the way of others.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;
/// HTTP/2: how often an upstream that owes an answer is asked whether it is there, and how long it
/// may take to say so.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WAIT: Duration = Duration::from_secs(10);

/// One connection, or one stream of one that is shared.
#[derive(Debug)]
pub(in crate::proxy) struct Link {
    wire: Wire,
    /// Where it leads.
    pub(super) address: SocketAddr,
    /// Whether it comes from the pool: then the upstream may have closed it meanwhile.
    pub(in crate::proxy) reused: bool,
    pub(super) unused_since: Instant,
    /// How long an answer is waited for: a timer that one request after the other uses.
    patience: Patience,
}

#[expect(clippy::large_enum_variant, reason = "a link is boxed as a whole")]
#[derive(Debug)]
enum Wire {
    One {
        sender: http1::SendRequest<RequestBody>,
        /// None is dropped: what was not written came back.
        conn: Option<http1::Connection<TokioIo<Stream>, RequestBody>>,
        /// Whether the connection's future is over; it must not be polled again.
        over: bool,
    },
    Two(Held),
}

/// A connection of HTTP/2.
#[derive(Debug)]
pub(super) struct Session {
    sender: http2::SendRequest<RequestBody>,
    pub(super) address: SocketAddr,
    https: bool,
    streams: AtomicUsize,
    unused_since: Mutex<Instant>,
}

/// One of its streams.
#[derive(Debug)]
struct Held(Arc<Session>);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.unused_since.lock() = Instant::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// A stream of it, if there is room for one.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Box<Link>> {
        let one_more = |n: usize| (n < STREAMS_MAX).then(|| n.saturating_add(1));
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(self.link(true))
    }

    fn link(self: &Arc<Self>, reused: bool) -> Box<Link> {
        let wire = Wire::Two(Held(Arc::clone(self)));
        let (address, unused_since) = (self.address, Instant::now());
        Box::new(Link { wire, address, reused, unused_since, patience: Patience::default() })
    }

    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn is_unused(&self, span: Duration) -> bool {
        self.streams.load(Ordering::Relaxed) == 0 && span <= self.unused_since.lock().elapsed()
    }
}

impl Link {
    pub(super) async fn open(
        stream: Stream,
        shared: bool,
        address: SocketAddr,
    ) -> Result<Box<Self>, UpstreamError> {
        let https = matches!(stream, Stream::Tls(_));
        let (io, unused_since) = (TokioIo::new(stream), Instant::now());
        if shared {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_WAIT);
            let (sender, conn) = builder.handshake(io).await.map_err(UpstreamError::Broken)?;
            tokio::spawn(async move {
                if let Err(error) = conn.await {
                    tracing::debug!(%error, "an upstream connection ended");
                }
            });
            let (streams, unused_since) = (AtomicUsize::new(1), Mutex::new(unused_since));
            let session = Session { sender, address, https, streams, unused_since };
            return Ok(Arc::new(session).link(false));
        }
        let mut http1 = http1::Builder::new();
        http1.max_buf_size(BUFFER_BYTES);
        let (sender, conn) = http1.handshake(io).await.map_err(UpstreamError::Broken)?;
        let wire = Wire::One { sender, conn: Some(conn), over: false };
        let patience = Patience::default();
        let mut link = Box::new(Self { wire, address, reused: false, unused_since, patience });
        // Its first poll makes it ready for a request.
        poll_fn(|cx| {
            link.drive(cx);
            Poll::Ready(())
        })
        .await;
        Ok(link)
    }

    /// The connection it shares.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        match &self.wire {
            Wire::One { .. } => None,
            Wire::Two(held) => Some(Arc::clone(&held.0)),
        }
    }

    /// Lets the connection do its work. It wakes the task when it can go on.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        let Wire::One { conn: Some(conn), over: over @ false, .. } = &mut self.wire else { return };
        if let Poll::Ready(done) = Pin::new(conn).poll(cx) {
            *over = true;
            if let Err(error) = done {
                tracing::debug!(%error, "an upstream connection ended");
            }
        }
    }

    /// Drops a connection that is over, which gives back a request that it had not begun to write:
    /// hyper keeps one that comes when the upstream has just closed. Says whether it did.
    fn give_up(&mut self) -> bool {
        let Wire::One { conn, over: true, .. } = &mut self.wire else { return false };
        conn.take().is_some()
    }

    pub(super) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        match &self.wire {
            Wire::One { sender, over, .. } => !over && sender.is_ready(),
            Wire::Two(held) => !held.0.is_over(),
        }
    }

    /// What is left of it when it was switched to another protocol: the socket, and what was read
    /// from it too far.
    pub(in crate::proxy) fn into_socket(self) -> Option<(Stream, Bytes)> {
        match self.wire {
            Wire::One { conn, .. } => {
                let parts = conn?.into_parts();
                Some((parts.io.into_inner(), parts.read_buf))
            }
            Wire::Two(_) => None,
        }
    }
}

/// Sends a request and waits for the head of the answer. The deadline begins anew whenever a part
/// of the body went out, and does not run while the client is what is waited for.
///
/// The request is taken, and comes back with an error if not a byte of it was written.
///
/// # Errors
/// When there is no answer, or not in time.
pub(in crate::proxy) async fn send(
    link: &mut Link,
    request: &mut Option<Request<RequestBody>>,
    transfer: &Transfer,
    first_byte: Duration,
) -> Result<Response<Incoming>, UpstreamError> {
    // There always is one.
    let Some(sent) = request.take() else { return Err(UpstreamError::Timeout) };
    let answered = match &mut link.wire {
        Wire::One { sender, .. } => {
            let answer = pin!(sender.try_send_request(sent));
            wait(link, answer, transfer, first_byte).await
        }
        Wire::Two(held) => {
            let https = held.0.https;
            let mut sender = held.0.sender.clone();
            let answer = pin!(sender.try_send_request(as_http2(sent, https)));
            wait(link, answer, transfer, first_byte).await
        }
    };
    answered.ok_or(UpstreamError::Timeout)?.map_err(|mut error| {
        *request = error.take_message();
        UpstreamError::Broken(error.into_error())
    })
}

/// What an answer is waited for as.
type Answered = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

async fn wait(
    link: &mut Link,
    mut answer: Pin<&mut impl Future<Output = Answered>>,
    transfer: &Transfer,
    first_byte: Duration,
) -> Option<Answered> {
    let mut seen = 0;
    link.patience.rest();
    poll_fn(|cx| {
        link.drive(cx);
        let mut polled = answer.as_mut().poll(cx);
        if polled.is_pending() && link.give_up() {
            polled = answer.as_mut().poll(cx);
        }
        if let Poll::Ready(answered) = polled {
            return Poll::Ready(Some(answered));
        }
        let bytes = transfer.bytes();
        if bytes != seen || transfer.waits() {
            seen = bytes;
            link.patience.rest();
        }
        link.patience.poll(cx, first_byte).map(|()| None)
    })
    .await
}

/// The same request as HTTP/2 has it: the host in the target, and nothing that concerns one
/// connection (RFC 9113, 8.2.2 and 8.3.1).
fn as_http2(mut request: Request<RequestBody>, https: bool) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(TRANSFER_ENCODING);
    request.headers_mut().remove(CONNECTION);
    let Some(host) = request.headers_mut().remove(HOST) else { return request };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if https { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
    parts.authority = http::uri::Authority::try_from(host.as_bytes()).ok();
    // A host that was checked and a path that was matched: they fit together.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}
