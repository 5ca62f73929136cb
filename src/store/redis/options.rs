//! How a store in Redis is reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates,
};

use crate::domain::api::UpstreamTls;
use crate::store::redis::durability::Durability;
use crate::store::redis::fault::RedisFault;

/// How a [`RedisStore`](super::RedisStore) is reached and behaves.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Addresses of one primary, tried in order:
    /// `redis://user:password@host:port/db`, or `rediss:` for TLS. Of several, the first that is a
    /// primary is used.
    pub urls: Vec<String>,
    /// What connections by TLS are made with. The files are read for each, so that renewed ones
    /// hold from the next one on.
    pub tls: UpstreamTls,
    /// What all keys begin with, so that several installations can share a server: 1 to 32
    /// letters, digits, `.`, `_` or `-`.
    pub prefix: String,
    /// How long a call waits for its answer, in milliseconds. Calls of the admin side, which may
    /// be large, wait ten times as long.
    pub timeout_ms: u64,
    /// About how many commits the change feed keeps. A follower further behind than that reads
    /// everything anew.
    pub feed_len: u64,
    /// When a grant may be spent, and a commit is answered.
    pub durability: Durability,
}

impl Default for RedisOptions {
    fn default() -> Self {
        // 10,000 commits are some megabytes, and minutes of the busiest import.
        Self {
            urls: vec![],
            tls: UpstreamTls::default(),
            prefix: "tp".into(),
            timeout_ms: 100,
            feed_len: 10_000,
            durability: Durability::Memory,
        }
    }
}

/// Addresses may hold passwords: only their number is shown.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { urls, tls, prefix, timeout_ms, feed_len, durability } = self;
        f.debug_struct("RedisOptions")
            .field("urls", &urls.len())
            .field("tls", tls)
            .field("prefix", prefix)
            .field("timeout_ms", timeout_ms)
            .field("feed_len", feed_len)
            .field("durability", durability)
            .finish()
    }
}

impl RedisOptions {
    /// What is wrong, each with the field it is in, such as `urls[0]`. Addresses may hold
    /// passwords: nothing of them is shown.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        if self.urls.is_empty() {
            faults.push(("urls".to_owned(), "must name at least one server".to_owned()));
        }
        for (index, url) in self.urls.iter().enumerate() {
            if let Err(reason) = Endpoint::parse(url, &self.tls) {
                faults.push((format!("urls[{index}]"), reason.to_owned()));
            }
        }
        if let Err(fault) = self.checked_prefix() {
            faults.push(("prefix".to_owned(), fault.to_string()));
        }
        faults
    }

    /// Whether an address is one by TLS.
    #[must_use]
    pub fn is_by_tls(url: &str) -> bool {
        url.starts_with("rediss:") || url.starts_with("valkeys:")
    }

    /// The servers the addresses name, in order.
    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, RedisFault> {
        if self.urls.is_empty() {
            return Err(RedisFault::NoUrl);
        }
        let endpoints = self.urls.iter().enumerate().map(|(index, url)| {
            let number = index.saturating_add(1);
            Endpoint::parse(url, &self.tls).map_err(|reason| RedisFault::Url { number, reason })
        });
        endpoints.collect()
    }

    /// The prefix, if it is one that cannot change where a key lies: no braces above all.
    pub(super) fn checked_prefix(&self) -> Result<&str, RedisFault> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let fits = (1..=32).contains(&self.prefix.len()) && self.prefix.bytes().all(allowed);
        if fits { Ok(&self.prefix) } else { Err(RedisFault::Prefix) }
    }

    /// How long a call waits for its answer.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.max(1))
    }
}

/// One server.
pub(super) struct Endpoint {
    /// It holds the password.
    info: ConnectionInfo,
    /// What a connection is made with, if it is by TLS.
    tls: Option<UpstreamTls>,
    /// Host and port, for people.
    pub(super) address: String,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.address).finish()
    }
}

impl Endpoint {
    /// Reads an address; what is wrong otherwise.
    fn parse(url: &str, files: &UpstreamTls) -> Result<Self, &'static str> {
        // The library's words may quote the address, which may hold a password.
        let info = url
            .into_connection_info()
            .map_err(|_may_quote| "must be of the form redis://user:password@host:port/db")?;
        let mut address = info.addr().to_string();
        let mut tls = None;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err("must not end in #insecure: its certificate is always checked");
            }
            ConnectionAddr::TcpTls { host, port, .. } => {
                address = shown(host, *port);
                tls = Some(files.clone());
            }
            ConnectionAddr::Tcp(host, port) => address = shown(host, *port),
            ConnectionAddr::Unix(_) | _ => {}
        }
        Ok(Self { info, tls, address })
    }

    /// What opens connections to it.
    pub(super) fn client(&self) -> Result<Client, RedisFault> {
        let address = || self.address.clone();
        let unusable = |source| RedisFault::Unreachable { address: address(), source };
        let Some(files) = &self.tls else {
            return Client::open(self.info.clone()).map_err(unusable);
        };
        let read = |path: &Arc<str>| {
            std::fs::read(path.as_ref()).map_err(|source| RedisFault::File {
                address: address(),
                path: path.to_string(),
                source,
            })
        };
        let client_tls = files.client.as_ref().map(|(own, key)| {
            Ok(ClientTlsConfig { client_cert: read(own)?, client_key: read(key)? })
        });
        let certificates = TlsCertificates {
            client_tls: client_tls.transpose()?,
            root_cert: files.ca.as_ref().map(read).transpose()?,
        };
        Client::build_with_tls(self.info.clone(), certificates).map_err(unusable)
    }
}

/// An address as a URL has it.
fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        check("redis://127.0.0.1:6379/0", Ok("127.0.0.1:6379"));
        check("redis://turnpike:hunter2@db.example/3", Ok("db.example:6379"));
        check("redis://:hunter2@[::1]:7000", Ok("[::1]:7000"));
        check("valkey://localhost", Ok("localhost:6379"));
        check("rediss://:hunter2@host", Ok("host:6379"));
        check("rediss://:hunter2@[::1]:1/2", Ok("[::1]:1"));
        check("rediss://:hunter2@host/#insecure", Err("always checked"));
        check("http://:hunter2@host", Err("redis://user:password@host:port/db"));
        check("redis://:hunter2@host/hunter2", Err("redis://user:password@host:port/db"));
        check("hunter2", Err("redis://user:password@host:port/db"));
    }

    #[track_caller]
    fn check(url: &str, expect: Result<&str, &str>) {
        let options = RedisOptions { urls: vec![url.into()], ..RedisOptions::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
        match (options.endpoints(), expect) {
            (Ok(endpoints), Ok(address)) => {
                assert_eq!(endpoints[0].address, address);
                assert!(!format!("{endpoints:?}").contains("hunter2"));
            }
            (Err(fault), Err(text)) => {
                let shown = format!("{fault} {fault:?}");
                assert!(shown.contains(text) && shown.contains("number: 1"), "{shown}");
                assert!(!shown.contains("hunter2"), "{shown}");
            }
            (got, _) => panic!("{url}: {got:?}"),
        }
    }

    #[test]
    fn a_prefix_cannot_move_a_key() {
        for (prefix, fits) in [("tp", true), ("a.b-C_9", true), ("", false), ("a{b}", false)] {
            let options = RedisOptions { prefix: prefix.into(), ..RedisOptions::default() };
            assert_eq!(options.checked_prefix().is_ok(), fits, "{prefix}");
        }
        assert!(
            RedisOptions { prefix: "a".repeat(33), ..RedisOptions::default() }
                .checked_prefix()
                .is_err()
        );
    }
}
