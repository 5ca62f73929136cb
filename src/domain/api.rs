//! An API: an upstream published under a listen path.

use std::sync::Arc;

use crate::domain::id::{ApiId, OrgId};
use crate::domain::path::EncodedSlash;
use crate::domain::route::{Host, ListenPath};

pub mod exchange;
pub mod upstream;

pub use exchange::{ExchangeRules, HeaderRules, Network, Networks};
pub use upstream::{
    Balance, Breaker, Ejection, Health, Retry, Target, Timeouts, UpstreamHttp, UpstreamRules,
    UpstreamTls,
};

/// The slowest that a request's body may come, in bytes per second, where nothing else is said: that of
/// Apache's `mod_reqtimeout`.
pub const BODY_RATE_MIN: u64 = 500;

/// One API, checked: every value in it can be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Its id.
    pub id: ApiId,
    /// The organisation that publishes it.
    pub org: OrgId,
    /// Its name for people.
    pub name: Arc<str>,
    /// Hosts it answers to; none means any.
    pub hosts: Vec<Host>,
    /// Where it listens.
    pub listen_path: ListenPath,
    /// Whether the listen path is taken off before the request goes upstream.
    pub strip_listen_path: bool,
    /// Upstreams, at least one.
    pub targets: Vec<Target>,
    /// How requests are spread over them.
    pub upstream: UpstreamRules,
    /// What is let in, and what changes in the headers.
    pub exchange: ExchangeRules,
    /// Who may call.
    pub auth: Auth,
    /// Whether credential headers, parameters and cookies that were read are taken off.
    pub strip_credentials: bool,
    /// What becomes of `%2F` in a path.
    pub encoded_slash: EncodedSlash,
    /// Whether the client's `Host` goes upstream; the target's does otherwise.
    pub preserve_host: bool,
    /// What becomes of a CORS preflight without a token.
    pub preflight: Preflight,
    /// Versions, if the API has any.
    pub versions: Option<Versions>,
    /// Whether limit headers are sent.
    pub limit_headers: bool,
    /// Whether the upstream learns whose request it is.
    pub identity_headers: bool,
    /// Largest request body, in bytes.
    pub body_bytes_max: u64,
    /// A request's body of a known length up to this, in bytes, is waited for before an upstream is
    /// asked; 0: none is.
    pub body_buffer_bytes: u64,
    /// How fast a request's body has to come once it has been waited for, in all, as long as
    /// `timeouts.idle_ms`, in bytes per second; 0: as slowly as it likes, but for one that is waited for
    /// before an upstream is asked: for that, [`BODY_RATE_MIN`].
    pub body_rate_min: u64,
    /// Protocols that a connection may be switched to, lower case.
    pub upgrades: Vec<Arc<str>>,
    /// What is spoken with the upstreams.
    pub upstream_http: UpstreamHttp,
    /// TLS towards those upstreams that have it.
    pub upstream_tls: UpstreamTls,
    /// Deadlines towards the upstream.
    pub timeouts: Timeouts,
    /// Decide and count, but let through.
    pub shadow: bool,
}

/// Who may call an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Anybody.
    Keyless,
    /// Holders of a token, read from these places.
    Token(TokenSources),
}

/// Where a token is read from, in this order; the first that is there counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSources {
    /// `Authorization`: `Bearer`, or the raw token. A value with another scheme is no token.
    pub authorization: bool,
    /// `X-API-Key`.
    pub x_api_key: bool,
    /// Another header, lower case.
    pub header: Option<Arc<str>>,
    /// A query parameter.
    pub query: Option<Arc<str>>,
    /// A cookie.
    pub cookie: Option<Arc<str>>,
}

/// What becomes of a CORS preflight (`OPTIONS` with `Origin` and
/// `Access-Control-Request-Method`): browsers never send a token with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preflight {
    /// It needs a token like any other request.
    Authenticate,
    /// It goes upstream without one.
    Pass,
    /// It is answered here.
    Answer(Cors),
}

/// What pages of other origins may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins, exact; `*` is any.
    pub origins: Vec<Arc<str>>,
    /// Methods.
    pub methods: Vec<Arc<str>>,
    /// Request headers.
    pub headers: Vec<Arc<str>>,
    /// Answer headers that a page may read.
    pub exposed: Vec<Arc<str>>,
    /// Whether cookies and `Authorization` may be sent.
    pub credentials: bool,
    /// How long a browser may remember the answer, in seconds.
    pub max_age_s: u32,
}

/// How an API's version is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The request header that names it, lower case.
    pub header: Arc<str>,
    /// Those there are.
    pub known: Vec<Arc<str>>,
    /// The one of a request that names none.
    pub default: Option<Arc<str>>,
}
