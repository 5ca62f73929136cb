//! What comes before HTTP on a connection: the PROXY protocol, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use crate::config::{Certificates, ListenerConfig, Networks};
use crate::proxy::downstream::proxy_protocol;
use crate::proxy::downstream::stream::Stream;

/// One listener's way in. Shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct Door {
    proxied_from: Networks,
    tls: Option<Certificates>,
}

/// A connection that came in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: Stream,
    /// Who is at the other end, as far as can be trusted.
    pub(crate) client: IpAddr,
    pub(crate) spoken: Spoken,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.1, by ALPN.
    Http1,
    /// HTTP/2, by ALPN.
    Http2,
    /// Nothing: the client's first bytes tell.
    Unknown,
}

impl Door {
    pub(crate) fn new(config: &ListenerConfig) -> Self {
        let tls = config.tls.as_ref().map(Certificates::new);
        Self { proxied_from: config.proxy_protocol_from.clone(), tls }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Lets a connection in. Without a deadline: the caller has one.
    ///
    /// # Errors
    /// When the client does not do what is expected here.
    pub(crate) async fn enter(&self, mut tcp: TcpStream, peer: SocketAddr) -> io::Result<Arrival> {
        let mut client = peer.ip().to_canonical();
        if self.proxied_from.contains(client)
            && let Some(told) = proxy_protocol::read(&mut tcp).await?
        {
            client = told.to_canonical();
        }
        let Some(certificates) = &self.tls else {
            return Ok(Arrival { stream: Stream::Plain(tcp), client, spoken: Spoken::Unknown });
        };
        let stream = certificates.acceptor().accept(tcp).await?;
        let spoken = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Spoken::Http2,
            Some(_) => Spoken::Http1,
            None => Spoken::Unknown,
        };
        Ok(Arrival { stream: Stream::Tls(Box::new(stream.into())), client, spoken })
    }

    /// Takes over certificates whose files have changed, and says whether they could be used; those
    /// from before stay otherwise.
    pub(crate) fn refresh(&self) -> Option<bool> {
        self.tls.as_ref().and_then(Certificates::refresh)
    }
}
