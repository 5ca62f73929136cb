//! The way upstream and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, VIA};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::domain::api::Timeouts;
use crate::domain::denial::Denial;
use crate::enforce::Permit;
use crate::metrics::Attempt;
use crate::proxy::answer;
use crate::proxy::body::{Content, RequestBody, Transfer};
use crate::proxy::call::Call;
use crate::proxy::patience::millis;
use crate::proxy::peer::{Peer, Place};
use crate::proxy::published::{Published, Repeat};
use crate::proxy::tunnel::Switched;
use crate::proxy::upstream::{self, Link, Pool, Relay, UpstreamError};

mod again;
mod prepare;
#[cfg(test)]
mod tests;

use again::{Spare, charge_anew, repeat};
use prepare::prepare;

/// Headers that are added to a request, or to an answer, as long as an API adds none of its own.
const ADDED_MAX: usize = 8;

/// Attempts at one request at most: the largest number of further ones that can be configured, and
/// the first.
const TARGETS_MAX: usize = 11;

/// Where a request goes.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) published: &'a Arc<Published>,
    /// The `Host` the client sent.
    pub(super) host: &'a HeaderValue,
    /// The target as the client sent it.
    pub(super) raw: Option<&'a PathAndQuery>,
    /// The path below the target's base path: what the rules matched.
    pub(super) path: &'a str,
    /// The whole normal path, and what is left of it below the listen path.
    pub(super) normal: &'a str,
    pub(super) rest: &'a str,
    /// The query that is left.
    pub(super) query: Option<&'a str>,
    /// What was decided on: rules may send the upstream another one.
    pub(super) version: Option<&'a str>,
}

/// Sends a request to a target of its API, and to another where that does no harm.
///
/// # Errors
/// The denial that the client gets instead of an answer.
pub(super) async fn send(
    call: &mut Call<'_>,
    outgoing: &Outgoing<'_>,
    method: &Method,
    headers: &mut HeaderMap,
    permit: Option<&Permit>,
) -> Result<Response<Content>, Denial> {
    let published = outgoing.published;
    let api = &published.api;
    let idle = millis(api.timeouts.idle_ms);
    let body = call.take_body(api).ok_or(Denial::Internal)?;
    let spare = Spare::of(method, headers, &body, &api.upstream.retry);
    prepare(headers, call, outgoing, permit, &body);
    let credential = permit.map(Permit::credential);
    let choice = published.choice(headers, call.ip(), credential);
    let transfer = body.transfer();
    // It lies in one place, and is only lent: to move it about is dear.
    let mut slot = Some(request(method, std::mem::take(headers), body));
    let mut route = Route { published, choice, tried: [0; TARGETS_MAX], count: 0, again: None };
    let mut failure = Denial::UpstreamUnreachable;
    let mut repeating: Option<Repeat<'_>> = None;
    let mut write_by = permit.and_then(|permit| permit.readings().write_by());
    while let Some((at, peer)) = route.next() {
        let Some(place) = peer.enter(millis(api.timeouts.connect_ms)).await else {
            peer.metrics.attempt(Attempt::Overloaded);
            failure = Denial::UpstreamOverloaded;
            continue;
        };
        let request = slot.as_mut().ok_or(Denial::Internal)?;
        *request.uri_mut() = target(outgoing, &peer.base).ok_or(Denial::Internal)?;
        let host = if api.preserve_host { outgoing.host } else { &peer.pool.host };
        request.headers_mut().insert(HOST, host.clone());
        call.record.sending(at, &transfer);
        let fresh = repeating.is_some();
        let is_late = || write_by.is_some_and(|by| by < call.engine.state.clock.boot());
        let exchange = Exchange { pool: &peer.pool, timeouts: &api.timeouts, transfer: &transfer };
        let sent = exchange.run(&mut slot, fresh, is_late).await;
        call.record.returned();
        let failed = match sent {
            Ok((response, link)) => {
                answered(call, published, peer, response.status());
                let taken = Taken { link, place, idle, transfer };
                return taken.answer(call, published, response);
            }
            Err(failed) => failed,
        };
        drop(place);
        drop(repeating.take());
        if let UpstreamError::Late = failed.error {
            // What it was charged may count no more when it arrives: it is charged anew, once.
            write_by = None;
            let request = slot.as_ref().ok_or(Denial::Internal)?;
            Box::pin(charge_anew(call, outgoing, permit, request)).await?;
            route.count = route.count.saturating_sub(1);
            continue;
        }
        failure = unanswered(call, published, peer, &failed.error, &transfer);
        if transfer.fault().is_some() {
            return Err(failure);
        }
        if slot.is_some() {
            call.engine.state.metrics.retry(&api.id, "unsent");
            continue;
        }
        // A connection from the pool may have been closed before the request came: the target
        // itself is as good as it was.
        route.again = Some(at).filter(|_| failed.reused);
        let Some(spare) = spare.as_ref().filter(|_| failed.error.is_cut()) else { break };
        let repeated = Box::pin(repeat(call, outgoing, permit, method, spare)).await;
        (repeating, slot) = repeated.unzip();
        if slot.is_none() {
            break;
        }
    }
    Err(failure)
}

/// A request as it goes upstream, but for its target.
fn request(method: &Method, headers: HeaderMap, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.headers_mut() = headers;
    request
}

/// What belongs to an answer whose head has come.
struct Taken {
    link: Box<Link>,
    place: Place,
    idle: Duration,
    transfer: Arc<Transfer>,
}

