//! One request, in order: check, route, authenticate, decide, forward, answer.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONNECTION, EXPECT, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, Version};
use hyper::body::Incoming;

use crate::domain::api::{Auth, Preflight, exchange};
use crate::domain::decision;
use crate::domain::denial::{Denial, Malformed};
use crate::domain::path::{Ambiguous, EncodedSlash, normalise};
use crate::enforce::{Decision, Facts, Permit, Refusal};
use crate::proxy::body::{AnswerBody, Content, RequestBody};
use crate::proxy::connection;
use crate::proxy::credentials::Places;
use crate::proxy::downstream::streams::Flow;
use crate::proxy::downstream::{Busy, Gate};
use crate::proxy::engine::Engine;
use crate::proxy::forward::{self, Outgoing};
use crate::proxy::forwarded::{self, Forwarded};
use crate::proxy::head::{self, Framing};
use crate::proxy::holder::QUOTA_PATH;
use crate::proxy::limits;
use crate::proxy::published::Published;
use crate::proxy::record::Record;
use crate::proxy::respond::{self, X_REQUEST_ID};
use crate::proxy::rules;
use crate::proxy::tunnel::Tunnel;

mod intake;

/// When a client may come back to a gateway that has too much to do, in milliseconds.
const OVERLOADED_RETRY_MS: u64 = 1_000;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) ip: IpAddr,
    /// The address as `X-Forwarded-For` says it.
    pub(super) forwarded_for: HeaderValue,
    /// Whether the connection is in TLS.
    pub(super) https: bool,
    /// Whether it is believed what it says of its own client.
    pub(super) trusted: bool,
    pub(super) gate: Arc<Gate>,
}

impl Client {
    pub(super) fn new(ip: IpAddr, gate: Arc<Gate>, https: bool, trusted: bool) -> Self {
        Self { ip, forwarded_for: connection::told(ip), https, trusted, gate }
    }
}

/// One request under way.
pub(super) struct Call<'a> {
    pub(super) engine: &'a Engine,
    pub(super) client: &'a Client,
    pub(super) record: Box<Record>,
    pub(super) busy: Busy,
    body: Option<Incoming>,
    /// The same, once it was begun to be read before it goes upstream.
    taken: Option<RequestBody>,
    /// What a trusted proxy says of its client.
    pub(super) forwarded: Option<Forwarded>,
    /// The version of HTTP it came in.
    pub(super) version: Version,
    /// The protocol that the client wants to switch to; from the API on, only such as it allows.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether the client takes trailers.
    pub(super) takes_trailers: bool,
    /// Whether it is a request of gRPC.
    grpc: bool,
    /// On HTTP/2: how the answer gets on.
    flow: Option<Arc<Flow>>,
    /// Whether it has any of the headers that few have.
    pub(super) rare: bool,
    /// Whether the client waits to be told to go on before it sends its body.
    expects: bool,
    length: Option<u64>,
    limit_headers: bool,
    /// The page that asks, where the API has a word on it.
    origin: Option<(Arc<Published>, HeaderValue)>,
}

/// Serves one request. On HTTP/2 it has a `flow`. Its head is lent: to move it about is dear.
pub(super) async fn serve(
    engine: &Engine,
    client: &Client,
    parts: &mut Parts,
    body: Incoming,
    flow: Option<Arc<Flow>>,
) -> Response<AnswerBody> {
    let busy = client.gate.begin();
    let version = parts.version;
    if version == Version::HTTP_2 {
        head::unify(parts);
    }
    let rare = Some(&parts.headers).filter(|headers| head::has_rare(headers));
    let id = engine.ids.of(rare);
    let trusted = &engine.state.config.trusted_proxies;
    let forwarded = client.trusted.then(|| forwarded::read(&parts.headers, client.ip, trusted));
    let ip = forwarded.as_ref().map_or(client.ip, |forwarded| forwarded.client);
    let record = Record::new(&engine.state, id, ip, parts);
    let mut call = Call {
        engine,
        client,
        record,
        busy,
        forwarded,
        version,
        flow,
        rare: rare.is_some(),
        expects: rare.is_some_and(|headers| headers.contains_key(EXPECT)),
        grpc: version == Version::HTTP_2 && respond::is_grpc(&parts.headers),
        upgrade: rare.and_then(|_| head::upgrade(parts, &body)),
        takes_trailers: rare.is_some_and(head::takes_trailers),
        body: Some(body),
        taken: None,
        length: None,
        limit_headers: false,
        origin: None,
    };
    let response = match call.answer(parts).await {
        Ok(response) => response,
        Err(refusal) => Box::pin(call.refuse(&refusal)).await,
    };
    call.finish(response)
}

