//! Targets, and how requests are spread over them.

use std::sync::Arc;

use crate::config::apis::header;
use crate::config::reader::Reader;
use crate::config::sections::HOUR_MS;
use crate::domain::api::{
    Balance, Breaker, Ejection, Health, Retry, Target, Timeouts, UpstreamRules,
};

/// Targets of one API at most.
const TARGETS_MAX: usize = 256;
/// The heaviest weight: what is finer than a hundredth, nobody notices.
const WEIGHT_MAX: u64 = 100;
/// Bounds of one target, at most: more connections than one address has ports are not possible.
const IN_FLIGHT_MAX: u64 = 65_535;

pub(super) fn targets(r: &mut Reader<'_>) -> Vec<Target> {
    let weights = r.numbers("weights", 1..=WEIGHT_MAX).unwrap_or_default();
    let Some(texts) = r.texts("targets") else {
        if !r.has("targets") {
            r.fault("targets", "is missing: name at least one upstream");
        }
        return Vec::new();
    };
    if texts.is_empty() || TARGETS_MAX < texts.len() {
        r.fault("targets", format!("must name 1 to {TARGETS_MAX} upstreams"));
    }
    if !weights.is_empty() && weights.len() != texts.len() {
        let what = format!("must be one for each of the {} targets, or none", texts.len());
        r.fault("weights", what);
    }
    let mut weights = weights.into_iter();
    let mut weight = || weights.next().and_then(|weight| u16::try_from(weight).ok()).unwrap_or(1);
    texts.iter().filter_map(|(key, text)| target(r, key, text, weight())).collect()
}

fn target(r: &mut Reader<'_>, key: &str, text: &str, weight: u16) -> Option<Target> {
    let parsed = text.parse::<http::Uri>().ok().and_then(|uri| {
        let authority = uri.authority()?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return None,
        };
        let plain = uri.query().is_none()
            && !authority.as_str().contains('@')
            && !authority.host().is_empty();
        let authority = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None => format!("{}:{port}", authority.host()),
        };
        let base_path = uri.path().trim_end_matches('/');
        let (authority, base_path) = (authority.into(), base_path.into());
        plain.then_some(Target { tls, authority, base_path, weight })
    });
    if parsed.is_none() {
        r.fault(key, format!("must be a URL such as http://127.0.0.1:9000, is \"{text}\""));
    }
    parsed
}

pub(super) fn timeouts(r: &mut Reader<'_>) -> Timeouts {
    Timeouts {
        connect_ms: r.number("connect_timeout_ms", 2_000, 1..=HOUR_MS),
        first_byte_ms: r.number("first_byte_timeout_ms", 30_000, 1..=HOUR_MS),
        idle_ms: r.number("idle_timeout_ms", 60_000, 1..=HOUR_MS),
    }
}

pub(super) fn rules(r: &mut Reader<'_>) -> UpstreamRules {
    UpstreamRules {
        balance: balance(r),
        health: r.section("health", health),
        ejection: r.section("ejection", ejection),
        retry: r.section("retry", retry),
        breaker: r.section("breaker", breaker),
    }
}

fn balance(r: &mut Reader<'_>) -> Balance {
    #[derive(Clone, Copy, PartialEq)]
    enum By {
        Turn,
        Credential,
        Client,
        Header,
    }
    let words = [
        ("turn", By::Turn),
        ("credential", By::Credential),
        ("client", By::Client),
        ("header", By::Header),
    ];
    let by = r.word("balance", &words, By::Turn);
    let name = header(r, "balance_header");
    match (by, name) {
        (By::Turn, None) => Balance::Turn,
        (By::Credential, None) => Balance::Credential,
        (By::Client, None) => Balance::Client,
        (By::Header, Some(name)) => Balance::Header(name),
        (By::Header, None) => {
            r.fault("balance_header", "is missing: name the header to balance by");
            Balance::Turn
        }
        (_, Some(_)) => {
            r.fault("balance_header", "is only read with balance = \"header\"");
            Balance::Turn
        }
    }
}

fn health(r: &mut Reader<'_>) -> Health {
    let default = Health::default();
    let path = r.text("path").filter(|path| !path.is_empty());
    let plain =
        |path: &String| path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
    if path.as_ref().is_some_and(|path| !plain(path)) {
        r.fault("path", "must be a path such as /health");
    }
    Health {
        every_ms: r.number("every_ms", default.every_ms, 0..=HOUR_MS),
        timeout_ms: r.number("timeout_ms", default.timeout_ms, 1..=HOUR_MS),
        path: path.map(Arc::from),
        rise: r.count("rise", default.rise, 1..=1_000),
        fall: r.count("fall", default.fall, 1..=1_000),
    }
}

fn ejection(r: &mut Reader<'_>) -> Ejection {
    let default = Ejection::default();
    let base_ms = r.number("base_ms", default.base_ms, 1..=HOUR_MS);
    let max_ms = r.number("max_ms", default.max_ms.max(base_ms), 1..=HOUR_MS);
    if max_ms < base_ms {
        r.fault("max_ms", format!("must be at least base_ms, which is {base_ms}"));
    }
    Ejection {
        failures: r.count("failures", default.failures, 0..=1_000_000),
        base_ms,
        max_ms,
        share_percent: r.count("share_percent", default.share_percent, 0..=100),
    }
}

fn retry(r: &mut Reader<'_>) -> Retry {
    let default = Retry::default();
    Retry {
        max: r.count("max", default.max, 0..=10),
        percent: r.count("percent", default.percent, 0..=100),
    }
}

fn breaker(r: &mut Reader<'_>) -> Breaker {
    let default = Breaker::default();
    Breaker {
        connections_max: r.count("connections_max", default.connections_max, 1..=IN_FLIGHT_MAX),
        pending_max: r.count("pending_max", default.pending_max, 0..=IN_FLIGHT_MAX),
        requests_max: r.count("requests_max", default.requests_max, 1..=IN_FLIGHT_MAX),
    }
}
