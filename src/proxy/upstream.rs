//! Connections to upstreams: pooled, and driven by the request that uses them.
//!
//! A pooled client such as hyper-util's spawns a task per connection and talks to it through
//! channels. Here the connection lies in the pool beside its sender and is polled by whoever took
//! it out. A request so stays on one task; dropping it drops the connection, which is how a client
//! that goes away cancels its upstream request; and what was not written is known.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::proxy::body::{BodyFault, RequestBody, Transfer};
use crate::proxy::patience::Patience;
use crate::proxy::peer::Place;

#[cfg(test)]
mod tests;

/// How long an unused connection is kept. Upstreams close theirs after 60 s and more, mostly;
/// closing first avoids the race.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Why there is no answer from an upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// No connection in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The connection broke, or what came is no answer.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The head of the answer did not come in time.
    #[error("no answer in time")]
    Timeout,
    /// What the request was charged had run out before it could be written: nothing was.
    #[error("what was charged has run out")]
    Late,
}

impl UpstreamError {
    /// Whether the connection ended before an answer: the other side may have gone away.
    pub(super) fn is_cut(&self) -> bool {
        match self {
            Self::Broken(error) => !error.is_parse(),
            Self::Connect(_) | Self::ConnectTimeout | Self::Timeout | Self::Late => false,
        }
    }
}

/// The unused connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    /// Host and port.
    pub(super) authority: Arc<str>,
    /// The same as a header.
    pub(super) host: HeaderValue,
    /// Whether the host is a name: its addresses change then.
    named: bool,
    /// What it stands for; none as long as it was not resolved.
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// The address to begin with, in turn.
    turns: AtomicUsize,
    #[expect(clippy::vec_box, reason = "a connection is large, and moves in and out per request")]
    idle: Mutex<Vec<Box<Link>>>,
    idle_max: usize,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    conn: Connection<TokioIo<TcpStream>, RequestBody>,
    /// Where it leads.
    address: SocketAddr,
    /// Whether the connection's future is over; it must not be polled again.
    over: bool,
    /// Whether it comes from the pool: then the upstream may have closed it meanwhile.
    pub(super) reused: bool,
    unused_since: Instant,
}

impl Link {
    /// Lets the connection do its work. It wakes the task when it can go on.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.over {
            return;
        }
        if let Poll::Ready(done) = Pin::new(&mut self.conn).poll(cx) {
            self.over = true;
            if let Err(error) = done {
                tracing::debug!(%error, "an upstream connection ended");
            }
        }
    }

    fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        !self.over && self.sender.is_ready()
    }
}

impl Pool {
    pub(super) fn new(authority: Arc<str>, idle_max: usize) -> Self {
        let address: Option<SocketAddr> = authority.parse().ok();
        Self {
            host: host(&authority),
            authority,
            named: address.is_none(),
            addresses: ArcSwap::from_pointee(address.into_iter().collect()),
            turns: AtomicUsize::new(0),
            idle: Mutex::default(),
            idle_max,
        }
    }

    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Asks for the addresses of the name. Connections to such as are gone are used no more.
    ///
    /// # Errors
    /// When there is no answer: the addresses stay what they were.
    pub(super) async fn resolve(&self) -> io::Result<Arc<Vec<SocketAddr>>> {
        let mut found: Vec<SocketAddr> =
            tokio::net::lookup_host(self.authority.as_ref()).await?.collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(self.moved(found))
    }

    fn moved(&self, addresses: Vec<SocketAddr>) -> Arc<Vec<SocketAddr>> {
        let addresses = Arc::new(addresses);
        self.addresses.store(Arc::clone(&addresses));
        let mut idle = self.idle.lock();
        let all = std::mem::take(&mut *idle).into_iter();
        let (stay, gone): (Vec<_>, Vec<_>) =
            all.partition(|link| addresses.contains(&link.address));
        *idle = stay;
        drop(idle);
        drop(gone);
        addresses
    }

    /// A connection that was used before and that the upstream has not closed.
    pub(super) async fn take(&self) -> Option<Box<Link>> {
        loop {
            let mut link = self.idle.lock().pop()?;
            if link.unused_since.elapsed() < IDLE_MAX
                && poll_fn(|cx| Poll::Ready(link.is_usable(cx))).await
            {
                link.reused = true;
                return Some(link);
            }
        }
    }

    /// A new connection: to the next address in turn, and if that does not accept it to the others.
    ///
    /// # Errors
    /// When none accepts it, or not in time.
    pub(super) async fn connect(&self, deadline: Duration) -> Result<Box<Link>, UpstreamError> {
        let connected = tokio::time::timeout(deadline, self.stream());
        let (stream, address) = connected
            .await
            .map_err(|_elapsed| UpstreamError::ConnectTimeout)?
            .map_err(UpstreamError::Connect)?;
        stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
        let (sender, conn) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(UpstreamError::Broken)?;
        let unused_since = Instant::now();
        let over = false;
        let link = Link { sender, conn, address, over, reused: false, unused_since };
        let mut link = Box::new(link);
        // Its first poll makes it ready for a request.
        poll_fn(|cx| {
            link.drive(cx);
            Poll::Ready(())
        })
        .await;
        Ok(link)
    }

