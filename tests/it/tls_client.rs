use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion, version::TLS12, version::TLS13,
};
use turnpike::config::tls::provider;

/// A certificate of its own authority, with its key.
pub struct Made(CertifiedKey<KeyPair>);

impl Made {
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self(generate_simple_self_signed(names).unwrap())
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.key")), self.0.signing_key.serialize_pem())
            .unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), self.0.cert.pem()).unwrap();
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.0.cert.der().clone()
    }
}

/// What a client offers and trusts.
pub fn client(trusted: &[&Made], alpn: &[&str], tls12: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for made in trusted {
        roots.add(made.der()).unwrap();
    }
    let versions: &[&SupportedProtocolVersion] = if tls12 { &[&TLS12] } else { &[&TLS13] };
    let config =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

pub async fn connect(
    to: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
