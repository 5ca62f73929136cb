//! Connections to upstreams: pooled, and driven by the request that uses them.
//!
//! A pooled client such as hyper-util's spawns a task per connection and talks to it through
//! channels. Here the connection lies in the pool beside its sender and is polled by whoever took
//! it out. A request so stays on one task; dropping it drops the connection, which is how a client
//! that goes away cancels its upstream request; and what was not written is known. A connection of
//! HTTP/2 has many requests, so it is a task, and lies in its pool as long as it lives.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

mod connector;
mod link;
mod relay;

use connector::Connector;
pub(super) use connector::Destination;
use link::Session;
pub(super) use link::{Link, send};
pub(super) use relay::Relay;

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

/// The unused connections to one upstream, and the shared ones.
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
    connector: Connector,
    /// On HTTP/2: connections that requests share.
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Held while one is opened.
    opening: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(super) fn new(to: Destination, idle_max: usize) -> Self {
        let authority = Arc::clone(&to.authority);
        let address: Option<SocketAddr> = authority.parse().ok();
        Self {
            host: host(&authority, to.tls.is_some()),
            connector: Connector::new(to),
            sessions: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
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
        self.sessions.lock().retain(|session| addresses.contains(&session.address));
        addresses
    }

    /// A connection that was used before. Whether the upstream has closed it meanwhile shows when
    /// a request is sent over it, which comes back unsent then.
    pub(super) fn take(&self) -> Option<Box<Link>> {
        if self.connector.is_shared() {
            return self.session();
        }
        // The one used last lies on top: if that is stale, all are.
        let mut link = self.idle.lock().pop()?;
        link.reused = true;
        (link.unused_since.elapsed() < IDLE_MAX).then_some(link)
    }

    /// A connection to send a request over: a new one, or a stream of one that is shared.
    ///
    /// # Errors
    /// When the upstream does not accept it, or not in time.
    pub(super) async fn connect(&self, deadline: Duration) -> Result<Box<Link>, UpstreamError> {
        let connected = async {
            if !self.connector.is_shared() {
                return self.open().await;
            }
            // Whoever waits here mostly finds a connection that was opened meanwhile.
            let _opening = self.opening.lock().await;
            match self.session() {
                Some(link) => Ok(link),
                None => {
                    let link = self.open().await?;
                    self.sessions.lock().extend(link.session());
                    Ok(link)
                }
            }
        };
        let connected = tokio::time::timeout(deadline, connected).await;
        connected.map_err(|_elapsed| UpstreamError::ConnectTimeout)?
    }

    /// A new connection that is nobody else's, to see whether there can be one.
    ///
    /// # Errors
    /// When the upstream does not accept it, or not in time.
    pub(super) async fn probe(&self, deadline: Duration) -> Result<Box<Link>, UpstreamError> {
        let connected = tokio::time::timeout(deadline, self.open()).await;
        connected.map_err(|_elapsed| UpstreamError::ConnectTimeout)?
    }

    async fn open(&self) -> Result<Box<Link>, UpstreamError> {
        let (stream, address) = self.stream().await.map_err(UpstreamError::Connect)?;
        stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
        let stream = self.connector.secure(stream).await.map_err(UpstreamError::Connect)?;
        Link::open(stream, self.connector.is_shared(), address).await
    }

    /// A stream of a connection that is shared and has room for one.
    fn session(&self) -> Option<Box<Link>> {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| !session.is_over());
        sessions.iter().find_map(Session::enter)
    }

    /// To the next address in turn, and if that does not accept it to the others.
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
        if self.connector.is_shared() || !stays || !link.is_usable(&mut nobody) {
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
        self.sessions.lock().retain(|session| !session.is_unused(IDLE_MAX));
        self.connector.refresh();
    }
}

/// The `Host` of a target: without the port that goes without saying (RFC 9110, 7.2).
fn host(authority: &str, tls: bool) -> HeaderValue {
    let port = if tls { ":443" } else { ":80" };
    let short = authority.strip_suffix(port).unwrap_or(authority);
    // A target's authority is checked when it is configured.
    HeaderValue::try_from(short).unwrap_or_else(|_invalid| HeaderValue::from_static(""))
}