    async fn stream(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let mut addresses = self.addresses.load_full();
        if addresses.is_empty() {
            addresses = self.resolve().await?;
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(addresses.len()).unwrap_or(0);
        let (before, from) = addresses.split_at(first);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for address in from.iter().chain(before) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((stream, *address)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Keeps a connection for the next request, if it is good for one.
    pub(super) fn keep(&self, mut link: Box<Link>) {
        let mut nobody = Context::from_waker(Waker::noop());
        let stays = !self.named || self.addresses.load().contains(&link.address);
        if !stays || !link.is_usable(&mut nobody) {
            return;
        }
        link.unused_since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < self.idle_max {
            idle.push(link);
        }
    }

    /// Closes what was unused for too long. The longest unused lie first.
    pub(super) fn sweep(&self) {
        let mut idle = self.idle.lock();
        let fresh = idle.iter().position(|link| link.unused_since.elapsed() < IDLE_MAX);
        let stale = fresh.unwrap_or(idle.len());
        let closed: Vec<_> = idle.drain(..stale).collect();
        drop(idle);
        drop(closed);
    }
}

/// What came of sending a request.
pub(super) enum Sent {
    /// The head of the answer, and the connection its body comes from.
    Answered(Response<Incoming>, Box<Link>),
    /// Nothing was written, so the request is as it was.
    Unsent(Box<Request<RequestBody>>, UpstreamError),
    /// It failed.
    Failed(UpstreamError),
}

/// Sends a request and waits for the head of the answer. The deadline begins anew whenever a part
/// of the body went out, and does not run while the client is what is waited for.
pub(super) async fn send(
    mut link: Box<Link>,
    request: Request<RequestBody>,
    first_byte: Duration,
) -> Sent {
    let transfer = request.body().transfer();
    let answer = link.sender.try_send_request(request);
    let mut answer = pin!(answer);
    let mut patience = Patience::default();
    let mut seen = 0;
    let answered = poll_fn(|cx| {
        link.drive(cx);
        if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answered));
        }
        let bytes = transfer.bytes();
        if bytes != seen || transfer.waits() {
            seen = bytes;
            patience.rest();
        }
        patience.poll(cx, first_byte).map(|()| None)
    })
    .await;
    match answered {
        None => Sent::Failed(UpstreamError::Timeout),
        Some(Ok(response)) => Sent::Answered(response, link),
        Some(Err(mut error)) => {
            let request = error.take_message();
            let error = UpstreamError::Broken(error.into_error());
            match request {
                Some(request) => Sent::Unsent(Box::new(request), error),
                None => Sent::Failed(error),
            }
        }
    }
}

/// The body of an upstream's answer, and the connection it comes from.
#[derive(Debug)]
pub(super) struct Relay {
    incoming: Incoming,
    link: Option<Box<Link>>,
    place: Place,
    idle: Duration,
    patience: Patience,
    transfer: Arc<Transfer>,
    seen: u64,
    ended: bool,
}

impl Relay {
    pub(super) fn new(
        incoming: Incoming,
        link: Box<Link>,
        place: Place,
        idle: Duration,
        transfer: Arc<Transfer>,
    ) -> Self {
        let (patience, seen) = (Patience::default(), transfer.bytes());
        Self { incoming, link: Some(link), place, idle, patience, transfer, seen, ended: false }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The next piece. Trailers are dropped.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyFault>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Asking comes first: the connection reads only what was asked for.
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending() {
            if let Some(link) = &mut self.link {
                link.drive(cx);
            }
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let fault = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.rest();
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
                self.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(None) => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, upstream = %self.place.pool().authority, "an answer broke off");
                BodyFault::UpstreamBroken
            }
            Poll::Pending => {
                let bytes = self.transfer.bytes();
                if bytes != self.seen {
                    self.seen = bytes;
                    self.patience.rest();
                }
                if self.patience.poll(cx, self.idle).is_pending() {
                    return Poll::Pending;
                }
                BodyFault::UpstreamIdle
            }
        };
        self.link = None;
        Poll::Ready(Some(Err(fault)))
    }

    /// The answer is not read any further. Says whether it was read to its end; the connection is
    /// kept then, and closed otherwise.
    pub(super) fn finish(&mut self) -> bool {
        let whole = self.is_end_stream();
        if let Some(link) = self.link.take().filter(|_| whole) {
            self.place.pool().keep(link);
        }
        whole
    }
}

/// The `Host` of a target: without the port that goes without saying (RFC 9110, 7.2).
fn host(authority: &str) -> HeaderValue {
    let short = authority.strip_suffix(":80").unwrap_or(authority);
    // A target's authority is checked when it is configured.
    HeaderValue::try_from(short).unwrap_or_else(|_invalid| HeaderValue::from_static(""))
}
