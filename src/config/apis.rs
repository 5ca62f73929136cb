//! `[[apis]]`

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::reader::Reader;
use crate::config::sections::HOUR_MS;
use crate::domain::api::{Api, Auth, Cors, Preflight, Target, Timeouts, TokenSources, Versions};
use crate::domain::id::{ApiId, OrgId};
use crate::domain::path::EncodedSlash;
use crate::domain::route::{Host, ListenPath};

/// The organisation of APIs and policies where none is named.
pub(super) const DEFAULT_ORG: &str = "default";
/// Targets of one API at most.
const TARGETS_MAX: usize = 256;

pub(super) fn read(top: &mut Reader<'_>) -> Vec<Api> {
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut n = 0;
    top.sections("apis", |r| {
        let api = one(r);
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

fn one(r: &mut Reader<'_>) -> Option<Api> {
    let id: Option<ApiId> = required(r, "id");
    let org: Option<OrgId> = r.parsed("org").or_else(|| DEFAULT_ORG.parse().ok());
    let name = r.text("name");
    let listen_path: Option<ListenPath> = required(r, "listen_path");
    let targets = targets(r);
    let hosts = hosts(r);
    let auth = auth(r);
    let preflight = r.section("cors", preflight);
    let versions = versions(r);
    let api = Api {
        name: name.unwrap_or_else(|| id.as_ref().map_or(String::new(), ToString::to_string)).into(),
        id: id?,
        org: org?,
        hosts,
        listen_path: listen_path?,
        strip_listen_path: r.flag("strip_listen_path", true),
        targets,
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
        timeouts: Timeouts {
            connect_ms: r.number("connect_timeout_ms", 2_000, 1..=HOUR_MS),
            first_byte_ms: r.number("first_byte_timeout_ms", 30_000, 1..=HOUR_MS),
            idle_ms: r.number("idle_timeout_ms", 60_000, 1..=HOUR_MS),
        },
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

fn targets(r: &mut Reader<'_>) -> Vec<Target> {
    let Some(texts) = r.texts("targets") else {
        if !r.has("targets") {
            r.fault("targets", "is missing: name at least one upstream");
        }
        return Vec::new();
    };
    if texts.is_empty() || TARGETS_MAX < texts.len() {
        r.fault("targets", format!("must name 1 to {TARGETS_MAX} upstreams"));
    }
    texts.iter().filter_map(|(key, text)| target(r, key, text)).collect()
}

fn target(r: &mut Reader<'_>, key: &str, text: &str) -> Option<Target> {
    let parsed = text.parse::<http::Uri>().ok().and_then(|uri| {
        let authority = uri.authority()?;
        let plain = uri.scheme_str() == Some("http")
            && uri.query().is_none()
            && !authority.as_str().contains('@')
            && !authority.host().is_empty();
        let authority = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None => format!("{}:80", authority.host()),
        };
        let base_path = uri.path().trim_end_matches('/');
        plain.then(|| Target { authority: authority.into(), base_path: base_path.into() })
    });
    if parsed.is_none() {
        r.fault(key, format!("must be a URL such as http://127.0.0.1:9000, is \"{text}\""));
    }
    parsed
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

fn preflight(r: &mut Reader<'_>) -> Preflight {
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
    let age = r.number("max_age_s", 600, 0..=86_400);
    match mode {
        Mode::Authenticate => Preflight::Authenticate,
        Mode::Pass => Preflight::Pass,
        Mode::Answer if origins.is_empty() => {
            r.fault("origins", "is missing: name the origins to answer, or \"*\"");
            Preflight::Authenticate
        }
        Mode::Answer => {
            let max_age_s = u32::try_from(age).unwrap_or(u32::MAX);
            Preflight::Answer(Cors { origins, methods, headers, max_age_s })
        }
    }
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
