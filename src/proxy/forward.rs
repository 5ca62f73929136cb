//! The way upstream and back.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::domain::denial::{Denial, Malformed};
use crate::enforce::Permit;
use crate::proxy::body::{BodyFault, Content, RequestBody, Transfer};
use crate::proxy::call::Call;
use crate::proxy::head;
use crate::proxy::patience::millis;
use crate::proxy::published::Published;
use crate::proxy::respond::X_REQUEST_ID;
use crate::proxy::upstream::{self, Link, Pool, Relay, Sent, UpstreamError};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const CREDENTIAL: HeaderName = HeaderName::from_static("x-turnpike-credential");
const APP: HeaderName = HeaderName::from_static("x-turnpike-app");
const USER: HeaderName = HeaderName::from_static("x-turnpike-user");
const ORGANISATION: HeaderName = HeaderName::from_static("x-turnpike-organisation");

/// Targets tried for one request, at most, while none accepts a connection.
const TARGETS_TRIED_MAX: usize = 3;

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
    /// The query that is left.
    pub(super) query: Option<&'a str>,
}

/// Says who asks, and through whom. The client's own word on that was removed before: which peers
/// may be trusted with it is not known, so `X-Forwarded-For` is the peer alone.
pub(super) fn introduce(headers: &mut HeaderMap, call: &Call<'_>, host: &HeaderValue) {
    headers.insert(FORWARDED_FOR, call.client.forwarded_for.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(X_REQUEST_ID, call.record.id.clone());
}

/// Says whose request it is.
pub(super) fn identify(headers: &mut HeaderMap, permit: &Permit) {
    let owner = permit.owner();
    headers.insert(CREDENTIAL, HeaderValue::from(permit.credential().0));
    let named = [
        (APP, owner.app.map(|id| id.0)),
        (USER, owner.user.map(|id| id.0)),
        (ORGANISATION, owner.consumer_org.map(|id| id.0)),
    ];
    for (name, id) in named {
        if let Some(id) = id {
            headers.insert(name, HeaderValue::from(id));
        }
    }
}

/// Sends a request to a target of its API, the next one in turn, and if that does not accept the
/// connection to another.
///
/// # Errors
/// The denial that the client gets instead of an answer.
pub(super) async fn send(
    call: &mut Call<'_>,
    outgoing: &Outgoing<'_>,
    mut parts: Parts,
) -> Result<Response<Content>, Denial> {
    let published = outgoing.published;
    let api = &published.api;
    let idle = millis(api.timeouts.idle_ms);
    let incoming = call.body.take().ok_or(Denial::Internal)?;
    frame(&mut parts.headers, &incoming);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let body = RequestBody::new(incoming, api.body_bytes_max, idle, call.busy.clone());
    let transfer = body.transfer();
    let mut request = Request::from_parts(parts, body);
    let turn = published.turn();
    let mut failure = Denial::UpstreamUnreachable;
    for attempt in 0..published.targets().min(TARGETS_TRIED_MAX) {
        let Some((at, pool, base)) = published.target(turn.wrapping_add(attempt)) else { break };
        *request.uri_mut() = target(outgoing, base).ok_or(Denial::Internal)?;
        let host = if api.preserve_host { outgoing.host } else { &pool.host };
        request.headers_mut().insert(HOST, host.clone());
        call.record.sending(at, &transfer);
        let sent = exchange(pool, request, published).await;
        call.record.returned();
        match sent {
            Ok((response, link)) => {
                let relay = |incoming| Relay::new(incoming, link, Arc::clone(pool), idle, transfer);
                return relayed(response, call.record.is_head(), relay);
            }
            Err((error, back)) => {
                let error_text: &dyn std::error::Error = &error;
                tracing::debug!(error = error_text, upstream = %pool.authority, "no answer");
                failure = denial(&error, &transfer);
                match back {
                    Some(unsent) => request = *unsent,
                    None => return Err(failure),
                }
            }
        }
    }
    Err(failure)
}

type Failed = (UpstreamError, Option<Box<Request<RequestBody>>>);

/// One exchange with one target. The request comes back if nobody accepted a connection for it.
async fn exchange(
    pool: &Pool,
    mut request: Request<RequestBody>,
    published: &Published,
) -> Result<(Response<Incoming>, Box<Link>), Failed> {
    let timeouts = &published.api.timeouts;
    let (connect, first_byte) = (millis(timeouts.connect_ms), millis(timeouts.first_byte_ms));
    loop {
        let (link, reused) = match pool.take().await {
            Some(link) => (link, true),
            None => match pool.connect(connect).await {
                Ok(link) => (link, false),
                Err(error) => return Err((error, Some(Box::new(request)))),
            },
        };
        match upstream::send(link, request, first_byte).await {
            Sent::Answered(response, link) => return Ok((response, link)),
            // The upstream had closed a connection that lay in the pool, and not a byte was
            // written to it: the only case that is tried again.
            Sent::Unsent(unsent, _) if reused => request = *unsent,
            Sent::Unsent(_, error) | Sent::Failed(error) => return Err((error, None)),
        }
    }
}

fn denial(error: &UpstreamError, transfer: &Transfer) -> Denial {
    match (transfer.fault(), error) {
        (Some(BodyFault::TooLarge), _) => Denial::BodyTooLarge,
        (Some(BodyFault::Idle), _) => Denial::BodyTimeout,
        (Some(_), _) => Denial::BadRequest(Malformed::Syntax),
        (None, UpstreamError::Connect(_)) => Denial::UpstreamUnreachable,
        (None, UpstreamError::ConnectTimeout | UpstreamError::Timeout) => Denial::UpstreamTimeout,
        (None, UpstreamError::Broken(_)) => Denial::UpstreamBroken,
    }
}

/// One framing, whatever the client's was: a length that is known, or chunks.
fn frame(headers: &mut HeaderMap, body: &Incoming) {
    if headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        // The gateway tells the client to go on once it sends the body upstream.
        headers.remove(EXPECT);
    }
    if body.size_hint().exact().is_none() {
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
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
            let len = base.len().saturating_add(path.len()).saturating_add(query_len);
            let mut text = String::with_capacity(len.saturating_add(1));
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

/// The upstream's answer as the client gets it.
fn relayed(
    response: Response<Incoming>,
    is_head: bool,
    relay: impl FnOnce(Incoming) -> Relay,
) -> Result<Response<Content>, Denial> {
    let (mut parts, incoming) = response.into_parts();
    let mut encodings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let plain = match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    // Nobody asked to switch protocols; and of a coding that is taken off with its header, the
    // client would get bytes it cannot read.
    if parts.status == StatusCode::SWITCHING_PROTOCOLS || !plain {
        return Err(Denial::UpstreamBroken);
    }
    head::remove_hop_by_hop(&mut parts.headers);
    let bodiless =
        is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let lengths = parts.headers.get_all(CONTENT_LENGTH).iter().count();
    if 1 < lengths || (!bodiless && incoming.size_hint().exact().is_none()) {
        parts.headers.remove(CONTENT_LENGTH);
    }
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, Content::Upstream(Box::new(relay(incoming)))))
}
