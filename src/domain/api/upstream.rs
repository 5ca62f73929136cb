//! How an API's requests are spread over its targets, and what becomes of targets that fail.

use std::sync::Arc;

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpstreamHttp {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2: by ALPN over TLS, by prior knowledge in plain text.
    Two,
}

/// TLS towards upstreams. Files are paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Whose certificates are trusted; `None`: those that the system trusts.
    pub ca: Option<Arc<str>>,
    /// The gateway's own certificate and its key.
    pub client: Option<(Arc<str>, Arc<str>)>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host and port, such as `127.0.0.1:9000`.
    pub authority: Arc<str>,
    /// What the target's URL has as path, without a slash at the end; put before the request's.
    pub base_path: Arc<str>,
    /// Its share of the requests, against the other targets' weights; at least 1.
    pub weight: u16,
}

/// Deadlines towards an upstream, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect_ms: u64,
    /// From the request to the head of the answer.
    pub first_byte_ms: u64,
    /// Without a byte in either direction while bodies flow.
    pub idle_ms: u64,
}

/// What holds of all targets of an API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamRules {
    /// Which target a request goes to.
    pub balance: Balance,
    /// Active checks.
    pub health: Health,
    /// Passive ones.
    pub ejection: Ejection,
    /// Second attempts.
    pub retry: Retry,
    /// The bounds of one target.
    pub breaker: Breaker,
}

/// Which target a request goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The next in turn, by weight.
    #[default]
    Turn,
    /// The same for the same credential; in turn where there is none.
    Credential,
    /// The same for the same client address.
    Client,
    /// The same for the same value of a request header, lower case; in turn where there is none.
    Header(Arc<str>),
}

/// Active health checks: a connection, or a request where there is a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The pause between two checks of a target, in milliseconds; 0 is no checks.
    pub every_ms: u64,
    /// How long a check may take, in milliseconds.
    pub timeout_ms: u64,
    /// What is asked for with `GET`; 2xx and 3xx pass. None: a connection is enough.
    pub path: Option<Arc<str>>,
    /// Passed checks in a row that make a target healthy.
    pub rise: u32,
    /// Failed checks in a row that make it unhealthy.
    pub fall: u32,
}

/// When a target is left alone because its requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row (no connection, no answer, 5xx) that eject; 0 never ejects.
    pub failures: u32,
    /// How long the first time, in milliseconds; twice as long every further time.
    pub base_ms: u64,
    /// And at most.
    pub max_ms: u64,
    /// At most so many of the targets are ejected at once, in per cent.
    pub share_percent: u32,
}

/// When a request is sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub max: u32,
    /// Second attempts under way of what a target may have seen, in per cent of the requests in
    /// flight.
    pub percent: u32,
}

/// The bounds of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Connections in use at once.
    pub connections_max: u32,
    /// Requests that wait for one of them.
    pub pending_max: u32,
    /// Requests in flight, those that wait included.
    pub requests_max: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { every_ms: 5_000, timeout_ms: 1_000, path: None, rise: 2, fall: 3 }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, base_ms: 10_000, max_ms: 300_000, share_percent: 50 }
    }
}

impl Default for Retry {
    fn default() -> Self {
        // The half: what one of two targets had in flight when it died.
        Self { max: 2, percent: 50 }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { connections_max: 10_000, pending_max: 1_000, requests_max: 10_000 }
    }
}

impl Breaker {
    /// Requests that may have a connection at once: over HTTP/1.1 each needs one of its own.
    #[must_use]
    pub fn served_max(&self) -> u32 {
        self.connections_max.min(self.requests_max)
    }

    /// Requests that may wait for one.
    #[must_use]
    pub fn waiting_max(&self) -> u32 {
        self.pending_max.min(self.requests_max.saturating_sub(self.served_max()))
    }
}

impl Ejection {
    /// How long the `times`th ejection in a row lasts, in milliseconds.
    #[must_use]
    pub fn span_ms(&self, times: u32) -> u64 {
        let doublings = times.saturating_sub(1).min(32);
        self.base_ms.saturating_mul(1 << doublings).min(self.max_ms)
    }

    /// Whether one more of so many targets may be ejected.
    #[must_use]
    pub fn allows(&self, ejected: usize, targets: usize) -> bool {
        let share = usize::try_from(self.share_percent).unwrap_or(0);
        ejected.saturating_add(1).saturating_mul(100) <= targets.saturating_mul(share)
    }
}

impl Retry {
    /// Second attempts that may always be under way: a share of little traffic is nothing.
    const UNDER_WAY_MIN: u32 = 3;

    /// Whether a second attempt may begin while so many are under way.
    #[must_use]
    pub fn allows(&self, under_way: u32, in_flight: u32) -> bool {
        let share = u64::from(in_flight).saturating_mul(u64::from(self.percent)) / 100;
        u64::from(under_way) < share.max(u64::from(Self::UNDER_WAY_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_grow_to_their_bound_and_leave_enough_targets() {
        let ejection = Ejection { failures: 5, base_ms: 100, max_ms: 1_000, share_percent: 50 };
        let spans: Vec<u64> = (1..=6).map(|times| ejection.span_ms(times)).collect();
        assert_eq!(spans, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(ejection.span_ms(u32::MAX), 1_000);
        for (ejected, targets, expect) in
            [(0, 1, false), (0, 2, true), (1, 2, false), (0, 3, true), (1, 3, false), (1, 4, true)]
        {
            assert_eq!(ejection.allows(ejected, targets), expect, "{ejected} of {targets}");
        }
    }

    #[test]
    fn second_attempts_are_a_share_of_what_is_in_flight() {
        let retry = Retry { max: 2, percent: 20 };
        for (under_way, in_flight, expect) in
            [(0, 0, true), (2, 1, true), (3, 1, false), (19, 100, true), (20, 100, false)]
        {
            assert_eq!(retry.allows(under_way, in_flight), expect, "{under_way} of {in_flight}");
        }
    }

    #[test]
    fn a_bound_of_requests_bounds_connections_and_the_line() {
        let breaker = |connections_max, pending_max, requests_max| Breaker {
            connections_max,
            pending_max,
            requests_max,
        };
        for (bounds, expect) in [
            (breaker(10, 5, 100), (10, 5)),
            (breaker(10, 5, 12), (10, 2)),
            (breaker(10, 5, 4), (4, 0)),
        ] {
            assert_eq!((bounds.served_max(), bounds.waiting_max()), expect, "{bounds:?}");
        }
    }
}
