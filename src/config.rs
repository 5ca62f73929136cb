//! The configuration: as written, checked, and the truth that the rest of the program works from.
//!
//! Reading collects every fault with its key path before it gives up. Unknown keys are faults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::api::Api;
use crate::domain::policy::{FailureMode, QuotaScope};
use crate::domain::seal::Reveal;
use crate::domain::token::Token;
#[cfg(feature = "redis")]
use crate::store::redis::RedisOptions;

mod apis;
mod certificates;
mod client_tls;
mod fixed;
mod listeners;
mod networks;
mod overrides;
mod reader;
mod sections;
mod store;
#[cfg(test)]
mod tests;
pub mod tls;

pub use certificates::Certificates;
pub use fixed::Fixed;
pub use listeners::ListenerConfig;
pub use networks::Networks;
pub use overrides::Overrides;
pub use tls::{Stamp, TlsConfig, TlsFault, TlsFiles, TlsVersion};

/// The checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The data plane.
    pub proxy: ProxyConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// Metrics and health on an address of their own.
    pub ops: OpsConfig,
    /// Where records and counters live.
    pub store: StoreConfig,
    /// How tokens are looked up.
    pub auth: AuthConfig,
    /// How policies are merged and refusals answered.
    pub policies: PoliciesConfig,
    /// The portal's API.
    pub portal: PortalConfig,
    /// Logs.
    pub log: LogConfig,
    /// The APIs of the file.
    pub apis: Vec<Api>,
    /// What of it cannot change while the gateway runs.
    pub fixed: Fixed,
}

/// `[proxy]`
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where to listen: the plain addresses first, then the listeners with settings of their own.
    pub listeners: Vec<ListenerConfig>,
    /// Worker threads.
    pub threads: usize,
    /// How long requests in flight may take after SIGTERM, in seconds.
    pub drain_s: u64,
    /// Largest request head, in bytes.
    pub header_bytes_max: usize,
    /// Most header fields in a request.
    pub headers_max: usize,
    /// Longest request-target, in bytes.
    pub target_bytes_max: usize,
    /// Most connections at once.
    pub connections_max: usize,
    /// Most connections of one client address; 0: no bound but that of all.
    pub connections_per_address_max: usize,
    /// Most requests under way; further ones are answered with 503.
    pub requests_max: i64,
    /// From accept to the first byte of HTTP, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// From the first byte of a request to the end of its head, in milliseconds.
    pub head_timeout_ms: u64,
    /// A connection without a request for so long is closed, in milliseconds.
    pub keep_alive_ms: u64,
    /// Idle connections kept to one upstream.
    pub upstream_idle_max: usize,
    /// How often the names of targets are resolved, in milliseconds.
    pub resolve_every_ms: u64,
    /// HTTP/2: streams at once on one connection.
    pub http2_streams_max: u32,
    /// HTTP/2: streams that a client may reset in ten seconds.
    pub http2_resets_max: u64,
    /// Proxies that are believed what they say of their client in `X-Forwarded-For`.
    pub trusted_proxies: Networks,
    /// What the gateway calls itself in `Via`; empty: nothing.
    pub via: String,
}

/// `[admin]`
#[derive(Debug)]
pub struct AdminConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// The secret that opens it.
    pub secret: Token,
    /// Its certificates; `None` is plain text.
    pub tls: Option<TlsConfig>,
}

/// `[ops]`
#[derive(Clone, Debug)]
pub struct OpsConfig {
    /// Address to listen on; `None`: the admin listener's only.
    pub listen: Option<SocketAddr>,
    /// Its certificates; `None` is plain text.
    pub tls: Option<TlsConfig>,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which store.
    pub kind: StoreKind,
    /// The folder of the embedded store; beside Redis, of this gateway's own state.
    pub path: PathBuf,
    /// How often the journal is made safe against power loss, in milliseconds; 0: before every
    /// answer.
    pub fsync_ms: u64,
    /// How long a request waits for the store, in milliseconds.
    pub timeout_ms: u64,
    /// Where the pepper is; `None`: made once and kept in the store.
    pub pepper_file: Option<PathBuf>,
}

impl StoreConfig {
    /// Where a gateway keeps what it needs while a shared store is away.
    #[must_use]
    pub fn state_folder(&self) -> Option<&Path> {
        match &self.kind {
            StoreKind::Embedded => None,
            #[cfg(feature = "redis")]
            StoreKind::Redis(_) => Some(&self.path),
        }
    }
}

/// Which store, and what only that one needs.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// Files on this machine.
    Embedded,
    /// A server that several gateways share.
    #[cfg(feature = "redis")]
    Redis(RedisOptions),
}

impl StoreKind {
    /// Whether only one process at a time can have it open.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::Embedded => true,
            #[cfg(feature = "redis")]
            Self::Redis(_) => false,
        }
    }
}

/// `[auth]`
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Credentials kept in memory.
    pub credentials_max: usize,
    /// Unknown tokens remembered.
    pub unknown_max: usize,
    /// Unknown tokens one address may send in a minute before it is refused without a look-up.
    pub failures_per_minute_max: u32,
}

/// `[policies]`
#[derive(Clone, Debug)]
pub struct PoliciesConfig {
    /// Tyk's merge results, statuses, scope and bodies.
    pub tyk_parity: bool,
    /// Where a plan names none.
    pub quota_scope: QuotaScope,
    /// 429, or 403 as Tyk does.
    pub quota_exceeded_status: u16,
    /// Where a plan names none.
    pub on_store_unavailable: FailureMode,
}

/// `[portal]`
#[derive(Clone, Copy, Debug)]
pub struct PortalConfig {
    /// How often a generated token is shown.
    pub reveal: Reveal,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A filter such as `info` or `turnpike=debug`.
    pub filter: String,
    /// Where the access log goes.
    pub access: AccessLog,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard error, among the other logs.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `proxy.listen[1]` or `apis[0].targets`.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] std::io::Error),
    /// It is not TOML.
    #[error("the file is not TOML: {0}")]
    Syntax(String),
    /// Its values are wrong; every fault is named.
    #[error("{} faults", .0.len())]
    Faults(Vec<Fault>),
}

impl Config {
    /// Reads a text. Relative paths start at `folder`.
    ///
    /// # Errors
    /// When the text is not TOML or has faults: all of them at once.
    pub fn parse(
        text: &str,
        folder: &std::path::Path,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        // The parser's own message would quote the line, and the line may hold a secret.
        let mut table: toml::Table = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|b| *b == b'\n').count().saturating_add(1);
            ConfigError::Syntax(format!("line {line}: {}", error.message()))
        })?;
        let mut faults = Vec::new();
        overrides.apply(&mut table, &mut faults);
        let config = sections::read(table, folder, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigError::Faults(faults)),
        }
    }

    /// The API table that the proxy starts with.
    #[must_use]
    pub fn shared_apis(&self) -> Vec<Arc<Api>> {
        self.apis.iter().cloned().map(Arc::new).collect()
    }
}
