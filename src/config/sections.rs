//! The sections of the file and their defaults.

use std::net::SocketAddr;
use std::path::Path;

use toml::Table;

use crate::config::reader::Reader;
use crate::config::tls::Offered;
use crate::config::{
    AccessLog, AdminConfig, AuthConfig, Config, Fault, Fixed, LogConfig, OpsConfig, PoliciesConfig,
    PortalConfig, ProxyConfig, apis, listeners, store,
};
use crate::domain::policy::{FailureMode, QuotaScope};
use crate::domain::seal::Reveal;
use crate::domain::token::Token;

/// The shortest admin secret, in characters.
const SECRET_LEN_MIN: usize = 16;
/// An hour, in milliseconds: no deadline is longer.
pub(super) const HOUR_MS: u64 = 3_600_000;

pub(super) fn read(table: Table, folder: &Path, faults: &mut Vec<Fault>) -> Option<Config> {
    let fixed = Fixed::of(&table);
    let mut top = Reader::new("", table, faults);
    let proxy = top.section("proxy", |r| proxy(r, folder));
    let admin = top.section("admin", |r| admin(r, folder));
    let ops = top.section("ops", |r| ops(r, folder));
    let store = top.section("store", |r| store::read(r, folder));
    let auth = top.section("auth", auth);
    let policies = top.section("policies", policies);
    let portal = top.section("portal", portal);
    let log = top.section("log", |r| log(r, folder));
    let apis = apis::read(&mut top, folder);
    top.finish();
    Some(Config { proxy, admin: admin?, ops, store, auth, policies, portal, log, apis, fixed })
}

fn proxy(r: &mut Reader<'_>, folder: &Path) -> ProxyConfig {
    let listeners = listeners::read(r, folder);
    let threads = r.size("threads", 0, 0..=1_024);
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let requests_max = r.number("requests_max", 10_000, 1..=1_000_000);
    let streams_max = r.number("http2_streams_max", 100, 1..=10_000);
    ProxyConfig {
        listeners,
        threads: if threads == 0 { cores() } else { threads },
        drain_s: r.number("drain_s", 10, 0..=3_600),
        header_bytes_max: r.size("header_bytes_max", 16_384, 8_192..=1_048_576),
        headers_max: r.size("headers_max", 100, 1..=1_000),
        target_bytes_max: r.size("target_bytes_max", 8_192, 64..=65_534),
        connections_max: r.size("connections_max", 10_000, 1..=1_000_000),
        connections_per_address_max: r.size("connections_per_address_max", 0, 0..=1_000_000),
        requests_max: i64::try_from(requests_max).unwrap_or(i64::MAX),
        first_byte_timeout_ms: r.number("first_byte_timeout_ms", 10_000, 10..=HOUR_MS),
        head_timeout_ms: r.number("head_timeout_ms", 10_000, 10..=HOUR_MS),
        keep_alive_ms: r.number("keep_alive_ms", 60_000, 10..=HOUR_MS),
        upstream_idle_max: r.size("upstream_idle_max", 256, 0..=100_000),
        resolve_every_ms: r.number("resolve_every_ms", 10_000, 100..=HOUR_MS),
        http2_streams_max: u32::try_from(streams_max).unwrap_or(u32::MAX),
        http2_resets_max: r.number("http2_resets_max", 200, 1..=1_000_000),
        trusted_proxies: r.networks("trusted_proxies"),
        via: via(r),
    }
}

/// A token (RFC 9110, 7.6.3): what a pseudonym may be, without a comment.
fn via(r: &mut Reader<'_>) -> String {
    let name = r.text("via").unwrap_or_else(|| "turnpike".into());
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        r.fault("via", format!("must be letters, digits, - . or _, is \"{name}\""));
    }
    name
}

pub(super) fn address(r: &mut Reader<'_>, key: &str, text: &str) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        r.fault(key, format!("must be an address and port such as 127.0.0.1:8080, is \"{text}\""));
    }
    parsed
}

