//! Addresses that are let in, and changes to headers.

use std::sync::Arc;

use crate::config::reader::Reader;
use crate::domain::api::{Cors, ExchangeRules, HeaderRules, Network, Networks, Preflight};

/// Changes to headers of one API and direction at most, of each sort.
const CHANGES_MAX: usize = 64;
/// Networks in one list at most: they are looked through one after the other.
const NETWORKS_MAX: usize = 256;
/// Headers that frame a message or belong to one connection: the gateway's own business.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn rules(r: &mut Reader<'_>) -> ExchangeRules {
    let mut metadata = Vec::new();
    let request = r.section("request_headers", |r| {
        for (key, name, member) in r.pairs("metadata") {
            if member.is_empty() {
                r.fault(&key, "must be the name of a member of the metadata");
            }
            metadata.extend(name_of(r, &key, &name).map(|name| (member.into(), name)));
        }
        headers(r)
    });
    if CHANGES_MAX < metadata.len() {
        r.fault("request_headers.metadata", format!("must be at most {CHANGES_MAX}"));
    }
    let response = r.section("response_headers", headers);
    ExchangeRules {
        request,
        response,
        metadata,
        networks: Networks { allow: networks(r, "allow"), deny: networks(r, "deny") },
    }
}

fn headers(r: &mut Reader<'_>) -> HeaderRules {
    let removed = r.texts("remove").unwrap_or_default();
    let remove: Vec<_> = removed.iter().filter_map(|(key, name)| name_of(r, key, name)).collect();
    if CHANGES_MAX < remove.len() {
        r.fault("remove", format!("must be at most {CHANGES_MAX}"));
    }
    HeaderRules { remove, set: values(r, "set"), add: values(r, "add") }
}

fn values(r: &mut Reader<'_>, key: &str) -> Vec<(Arc<str>, Arc<str>)> {
    let mut all = Vec::new();
    for (key, name, value) in r.pairs(key) {
        if http::HeaderValue::try_from(value.as_str()).is_err() || !value.is_ascii() {
            r.fault(&key, "must be visible ASCII on one line");
        }
        all.extend(name_of(r, &key, &name).map(|name| (name, value.into())));
    }
    if CHANGES_MAX < all.len() {
        r.fault(key, format!("must be at most {CHANGES_MAX}"));
    }
    all
}

fn name_of(r: &mut Reader<'_>, key: &str, text: &str) -> Option<Arc<str>> {
    let Ok(name) = http::HeaderName::try_from(text) else {
        r.fault(key, format!("must be a header name, is \"{text}\""));
        return None;
    };
    if FRAMING.contains(&name.as_str()) {
        r.fault(key, format!("{name} is set by the gateway itself"));
        return None;
    }
    Some(name.as_str().into())
}

fn networks(r: &mut Reader<'_>, key: &str) -> Vec<Network> {
    let texts = r.texts(key).unwrap_or_default();
    if NETWORKS_MAX < texts.len() {
        r.fault(key, format!("must be at most {NETWORKS_MAX} networks"));
    }
    texts.iter().filter_map(|(key, text)| r.parse(key, text)).collect()
}

pub(super) fn preflight(r: &mut Reader<'_>) -> Preflight {
    #[derive(Clone, Copy)]
    enum Mode {
        Authenticate,
        Pass,
        Answer,
    }
    let words =
        [("authenticate", Mode::Authenticate), ("pass", Mode::Pass), ("answer", Mode::Answer)];
    let mode = r.word("preflight", &words, Mode::Authenticate);
    let mut list = |key: &str| -> Vec<Arc<str>> {
        let mut all = Vec::new();
        for (key, text) in r.texts(key).unwrap_or_default() {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
                r.fault(&key, "must be visible ASCII without commas");
            } else {
                all.push(text.into());
            }
        }
        all
    };
    let (origins, methods, headers) = (list("origins"), list("methods"), list("headers"));
    let exposed = list("exposed");
    let credentials = r.flag("credentials", false);
    let age = r.number("max_age_s", 600, 0..=86_400);
    match mode {
        Mode::Authenticate => Preflight::Authenticate,
        Mode::Pass => Preflight::Pass,
        Mode::Answer if origins.is_empty() => {
            r.fault("origins", "is missing: name the origins to answer, or \"*\"");
            Preflight::Authenticate
        }
        Mode::Answer => {
            if credentials && origins.iter().any(|origin| origin.as_ref() == "*") {
                r.fault("credentials", "needs named origins: any page could use them otherwise");
            }
            let max_age_s = u32::try_from(age).unwrap_or(u32::MAX);
            Preflight::Answer(Cors { origins, methods, headers, exposed, credentials, max_age_s })
        }
    }
}
