//! What an API speaks beside plain HTTP/1.1: HTTP/2 towards its upstreams, upgrades.

use std::sync::Arc;

use crate::config::reader::Reader;
use crate::domain::api::UpstreamHttp;

/// Protocols to switch to, at most.
const UPGRADES_MAX: usize = 16;

/// `http2`
pub(super) fn http(r: &mut Reader<'_>) -> UpstreamHttp {
    if r.flag("http2", false) { UpstreamHttp::Two } else { UpstreamHttp::One }
}

/// `upgrades`: WebSocket where nothing is said.
pub(super) fn upgrades(r: &mut Reader<'_>, http: UpstreamHttp) -> Vec<Arc<str>> {
    let Some(texts) = r.texts("upgrades") else {
        let default = if http == UpstreamHttp::One { vec!["websocket".into()] } else { Vec::new() };
        return default;
    };
    if http == UpstreamHttp::Two && !texts.is_empty() {
        r.fault("upgrades", "need an upstream that speaks HTTP/1.1: http2 is set");
    }
    if UPGRADES_MAX < texts.len() {
        r.fault("upgrades", format!("must be at most {UPGRADES_MAX}"));
    }
    let mut all = Vec::new();
    for (key, text) in texts {
        let name = text.to_ascii_lowercase();
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b)) {
            r.fault(&key, "must be letters, digits, - . _ or /");
        } else if name == "h2c" || name.starts_with("http/") || name.starts_with("tls/") {
            // Requests inside would pass by every rule.
            r.fault(&key, format!("{name} is never passed on"));
        } else {
            all.push(name.into());
        }
    }
    all
}
