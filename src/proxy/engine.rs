//! What all connections share.

use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use dashmap::DashMap;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use tokio::sync::watch;

use crate::domain::denial::Denial;
use crate::enforce::Refusal;
use crate::proxy::ProxyState;
use crate::proxy::body::AnswerBody;
use crate::proxy::call::{self, Client};
use crate::proxy::downstream::door::Door;
use crate::proxy::downstream::streams::Flow;
use crate::proxy::published::Upstreams;
use crate::proxy::respond::{self, X_REQUEST_ID};

/// The longest request id taken over from a client, in bytes.
const REQUEST_ID_LEN_MAX: usize = 128;
/// What hyper may buffer of a connection: reads of bodies come in such pieces.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long connections without a request are kept when the gateway stops, in milliseconds: a client
/// that speaks meanwhile is answered, and told to connect anew.
const PATIENCE_MS: u64 = 1_000;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) state: Arc<ProxyState>,
    pub(super) upstreams: Upstreams,
    pub(super) ids: RequestIds,
    pub(super) http: http1::Builder,
    connections: AtomicUsize,
    addresses: DashMap<IpAddr, usize>,
    via: Option<[HeaderValue; 3]>,
    /// Set once the gateway stops: answers then tell clients to connect anew, elsewhere.
    leaving: AtomicBool,
    /// Turns true when connections without a request are to end, too.
    pub(super) end: watch::Sender<bool>,
    /// How long they are kept before, in milliseconds.
    pub(super) patience_ms: Arc<AtomicU64>,
    /// Listeners that connections are still taken from.
    pub(super) accepting: Arc<AtomicUsize>,
}

/// A request id is twice as many hexadecimal digits: those of the process, and a number.
const ID_HALF: usize = 16;

/// The two halves of one.
struct Digits([[u8; ID_HALF]; 2]);

impl AsRef<[u8]> for Digits {
    fn as_ref(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

/// Makes request ids: unique, and without a system call each.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: [u8; ID_HALF],
    next: AtomicU64,
}

/// One of the connections that an address may have.
#[derive(Debug)]
pub(super) struct AddressSeat {
    engine: Arc<Engine>,
    address: IpAddr,
}

/// An address has as many connections as it may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

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
        let (connections, addresses) = (AtomicUsize::new(0), DashMap::new());
        let name = &config.via;
        let value = |version: &str| HeaderValue::try_from(format!("{version} {name}")).ok();
        let all = || Some([value("1.0")?, value("1.1")?, value("2")?]);
        let via = if name.is_empty() { None } else { all() };
        Arc::new(Self {
            state,
            upstreams,
            ids: RequestIds::new(),
            http,
            connections,
            addresses,
            via,
            leaving: AtomicBool::new(false),
            end: watch::Sender::new(false),
            patience_ms: Arc::new(AtomicU64::new(PATIENCE_MS)),
            accepting: Arc::default(),
        })
    }

    /// The gateway stops.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The way in of one of the configuration's listeners.
    pub(super) fn door(&self, n: usize) -> Arc<Door> {
        Arc::new(self.state.config.listeners.get(n).map(Door::new).unwrap_or_default())
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

    /// A place for one more connection of an address, counted only where it is bounded.
    pub(super) fn seat_of(self: &Arc<Self>, address: IpAddr) -> Result<Option<AddressSeat>, Full> {
        let config = &self.state.config;
        let max = config.connections_per_address_max;
        if max == 0 || config.trusted_proxies.contains(address) {
            return Ok(None);
        }
        let mut seats = self.addresses.entry(address).or_insert(0);
        if max <= *seats {
            return Err(Full);
        }
        *seats = seats.saturating_add(1);
        Ok(Some(AddressSeat { engine: Arc::clone(self), address }))
    }

    /// What the gateway says of itself in `Via`, by the version of the message received.
    pub(super) fn via(&self, version: Version) -> Option<&HeaderValue> {
        let [one_zero, one_one, two] = self.via.as_ref()?;
        Some(match version {
            Version::HTTP_10 => one_zero,
            Version::HTTP_2 => two,
            _ => one_one,
        })
    }
}

