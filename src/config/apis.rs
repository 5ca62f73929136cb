//! `[[apis]]`

mod exchange;
mod protocols;
mod upstream;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::client_tls;
use crate::config::reader::Reader;
use crate::domain::api::{
    Api, Auth, BODY_RATE_MIN, Target, TokenSources, UpstreamHttp, UpstreamTls, Versions,
};
use crate::domain::id::{ApiId, OrgId};
use crate::domain::path::EncodedSlash;
use crate::domain::route::{Host, ListenPath};

/// The organisation of APIs and policies where none is named.
pub(super) const DEFAULT_ORG: &str = "default";
/// The largest request body that is waited for, in bytes: nginx' and HAProxy's buffers of 16 KiB.
const BODY_BUFFER_BYTES: u64 = 16 * 1024;
/// What `https://` needs.
const UPSTREAM_TLS: client_tls::Keys = client_tls::Keys {
    ca: "upstream_ca",
    certificate: "upstream_certificate",
    key: "upstream_key",
};

pub(super) fn read(top: &mut Reader<'_>, folder: &Path) -> Vec<Api> {
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut n = 0;
    top.sections("apis", |r| {
        let api = one(r, folder);
        if let Some(api) = &api {
            if let Some(first) = ids.insert(api.id.to_string(), n) {
                r.fault("id", format!("is the id of apis[{first}] too"));
            }
            let mut hosts: Vec<&str> = api.hosts.iter().map(Host::as_str).collect();
            if hosts.is_empty() {
                hosts.push("");
            }
            for host in hosts {
                let place = (host.to_owned(), api.listen_path.to_string());
                if let Some(first) = places.insert(place, n) {
                    r.fault("listen_path", format!("apis[{first}] listens there too"));
                }
            }
        }
        n = n.saturating_add(1);
        api
    })
}

fn one(r: &mut Reader<'_>, folder: &Path) -> Option<Api> {
    let id: Option<ApiId> = required(r, "id");
    let org: Option<OrgId> = r.parsed("org").or_else(|| DEFAULT_ORG.parse().ok());
    let name = r.text("name");
    let listen_path: Option<ListenPath> = required(r, "listen_path");
    let targets = upstream::targets(r);
    let hosts = hosts(r);
    let auth = auth(r);
    let preflight = r.section("cors", exchange::preflight);
    let versions = versions(r);
    let upstream_http = protocols::http(r);
    let upgrades = protocols::upgrades(r, upstream_http);
    let upstream_tls = upstream_tls(r, folder, &targets);
    // Streams of messages come over HTTP/2, and may be silent for long.
    let rate_min = if upstream_http == UpstreamHttp::Two { 0 } else { BODY_RATE_MIN };
    let api = Api {
        name: name.unwrap_or_else(|| id.as_ref().map_or(String::new(), ToString::to_string)).into(),
        id: id?,
        org: org?,
        hosts,
        listen_path: listen_path?,
        strip_listen_path: r.flag("strip_listen_path", true),
        targets,
        upstream: upstream::rules(r),
        exchange: exchange::rules(r),
        auth,
        strip_credentials: r.flag("strip_credentials", true),
        encoded_slash: if r.flag("keep_encoded_slash", false) {
            EncodedSlash::Keep
        } else {
            EncodedSlash::Refuse
        },
        preserve_host: r.flag("preserve_host", false),
        preflight,
        versions,
        limit_headers: r.flag("limit_headers", true),
        identity_headers: r.flag("identity_headers", false),
        body_bytes_max: r.number("body_bytes_max", 10 * 1024 * 1024, 0..=1 << 40),
        body_buffer_bytes: r.number("body_buffer_bytes", BODY_BUFFER_BYTES, 0..=1 << 20),
        body_rate_min: r.number("body_rate_min", rate_min, 0..=1 << 30),
        upgrades,
        upstream_http,
        upstream_tls,
        timeouts: upstream::timeouts(r),
        shadow: r.flag("shadow", false),
    };
    Some(api)
}

fn required<T>(r: &mut Reader<'_>, key: &str) -> Option<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if !r.has(key) {
        r.fault(key, "is missing");
    }
    r.parsed(key)
}

fn upstream_tls(r: &mut Reader<'_>, folder: &Path, targets: &[Target]) -> UpstreamTls {
    let plain = !targets.iter().any(|target| target.tls);
    client_tls::read(r, folder, &UPSTREAM_TLS, plain.then_some("targets with https://"))
}

fn hosts(r: &mut Reader<'_>) -> Vec<Host> {
    let texts = r.texts("hosts").unwrap_or_default();
    texts.iter().filter_map(|(key, text)| r.parse(key, text)).collect()
}

fn header(r: &mut Reader<'_>, key: &str) -> Option<Arc<str>> {
    let text = r.text(key).filter(|text| !text.is_empty())?;
    match http::HeaderName::try_from(text.as_str()) {
        Ok(name) => Some(name.as_str().into()),
        Err(_) => {
            r.fault(key, format!("must be a header name, is \"{text}\""));
            None
        }
    }
}

fn auth(r: &mut Reader<'_>) -> Auth {
    let word = |r: &mut Reader<'_>, key: &str| -> Option<Arc<str>> {
        let text = r.text(key).filter(|text| !text.is_empty())?;
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Some(text.into());
        }
        r.fault(key, format!("must be letters, digits, - _ or ., is \"{text}\""));
        None
    };
    let keyless = r.flag("keyless", false);
    let sources = TokenSources {
        authorization: r.flag("auth_authorization", true),
        x_api_key: r.flag("auth_x_api_key", true),
        header: header(r, "auth_header"),
        query: word(r, "auth_query"),
        cookie: word(r, "auth_cookie"),
    };
    if keyless {
        return Auth::Keyless;
    }
    let none = !sources.authorization
        && !sources.x_api_key
        && sources.header.is_none()
        && sources.query.is_none()
        && sources.cookie.is_none();
    if none {
        r.fault("keyless", "no place is left to read a token from: set keyless to mean that");
    }
    Auth::Token(sources)
}

fn versions(r: &mut Reader<'_>) -> Option<Versions> {
    let header = header(r, "version_header");
    let known: Vec<Arc<str>> =
        r.texts("versions").unwrap_or_default().into_iter().map(|(_, v)| v.into()).collect();
    let default = r.text("default_version").filter(|text| !text.is_empty());
    let default: Option<Arc<str>> = default.map(Into::into);
    if let Some(default) = &default
        && !known.contains(default)
    {
        r.fault("default_version", "is not among versions");
    }
    match (header, known.is_empty()) {
        (Some(header), false) => Some(Versions { header, known, default }),
        (None, true) => None,
        (Some(_), true) => {
            r.fault("versions", "is missing: version_header needs it");
            None
        }
        (None, false) => {
            r.fault("version_header", "is missing: versions needs it");
            None
        }
    }
}
