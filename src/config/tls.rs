//! Certificates and keys: read from files, checked, found by name.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

use crate::domain::api::{UpstreamHttp, UpstreamTls};

/// The certificates of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Files of certificate chains, each with the file of its key. The first is for clients that
    /// name no host, or one that no certificate has.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// The oldest version spoken.
    pub version_min: TlsVersion,
    /// What is offered by ALPN.
    pub http: Offered,
}

/// What a client may choose by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// HTTP/2 and HTTP/1.1.
    Both,
    /// HTTP/1.1.
    One,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2, the oldest that is still safe (RFC 8996).
    V1_2,
    /// 1.3.
    V1_3,
}

/// What is wrong with a file, by its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// A certificate chain.
    Certificate(usize, String),
    /// A key.
    Key(usize, String),
}

impl std::fmt::Display for TlsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certificate(n, what) => write!(f, "certificates[{n}]: {what}"),
            Self::Key(n, what) => write!(f, "keys[{n}]: {what}"),
        }
    }
}

/// Certificates in use.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Where they come from.
    pub files: TlsFiles,
    /// What they make.
    pub config: Arc<ServerConfig>,
    /// What the files were when they were read.
    pub stamps: Vec<Stamp>,
}

/// Tells whether a file is the one that was read: when it changed, its size, which one it is.
pub type Stamp = Option<(SystemTime, u64, u64)>;

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// Everything that is wrong with them. No message holds any of their content.
    pub fn load(&self) -> Result<TlsConfig, Vec<TlsFault>> {
        // Looked at before they are read: what changes meanwhile is read again.
        let stamps = self.stamps();
        let provider = provider();
        let (mut all, mut faults) = (Vec::new(), Vec::new());
        for (n, (certificate, key)) in self.pairs.iter().enumerate() {
            let chain = chain(certificate).map_err(|what| TlsFault::Certificate(n, what));
            let key = private_key(key).map_err(|what| TlsFault::Key(n, what));
            match (chain, key) {
                (Ok(chain), Ok(key)) => match CertifiedKey::from_der(chain, key, &provider) {
                    Ok(certified) => all.push(Arc::new(certified)),
                    Err(error) => faults.push(TlsFault::Key(n, error.to_string())),
                },
                (chain, key) => faults.extend(chain.err().into_iter().chain(key.err())),
            }
        }
        let names = Names::new(all);
        let tickets = ring::Ticketer::new();
        if !faults.is_empty() {
            return Err(faults);
        }
        let versions = versions(self.version_min);
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let config = config.map_err(|error| vec![TlsFault::Certificate(0, error.to_string())])?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(names));
        config.alpn_protocols = match self.http {
            Offered::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Offered::One => vec![b"http/1.1".to_vec()],
        };
        // Resumed without memory here. Without randomness for it there is no resumption.
        if let Ok(ticketer) = tickets {
            config.ticketer = ticketer;
        }
        Ok(TlsConfig { files: self.clone(), config: Arc::new(config), stamps })
    }

    /// What the files are now.
    #[must_use]
    pub fn stamps(&self) -> Vec<Stamp> {
        self.pairs.iter().flat_map(|(own, key)| [stamp(own), stamp(key)]).collect()
    }
}

/// The one provider of cryptography, given wherever one is needed: there is no global state.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A chain of certificates, the own one first.
///
/// # Errors
/// What is wrong with the file.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|_odd| "is not PEM".to_owned())?;
    if chain.is_empty() {
        return Err("has no certificate in it".to_owned());
    }
    Ok(chain)
}

/// The authorities in a file.
///
/// # Errors
/// What is wrong with the file.
pub fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| format!("has an unusable authority: {error}"))?;
    }
    Ok(roots)
}

/// What connections to upstreams are made with.
///
/// # Errors
/// What is wrong with the files.
pub fn client(files: &UpstreamTls, http: UpstreamHttp) -> Result<Arc<ClientConfig>, String> {
    let roots = match &files.ca {
        Some(ca) => roots(Path::new(ca.as_ref()))?,
        None => {
            let mut roots = RootCertStore::empty();
            // One that cannot be read is one that nothing is trusted for.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(ALL_VERSIONS)
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match &files.client {
        None => config.with_no_client_auth(),
        Some((own, key)) => config
            .with_client_auth_cert(chain(Path::new(&**own))?, private_key(Path::new(&**key))?)
            .map_err(|error| error.to_string())?,
    };
    config.alpn_protocols = match http {
        UpstreamHttp::One => vec![b"http/1.1".to_vec()],
        UpstreamHttp::Two => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}

/// What the files for an upstream are now.
#[must_use]
pub fn client_stamps(files: &UpstreamTls) -> Vec<Stamp> {
    let client = files.client.iter().flat_map(|(own, key)| [own, key]);
    files.ca.iter().chain(client).map(|path| stamp(Path::new(&**path))).collect()
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

/// A key, in PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// What is wrong with the file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_odd| "has no private key in it".to_owned())
}

/// The newest first.
const ALL_VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        TlsVersion::V1_2 => ALL_VERSIONS,
        TlsVersion::V1_3 => ALL_VERSIONS.split_at(1).0,
    }
}

/// Certificates by the names in them.
#[derive(Debug)]
struct Names {
    /// Lower case; `*.` stands before the names of a wildcard.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
}

impl Names {
    fn new(all: Vec<Arc<CertifiedKey>>) -> Self {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for certified in &all {
            let names = certified.cert.first().and_then(|own| {
                let own = webpki::EndEntityCert::try_from(own).ok()?;
                Some(own.valid_dns_names().map(str::to_ascii_lowercase).collect::<Vec<_>>())
            });
            for name in names.unwrap_or_default() {
                by_name.entry(name).or_default().push(Arc::clone(certified));
            }
        }
        Self { by_name, first: all.into_iter().take(1).collect() }
    }

    /// The certificates for a name: those that have it, those of its wildcard, the first.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let wildcard = || {
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&format!("*.{parent}"))
            };
            self.by_name.get(name).or_else(wildcard)
        });
        found.map_or(&self.first, Vec::as_slice)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        let candidates = self.of(hello.server_name());
        let usable = |certified: &&Arc<CertifiedKey>| {
            certified.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        candidates.iter().find(usable).or(candidates.first()).cloned()
    }
}
