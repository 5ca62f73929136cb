//! What an API speaks beside plain HTTP/1.1: HTTP/2 and TLS towards its upstreams, upgrades.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::reader::Reader;
use crate::config::tls;
use crate::domain::api::{Target, UpstreamHttp, UpstreamTls};

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

/// `upstream_ca`, `upstream_certificate`, `upstream_key`
pub(super) fn tls(r: &mut Reader<'_>, folder: &Path, targets: &[Target]) -> UpstreamTls {
    let mut path = |key: &str| -> Option<Arc<str>> {
        let name = r.text(key).filter(|name| !name.is_empty())?;
        Some(folder.join(name).to_string_lossy().into())
    };
    let (ca, own) = (path("upstream_ca"), path("upstream_certificate"));
    let key = path("upstream_key");
    let unused = !targets.iter().any(|target| target.tls);
    for (name, given) in [
        ("upstream_ca", ca.is_some()),
        ("upstream_certificate", own.is_some()),
        ("upstream_key", key.is_some()),
    ] {
        if given && unused {
            r.fault(name, "is for targets with https://, and there are none");
        }
    }
    if let Some(ca) = &ca {
        match tls::roots(Path::new(ca.as_ref())) {
            Ok(_usable) => {}
            Err(what) => r.fault("upstream_ca", what),
        }
    }
    let client = match (own, key) {
        (None, None) => None,
        (Some(own), Some(key)) => {
            pair(r, &own, &key);
            Some((own, key))
        }
        (Some(_), None) => {
            r.fault("upstream_key", "is missing: upstream_certificate needs it");
            None
        }
        (None, Some(_)) => {
            r.fault("upstream_certificate", "is missing: upstream_key needs it");
            None
        }
    };
    UpstreamTls { ca, client }
}

fn pair(r: &mut Reader<'_>, own: &str, key: &str) {
    match (tls::chain(Path::new(own)), tls::private_key(Path::new(key))) {
        (Ok(chain), Ok(key)) => {
            if let Err(error) = CertifiedKey::from_der(chain, key, &tls::provider()) {
                r.fault("upstream_key", error.to_string());
            }
        }
        (chain, key) => {
            if let Err(what) = chain {
                r.fault("upstream_certificate", what);
            }
            if let Err(what) = key {
                r.fault("upstream_key", what);
            }
        }
    }
}
