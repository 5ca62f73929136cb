//! How an upstream is spoken to: in TLS or not, HTTP/1.1 or HTTP/2.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::tls::{self, Stamp};
use crate::domain::api::{UpstreamHttp, UpstreamTls};
use crate::proxy::downstream::stream::Stream;

/// What connections to one upstream have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct Destination {
    /// Host and port.
    pub(in crate::proxy) authority: Arc<str>,
    /// `None` is plain text.
    pub(in crate::proxy) tls: Option<UpstreamTls>,
    pub(in crate::proxy) http: UpstreamHttp,
}

#[cfg(test)]
impl From<&str> for Destination {
    fn from(authority: &str) -> Self {
        Self { authority: authority.into(), tls: None, http: UpstreamHttp::One }
    }
}

/// Makes of a socket what requests are sent over.
#[derive(Debug)]
pub(super) struct Connector {
    http: UpstreamHttp,
    tls: Option<Secure>,
}

#[derive(Debug)]
struct Secure {
    name: Option<ServerName<'static>>,
    files: UpstreamTls,
    /// None as long as the files cannot be used.
    config: ArcSwapOption<ClientConfig>,
    /// What the files were when they were last read.
    read: Mutex<Vec<Stamp>>,
}

impl Connector {
    pub(super) fn new(to: Destination) -> Self {
        let tls = to.tls.map(|files| {
            let host = to.authority.rsplit_once(':').map_or(&*to.authority, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).ok();
            let (config, read) = (ArcSwapOption::empty(), Mutex::default());
            let secure = Secure { name, files, config, read };
            secure.load(tls::client_stamps(&secure.files), to.http);
            secure
        });
        Self { http: to.http, tls }
    }

    /// Whether requests share a connection.
    pub(super) fn is_shared(&self) -> bool {
        self.http == UpstreamHttp::Two
    }

    /// # Errors
    /// When the upstream cannot show that it is who it has to be, or wants to know who we are, or
    /// does not speak what it has to.
    pub(super) async fn secure(&self, stream: TcpStream) -> io::Result<Stream> {
        let Some(secure) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let unusable = || io::Error::other("the certificates for the upstream cannot be used");
        let config = secure.config.load_full().ok_or_else(unusable)?;
        let name = secure.name.clone().ok_or_else(unusable)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        if self.is_shared() && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the upstream does not speak HTTP/2"));
        }
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// Takes over certificates whose files have changed.
    pub(super) fn refresh(&self) {
        let Some(secure) = &self.tls else { return };
        let now = tls::client_stamps(&secure.files);
        if *secure.read.lock() != now {
            secure.load(now, self.http);
        }
    }
}

impl Secure {
    fn load(&self, stamps: Vec<Stamp>, http: UpstreamHttp) {
        match tls::client(&self.files, http) {
            Ok(config) => self.config.store(Some(config)),
            Err(what) => {
                tracing::warn!(what, "certificates for an upstream cannot be used");
            }
        }
        *self.read.lock() = stamps;
    }
}