impl Call<'_> {
    /// What every answer gets.
    fn finish(mut self, mut response: Response<Content>) -> Response<AnswerBody> {
        response.headers_mut().insert(X_REQUEST_ID, self.record.id.clone());
        if self.engine.is_leaving() {
            self.say_goodbye(response.headers_mut());
        }
        if let Some((published, origin)) = &self.origin
            && let Some(origins) = &published.rules.cors
        {
            origins.tell(response.headers_mut(), origin);
        }
        if self.version == Version::HTTP_10 && response.headers().contains_key(CONNECTION) {
            // It closes; to an answer of HTTP/1.1 hyper would add that it goes on.
            *response.version_mut() = Version::HTTP_10;
        }
        self.record.answered(response.status());
        let (record, busy, flow) = (self.record, self.busy, self.flow);
        let (parts, content) = response.into_parts();
        let body = match content {
            Content::Switched(switched) => {
                self.client.gate.switch(Tunnel { switched, record, busy });
                AnswerBody::bare(Content::Empty)
            }
            content @ (Content::Empty | Content::Text(_) | Content::Upstream(_)) => {
                AnswerBody::new(content, record, busy, flow)
            }
        };
        Response::from_parts(parts, body)
    }

    /// The client should connect anew for its next request.
    fn say_goodbye(&self, headers: &mut HeaderMap) {
        if self.version == Version::HTTP_2 {
            self.client.gate.close();
        } else {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Who asks, as far as can be trusted.
    pub(super) fn ip(&self) -> IpAddr {
        self.forwarded.as_ref().map_or(self.client.ip, |forwarded| forwarded.client)
    }

    async fn answer(&mut self, parts: &mut Parts) -> Result<Response<Content>, Box<Refusal>> {
        let state = &self.engine.state;
        // Those whose body is waited for are bounded apart: they could keep all others out.
        let waiting = state.metrics.bodies_awaited().get();
        if state.config.requests_max < state.metrics.under_way().get().saturating_sub(waiting) {
            return Err(overloaded());
        }
        let Framing { host, length } =
            head::check(parts, &state.config, self.client.https, self.rare).map_err(refusal)?;
        self.length = length;
        head::remove_hop_by_hop(&mut parts.headers);
        let uri = &parts.uri;
        let normal = normalise(uri.path(), EncodedSlash::Keep).map_err(ambiguous)?;
        if normal.as_str() == QUOTA_PATH {
            return Box::pin(self.tell_holder(parts)).await;
        }
        let (published, rest) = self.route(&host, normal.as_str()).map_err(refusal)?;
        let api = &published.api;
        self.upgrade = self.upgrade.take().filter(|wanted| {
            let wanted =
                |known: &Arc<str>| wanted.as_bytes().eq_ignore_ascii_case(known.as_bytes());
            api.upgrades.iter().any(wanted)
        });
        let preflight = self.greet(&published, parts).map_err(refusal)?;
        if normal.has_encoded_slash() && api.encoded_slash == EncodedSlash::Refuse {
            return Err(ambiguous(Ambiguous::EncodedSlash));
        }
        if length.is_some_and(|length| api.body_bytes_max < length) {
            return Err(refusal(Denial::BodyTooLarge));
        }
        let mut query = uri.query().map(std::borrow::Cow::Borrowed);
        let mut permit = None;
        let mut asked = None;
        if let Auth::Token(sources) = &api.auth {
            let places = Places { sources, header: published.token_header.as_ref() };
            let token = places
                .read(&parts.headers, uri.query())
                .map_err(|what| refusal(Denial::BadRequest(what)))?;
            let preflight = preflight && token.is_none();
            if preflight && let Some(origins) = &published.rules.cors {
                return Ok(own(origins.preflight(&parts.headers)));
            }
            if !preflight || api.preflight != Preflight::Pass {
                asked = version(&published, parts).map_err(refusal)?;
                let version = asked.as_ref().and_then(|value| value.to_str().ok());
                let (method, path) = (parts.method.as_str(), normal.as_str());
                let request = decision::Request { api, method, path, rest, version };
                let facts = Facts { request, token: token.as_deref(), client: self.ip() };
                permit = Some(self.decide(&facts).await?);
            }
            drop(token);
            if api.strip_credentials {
                places.strip(&mut parts.headers);
                query = uri.query().map(|query| places.strip_query(query));
            }
        } else if preflight && let Some(origins) = &published.rules.cors {
            return Ok(own(origins.preflight(&parts.headers)));
        }
        let path = if api.strip_listen_path { rest } else { normal.as_str() };
        let raw = uri.path_and_query();
        let query = query.as_deref().filter(|query| !query.is_empty());
        let (published, host, normal) = (&published, &host, normal.as_str());
        let version = asked.as_ref().and_then(|value| value.to_str().ok());
        let outgoing = Outgoing { published, host, raw, path, normal, rest, query, version };
        self.forward(&outgoing, &parts.method, &mut parts.headers, permit.as_ref()).await
    }

    /// Looks at where a request comes from: an address that may not call is refused, a page is
    /// noted. Says whether it is a page's preflight.
    fn greet(&mut self, published: &Arc<Published>, parts: &Parts) -> Result<bool, Denial> {
        let networks = &published.api.exchange.networks;
        if !networks.is_open() && !networks.admit(exchange::address(self.ip())) {
            return Err(Denial::AddressNotAllowed);
        }
        let preflight = rules::is_preflight(&parts.method, &parts.headers);
        if !preflight && published.rules.cors.is_some() {
            let origin = parts.headers.get(ORIGIN);
            self.origin = origin.map(|origin| (Arc::clone(published), origin.clone()));
        }
        Ok(preflight)
    }

    fn route<'p>(
        &mut self,
        host: &HeaderValue,
        path: &'p str,
    ) -> Result<(Arc<Published>, &'p str), Denial> {
        let state = &self.engine.state;
        let snapshot = state.catalog.peek();
        let found = snapshot.route(host.to_str().ok(), path).ok_or(Denial::NoRoute)?;
        let published = self.engine.upstreams.of(found.value, &state.metrics);
        self.record.routed(&published);
        self.limit_headers = published.api.limit_headers;
        self.client.gate.set_write_idle(published.api.timeouts.idle_ms);
        Ok((published, found.rest))
    }

    async fn decide(&mut self, facts: &Facts<'_>) -> Result<Permit, Box<Refusal>> {
        self.whole(facts.request.api, Some(facts)).await?;
        match self.engine.state.enforcer.decide(facts).await {
            Decision::Admit(mut permit) => {
                self.record.admitted(&mut permit);
                Ok(permit)
            }
            Decision::Deny(refusal) => Err(Box::new(refusal)),
        }
    }

    async fn forward(
        &mut self,
        outgoing: &Outgoing<'_>,
        method: &Method,
        headers: &mut HeaderMap,
        permit: Option<&Permit>,
    ) -> Result<Response<Content>, Box<Refusal>> {
        self.whole(&outgoing.published.api, None).await?;
        let sent = forward::send(self, outgoing, method, headers, permit).await;
        let readings = permit.map(Permit::readings).filter(|_| self.limit_headers);
        let mut answered = match sent {
            Ok(answered) => answered,
            Err(denial) => {
                // What was charged stays charged, and the client is told where that leaves it.
                let readings = readings.copied().unwrap_or_default();
                return Err(Box::new(Refusal { readings, ..Refusal::new(denial) }));
            }
        };
        if let Some(readings) = readings {
            limits::set(answered.headers_mut(), readings, self.engine.state.clock.unix());
        }
        Ok(answered)
    }

    async fn refuse(&mut self, refusal: &Refusal) -> Response<Content> {
        self.record.refused(refusal.denial, refusal.credential);
        tracing::debug!(denial = ?refusal.denial, "refused");
        let state = &self.engine.state;
        let now = state.clock.unix();
        let id = &self.record.id;
        let answer = respond::rescue(refusal, &state.policies, id, self.limit_headers, now);
        let answer = if self.grpc { respond::as_grpc(answer, refusal.denial) } else { answer };
        let length = answer.2.len();
        let mut response = own(answer);
        if self.record.is_head() {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
            *response.body_mut() = Content::Empty;
        }
        // On HTTP/2 the client is told to send no more of the stream, and the connection goes on.
        if self.version != Version::HTTP_2 && !self.drain().await {
            self.client.gate.leave_unread();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// An answer of the gateway's own, as a response.
pub(super) fn own((status, headers, body): respond::Answer) -> Response<Content> {
    let content = if body.is_empty() { Content::Empty } else { Content::Text(body) };
    let mut response = Response::new(content);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A refusal of which nothing more is known. Boxed: it is large, and every answer would carry its
/// size along.
pub(super) fn refusal(denial: Denial) -> Box<Refusal> {
    Box::new(Refusal::new(denial))
}

fn overloaded() -> Box<Refusal> {
    let retry_ms = Some(OVERLOADED_RETRY_MS);
    Box::new(Refusal { retry_ms, ..Refusal::new(Denial::Overloaded) })
}

fn ambiguous(why: Ambiguous) -> Box<Refusal> {
    tracing::debug!(kind = why.kind(), "a path is refused");
    let long = why == Ambiguous::TooLong;
    refusal(if long { Denial::TargetTooLong } else { Denial::BadRequest(Malformed::Path) })
}

/// The version a request asks for. Two of them are one too many.
fn version(published: &Published, parts: &Parts) -> Result<Option<HeaderValue>, Denial> {
    let Some(name) = &published.version_header else { return Ok(None) };
    let syntax = Denial::BadRequest(Malformed::Syntax);
    let mut values = parts.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(syntax),
        (Some(value), None) if value.to_str().is_ok() => Ok(Some(value.clone())),
        (Some(_unreadable), None) => Err(syntax),
        (None, None) => Ok(None),
    }
}
