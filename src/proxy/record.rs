//! What is known of one request when it is over: one observation, one line, whatever happened.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, Uri};

use crate::domain::denial::Denial;
use crate::domain::id::CredentialId;
use crate::domain::policy::FailureMode;
use crate::domain::time::{BootNs, UnixMs};
use crate::enforce::{Permit, Place};
use crate::metrics::{ApiMetrics, Decision};
use crate::proxy::ProxyState;
use crate::proxy::body::Transfer;
use crate::proxy::published::Published;
use crate::telemetry::AccessLine;

/// The status of a request whose client went away before it was answered, as nginx logs it.
const CLIENT_GONE: u16 = 499;

/// One request, from its head to the end of its answer. Written when dropped.
#[derive(Debug)]
pub(super) struct Record {
    state: Arc<ProxyState>,
    began: BootNs,
    at: UnixMs,
    pub(super) id: HeaderValue,
    client: IpAddr,
    method: Method,
    /// What only the access log tells, where there is one.
    uri: Option<Uri>,
    host: Option<HeaderValue>,
    published: Option<Arc<Published>>,
    status: Option<StatusCode>,
    denial: Option<Denial>,
    shadowed: Option<Denial>,
    away: Option<FailureMode>,
    credential: Option<CredentialId>,
    charged: Option<BootNs>,
    transfer: Option<Arc<Transfer>>,
    bytes_in: u64,
    bytes_out: u64,
    /// How long its body was waited for, and since when it is.
    waited_ns: Option<u64>,
    waits_since: Option<BootNs>,
    sent_at: Option<BootNs>,
    upstream_ns: Option<u64>,
    overhead_ns: Option<u64>,
    target: Option<usize>,
    aborted: bool,
    _place: Option<Place>,
}

impl Record {
    pub(super) fn new(
        state: &Arc<ProxyState>,
        id: HeaderValue,
        client: IpAddr,
        parts: &http::request::Parts,
    ) -> Box<Self> {
        state.metrics.under_way().inc();
        let told = Some(parts).filter(|_| state.access_log.is_on());
        Box::new(Self {
            began: state.clock.boot(),
            at: state.clock.unix(),
            id,
            client,
            method: parts.method.clone(),
            uri: told.map(|parts| parts.uri.clone()),
            host: told.and_then(|parts| parts.headers.get(http::header::HOST).cloned()),
            state: Arc::clone(state),
            published: None,
            status: None,
            denial: None,
            shadowed: None,
            away: None,
            credential: None,
            charged: None,
            transfer: None,
            bytes_in: 0,
            bytes_out: 0,
            waited_ns: None,
            waits_since: None,
            sent_at: None,
            upstream_ns: None,
            overhead_ns: None,
            target: None,
            aborted: true,
            _place: None,
        })
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The API was found.
    pub(super) fn routed(&mut self, published: &Arc<Published>) {
        self.published = Some(Arc::clone(published));
    }

    /// It was let through.
    pub(super) fn admitted(&mut self, permit: &mut Permit) {
        self._place = permit.take_place();
        self.credential = Some(permit.credential());
        self.shadowed = permit.shadowed();
        self.away = permit.away();
        self.charged = permit.readings().when();
    }

    /// Its body is taken in before it goes anywhere.
    pub(super) fn receiving(&mut self, transfer: Arc<Transfer>) {
        self.transfer = Some(transfer);
    }

    /// There is nothing to do until its body has come.
    pub(super) fn waits(&mut self) {
        self.waits_since = Some(self.state.clock.boot());
    }

    /// Its body is there, or will not come.
    pub(super) fn waited(&mut self) {
        if let Some(since) = self.waits_since.take() {
            self.waited_ns = Some(self.state.clock.boot().since_ns(since));
        }
    }

    /// It goes to a target.
    pub(super) fn sending(&mut self, target: usize, transfer: &Arc<Transfer>) {
        self.target = Some(target);
        self.transfer = Some(Arc::clone(transfer));
        self.sent_at = self.sent_at.or_else(|| Some(self.state.clock.boot()));
    }

    /// The target answered, or did not.
    pub(super) fn returned(&mut self) {
        if let Some(sent_at) = self.sent_at {
            self.upstream_ns = Some(self.state.clock.boot().since_ns(sent_at));
        }
    }

    /// It is refused.
    pub(super) fn refused(&mut self, denial: Denial, credential: Option<CredentialId>) {
        self.denial = Some(denial);
        self.credential = credential.or(self.credential);
    }

    /// The head of the answer is ready.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.overhead_ns = Some(self.overhead());
    }