fn admin(r: &mut Reader<'_>, folder: &Path) -> Option<AdminConfig> {
    let listen = r.text("listen").unwrap_or_else(|| "127.0.0.1:9080".into());
    let listen = address(r, "listen", &listen);
    let tls = listeners::tls(r, folder, Offered::One);
    let inline = r.text("secret").map(|text| ("secret", text));
    let file = r.text("secret_file").filter(|name| !name.is_empty()).map(|name| {
        match std::fs::read_to_string(folder.join(&name)) {
            Ok(text) => Some(("secret_file", text.trim_end().to_owned())),
            Err(error) => {
                r.fault("secret_file", format!("cannot be read: {error}"));
                None
            }
        }
    });
    let (key, secret) = match (inline, file) {
        (Some(_), Some(_)) => {
            r.fault("secret", "give secret or secret_file, not both");
            return None;
        }
        (Some(found), None) | (None, Some(Some(found))) => found,
        (None, Some(None)) => return None,
        (None, None) => {
            r.fault("secret", "is missing: set secret or secret_file; there is no default");
            return None;
        }
    };
    if secret.chars().count() < SECRET_LEN_MIN {
        r.fault(key, format!("must be at least {SECRET_LEN_MIN} characters long"));
        return None;
    }
    if !secret.bytes().all(|b| b.is_ascii_graphic()) {
        r.fault(key, "must be visible ASCII without spaces: it travels in a header");
        return None;
    }
    Some(AdminConfig { listen: listen?, secret: Token::new(secret), tls })
}

fn ops(r: &mut Reader<'_>, folder: &Path) -> OpsConfig {
    let listen = r.text("listen").filter(|text| !text.is_empty());
    let listen = listen.and_then(|text| address(r, "listen", &text));
    OpsConfig { listen, tls: listeners::tls(r, folder, Offered::One) }
}

fn auth(r: &mut Reader<'_>) -> AuthConfig {
    let failures = r.number("failures_per_minute_max", 600, 1..=1_000_000);
    AuthConfig {
        credentials_max: r.size("credentials_max", 100_000, 16..=100_000_000),
        unknown_max: r.size("unknown_max", 100_000, 16..=100_000_000),
        failures_per_minute_max: u32::try_from(failures).unwrap_or(u32::MAX),
    }
}

fn policies(r: &mut Reader<'_>) -> PoliciesConfig {
    let tyk_parity = r.flag("tyk_parity", false);
    let (scope, status) =
        if tyk_parity { (QuotaScope::Product, 403) } else { (QuotaScope::Credential, 429) };
    let status = r.number("quota_exceeded_status", status, 400..=499);
    if status != 403 && status != 429 {
        r.fault("quota_exceeded_status", format!("must be 429 or 403, is {status}"));
    }
    PoliciesConfig {
        tyk_parity,
        quota_scope: r.word("quota_scope", QUOTA_SCOPES, scope),
        quota_exceeded_status: u16::try_from(status).unwrap_or(429),
        on_store_unavailable: r.word(
            "on_store_unavailable",
            &[
                ("local", FailureMode::Local),
                ("closed", FailureMode::Closed),
                ("open", FailureMode::Open),
            ],
            FailureMode::Local,
        ),
    }
}

const QUOTA_SCOPES: &[(&str, QuotaScope)] = &[
    ("credential", QuotaScope::Credential),
    ("product", QuotaScope::Product),
    ("api", QuotaScope::Api),
    ("app", QuotaScope::App),
    ("developer", QuotaScope::Developer),
    ("organisation", QuotaScope::Organisation),
];

fn portal(r: &mut Reader<'_>) -> PortalConfig {
    let words = [("always", Reveal::Always), ("once", Reveal::Once)];
    PortalConfig { reveal: r.word("reveal", &words, Reveal::default()) }
}

fn log(r: &mut Reader<'_>, folder: &Path) -> LogConfig {
    let filter = r.text("filter").unwrap_or_else(|| "info".into());
    if let Err(error) = filter.parse::<tracing_subscriber::EnvFilter>() {
        r.fault("filter", format!("is not a log filter: {error}"));
    }
    let access = match r.text("access").as_deref() {
        None | Some("stderr") => AccessLog::Stderr,
        Some("off") => AccessLog::Off,
        Some("") => {
            r.fault("access", "must be \"stderr\", \"off\" or a file");
            AccessLog::Off
        }
        Some(file) => AccessLog::File(folder.join(file)),
    };
    LogConfig { filter, access }
}