impl Taken {
    fn answer(
        self,
        call: &Call<'_>,
        published: &Published,
        response: Response<Incoming>,
    ) -> Result<Response<Content>, Denial> {
        let Self { link, place, idle, transfer } = self;
        let via = call.engine.via(response.version());
        let mut response = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let switched = |(upstream, ahead)| Switched { upstream, ahead, idle, place };
            let switched = link.into_socket().map(switched);
            answer::switched(response, call.upgrade.as_ref(), switched)?
        } else {
            let relay = |incoming| Relay::new(incoming, link, place, idle, transfer);
            answer::relayed(response, call.record.is_head(), call.version, relay)?
        };
        response.headers_mut().reserve(ADDED_MAX);
        if let Some(via) = via {
            response.headers_mut().append(VIA, via.clone());
        }
        published.rules.response.apply(response.headers_mut());
        Ok(response)
    }
}

/// The targets of one request, one after the other.
struct Route<'a> {
    published: &'a Published,
    choice: u64,
    tried: [usize; TARGETS_MAX],
    count: usize,
    /// The one that may be tried once more where there is no other.
    again: Option<usize>,
}

impl<'a> Route<'a> {
    fn next(&mut self) -> Option<(usize, &'a Arc<Peer>)> {
        let retry = self.published.api.upstream.retry.max;
        if usize::try_from(retry).unwrap_or(usize::MAX) < self.count {
            return None;
        }
        let tried = self.tried.get(..self.count)?;
        let again = |at| Some((at, self.published.peers().get(at)?));
        let picked = self.published.pick(self.choice, tried);
        let picked = picked.or_else(|| self.again.take().and_then(again))?;
        *self.tried.get_mut(self.count)? = picked.0;
        self.count = self.count.saturating_add(1);
        Some(picked)
    }
}

fn answered(call: &Call<'_>, published: &Published, peer: &Peer, status: StatusCode) {
    if status.is_server_error() {
        peer.metrics.attempt(Attempt::Failed);
        published.failed(peer, call.engine.state.clock.boot());
    } else {
        peer.metrics.attempt(Attempt::Answered);
        peer.standing.succeeded();
    }
}

/// Notes that a target gave no answer. The denial says whose fault it was.
fn unanswered(
    call: &Call<'_>,
    published: &Published,
    peer: &Peer,
    error: &UpstreamError,
    transfer: &Transfer,
) -> Denial {
    let shown: &dyn std::error::Error = error;
    tracing::debug!(error = shown, upstream = %peer.pool.authority, "no answer");
    if transfer.fault().is_none() {
        peer.metrics.attempt(match error {
            UpstreamError::Connect(_) | UpstreamError::ConnectTimeout => Attempt::Unconnected,
            UpstreamError::Broken(_) => Attempt::Broken,
            UpstreamError::Timeout | UpstreamError::Late => Attempt::Late,
        });
        published.failed(peer, call.engine.state.clock.boot());
    }
    denial(error, transfer)
}

/// Why an exchange brought no answer.
struct Failed {
    error: UpstreamError,
    /// Whether the connection came from the pool.
    reused: bool,
}

/// What one exchange with one target takes.
struct Exchange<'a> {
    pool: &'a Pool,
    timeouts: &'a Timeouts,
    transfer: &'a Transfer,
}

impl Exchange<'_> {
    /// Over a new connection if that is asked for. `is_late` is asked in the poll that writes. The
    /// request is still there afterwards if not a byte of it was written.
    async fn run(
        &self,
        request: &mut Option<Request<RequestBody>>,
        fresh: bool,
        is_late: impl Fn() -> bool,
    ) -> Result<(Response<Incoming>, Box<Link>), Failed> {
        let connect = millis(self.timeouts.connect_ms);
        let first_byte = millis(self.timeouts.first_byte_ms);
        loop {
            let pooled = if fresh { None } else { self.pool.take() };
            let reused = pooled.is_some();
            let failed = |error| Failed { error, reused };
            let mut link = match pooled {
                Some(link) => link,
                None => Box::pin(self.pool.connect(connect)).await.map_err(failed)?,
            };
            if is_late() {
                self.pool.keep(link);
                return Err(failed(UpstreamError::Late));
            }
            match upstream::send(&mut link, request, self.transfer, first_byte).await {
                Ok(response) => return Ok((response, link)),
                // The upstream had closed a connection that lay in the pool, and not a byte was
                // written to it: that says nothing about the upstream.
                Err(_) if reused && request.is_some() => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

fn denial(error: &UpstreamError, transfer: &Transfer) -> Denial {
    match (transfer.fault(), error) {
        (Some(fault), _) => fault.denial(),
        // It never gets here: it is charged anew, or refused.
        (None, UpstreamError::Late) => Denial::RateExceeded,
        (None, UpstreamError::Connect(_)) => Denial::UpstreamUnreachable,
        (None, UpstreamError::ConnectTimeout | UpstreamError::Timeout) => Denial::UpstreamTimeout,
        (None, UpstreamError::Broken(_)) => Denial::UpstreamBroken,
    }
}

/// The request-target: exactly what was matched, below the target's base path.
fn target(outgoing: &Outgoing<'_>, base: &str) -> Option<Uri> {
    let Outgoing { raw, path, query, .. } = *outgoing;
    let same = |raw: &&PathAndQuery| {
        base.is_empty() && raw.path() == path && raw.query().filter(|q| !q.is_empty()) == query
    };
    let target = match raw.filter(same) {
        Some(raw) => raw.clone(),
        None => {
            let query_len = query.map_or(0, str::len);
            let mark = usize::from(query.is_some());
            let len = base.len().saturating_add(path.len()).saturating_add(query_len);
            // Not a byte more: what has room left over is shared by one more allocation.
            let mut text = String::with_capacity(len.saturating_add(mark));
            text.push_str(base);
            text.push_str(path);
            if let Some(query) = query {
                text.push('?');
                text.push_str(query);
            }
            PathAndQuery::from_maybe_shared(Bytes::from(text)).ok()?
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).ok()
}