    /// A piece of the answer's body went out.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out = self.bytes_out.saturating_add(u64::try_from(bytes).unwrap_or(0));
    }

    /// Bytes went both ways, of no request and no answer.
    pub(super) fn carried(&mut self, up: u64, down: u64) {
        self.bytes_in = up;
        self.bytes_out = down;
    }

    /// Nothing more is sent.
    pub(super) fn finish(&mut self, whole: bool) {
        self.aborted = !whole;
    }

    /// The answer ended in a panic.
    pub(super) fn panicked(&self) {
        self.state.metrics.panics().inc();
    }

    /// Whether the client has sent all of a body that was passed on.
    pub(super) fn took_all(&self) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| transfer.is_whole())
    }

    fn overhead(&self) -> u64 {
        // Cut off while the upstream had it: its time counts up to now.
        let upstream = match (self.upstream_ns, self.sent_at) {
            (None, Some(sent_at)) => self.state.clock.boot().since_ns(sent_at),
            (upstream, _) => upstream.unwrap_or(0),
        };
        let elsewhere = upstream.saturating_add(self.waited_ns.unwrap_or(0));
        self.state.clock.boot().since_ns(self.began).saturating_sub(elsewhere)
    }

    fn observe(&self, metrics: &ApiMetrics, status: u16, overhead_ns: u64) {
        let decision = match (self.denial, self.shadowed) {
            (Some(_), _) => Decision::Denied,
            (None, Some(_)) => Decision::Shadowed,
            (None, None) => Decision::Admitted,
        };
        metrics.observe(decision, status, overhead_ns, self.upstream_ns);
        if let Some(denial) = self.denial {
            self.state.metrics.refused(metrics, denial);
        } else if let Some(denial) = self.shadowed {
            self.state.metrics.shadowed(metrics, denial);
        }
        if let Some(rule) = self.away {
            self.state.metrics.admitted_away(metrics, rule);
        }
    }

    fn log(&self, status: u16, overhead_ns: u64) {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let line = AccessLine {
            ts: self.at.0,
            id: self.id.to_str().unwrap_or_default(),
            client: self.client,
            method: self.method.as_str(),
            host: &self.host.as_ref().map(text).unwrap_or_default(),
            path: self.uri.as_ref().map_or("", Uri::path),
            api: self.published.as_ref().map(|published| published.api.id.as_str()),
            status,
            code: self.denial.map(|denial| denial.answer().code),
            shadowed: self.shadowed.map(|denial| denial.answer().code),
            store_away: self.away.map(FailureMode::name),
            credential: self.credential.map(|credential| credential.0),
            charged_us: self.charged.map(|at| at.0 / 1_000),
            bytes_in: self.transfer.as_ref().map_or(0, |transfer| transfer.bytes()) + self.bytes_in,
            bytes_out: self.bytes_out,
            overhead_us: overhead_ns / 1_000,
            body_wait_ms: self.waited_ns.map(|ns| ns / 1_000_000),
            upstream_ms: self.upstream_ns.map(|ns| ns / 1_000_000),
            target: self.target,
            aborted: self.aborted,
        };
        self.state.access_log.write(&line);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.state.metrics.under_way().dec();
        self.waited();
        if std::thread::panicking() {
            self.denial = Some(Denial::Internal);
            self.status = self.status.or(Some(StatusCode::INTERNAL_SERVER_ERROR));
        }
        let status = self.status.map_or(CLIENT_GONE, |status| status.as_u16());
        let overhead_ns = self.overhead_ns.unwrap_or_else(|| self.overhead());
        match &self.published {
            Some(published) => self.observe(&published.metrics, status, overhead_ns),
            None => self.observe(&self.state.metrics.api(None), status, overhead_ns),
        }
        if self.state.access_log.is_on() {
            self.log(status, overhead_ns);
        }
    }
}