impl Drop for AddressSeat {
    fn drop(&mut self) {
        let addresses = &self.engine.addresses;
        if let Some(mut seats) = addresses.get_mut(&self.address) {
            *seats = seats.saturating_sub(1);
        }
        addresses.remove_if(&self.address, |_, seats| *seats == 0);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.state.metrics.connections().dec();
    }
}

/// Serves one request; a panic in it is answered with 500 and costs nobody else.
pub(super) async fn guarded(
    engine: &Engine,
    client: &Client,
    parts: &mut Parts,
    body: Incoming,
    flow: Option<Arc<Flow>>,
) -> Response<AnswerBody> {
    let version = parts.version;
    match Caught(pin!(call::serve(engine, client, parts, body, flow))).await {
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
            // On HTTP/2 only the stream is lost.
            if version != Version::HTTP_2 {
                client.gate.leave_unread();
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(http::header::CONNECTION, close);
            }
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
        Self { prefix: digits(u64::from_ne_bytes(prefix)), next: AtomicU64::new(1) }
    }

    /// The id that came with a request, if it is one and harmless, or a new one.
    pub(super) fn of(&self, headers: Option<&HeaderMap>) -> HeaderValue {
        let mut given = headers.into_iter().flat_map(|headers| headers.get_all(X_REQUEST_ID));
        match (given.next(), given.next()) {
            (Some(id), None) if is_harmless(id.as_bytes()) => id.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        // Of an array: a vector's bytes would be moved to one more allocation by the first clone.
        let text = Bytes::from_owner(Digits([self.prefix, digits(n)]));
        let made = HeaderValue::from_maybe_shared(text);
        made.unwrap_or_else(|_never| HeaderValue::from_static("0"))
    }
}

/// Hexadecimal, with leading zeros: what formatting does, at a twentieth of its cost.
fn digits(n: u64) -> [u8; ID_HALF] {
    let (high, low) = (n >> 32, n & 0xffff_ffff);
    let both = u128::from(eight_digits(high)) << 64 | u128::from(eight_digits(low));
    both.to_be_bytes()
}

/// Those of 32 bits, a byte each, all eight at once.
fn eight_digits(n: u64) -> u64 {
    let n = (n << 16 | n) & 0x0000_ffff_0000_ffff;
    let n = (n << 8 | n) & 0x00ff_00ff_00ff_00ff;
    let n = (n << 4 | n) & 0x0f0f_0f0f_0f0f_0f0f;
    // A one in each byte of ten and more: those are letters.
    let letters = n.wrapping_add(0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    let beyond = u64::from(b'a' - b'0' - 10);
    n.wrapping_add(0x3030_3030_3030_3030).wrapping_add(letters.wrapping_mul(beyond))
}

fn is_harmless(id: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=:@".contains(b);
    (1..=REQUEST_ID_LEN_MAX).contains(&id.len()) && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest future of a request, in bytes: every connection has room for one, and those of
    /// 64 connections have to stay in a processor's own cache of 1 MiB together with the rest.
    /// Measured without optimisation, 3,112.
    const CALL_BYTES_MAX: usize = 4_096;
    /// The largest request on its way upstream: hyper keeps 32 places for it per connection.
    const REQUEST_BYTES_MAX: usize = 256;

    fn size<'a, F: Future>(
        _: impl FnOnce(&'a Engine, &'a Client, &'a mut Parts, Incoming, Option<Arc<Flow>>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_id_is_what_formatting_would_make_of_it() {
        let ids =
            RequestIds { prefix: digits(0x00fe_dcba_9876_5432), next: AtomicU64::new(u64::MAX) };
        assert_eq!(ids.make(), "00fedcba98765432ffffffffffffffff");
        assert_eq!(ids.make(), "00fedcba987654320000000000000000");
    }

    #[test]
    fn a_request_takes_little_room() {
        let bytes = size(guarded);
        assert!(bytes <= CALL_BYTES_MAX, "{bytes}");
        let bytes = size_of::<http::Request<crate::proxy::body::RequestBody>>();
        assert!(bytes <= REQUEST_BYTES_MAX, "{bytes}");
    }
}
