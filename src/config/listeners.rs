//! Where the data plane listens: `proxy.listen` and `[[proxy.listeners]]`.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::networks::Networks;
use crate::config::reader::Reader;
use crate::config::sections::address;
use crate::config::tls::{Offered, TlsConfig, TlsFault, TlsFiles, TlsVersion};

/// Certificates of one listener at most.
const CERTIFICATES_MAX: usize = 1_000;

/// One address and what comes before HTTP there.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// The address.
    pub address: SocketAddr,
    /// Connections from these networks begin with a PROXY protocol header; others must not.
    pub proxy_protocol_from: Networks,
    /// Its certificates; `None` is plain text.
    pub tls: Option<TlsConfig>,
}

/// `listen` stands for plain listeners, and has a default where there are no others.
pub(super) fn read(r: &mut Reader<'_>, folder: &Path) -> Vec<ListenerConfig> {
    let given = r.texts("listen");
    let others = r.sections("listeners", |r| one(r, folder));
    let texts = match given {
        Some(texts) => texts,
        None if others.is_empty() => vec![("listen".to_owned(), "127.0.0.1:8080".to_owned())],
        None => Vec::new(),
    };
    if texts.is_empty() && others.is_empty() {
        r.fault("listen", "must name at least one address");
    }
    let plain = texts.iter().filter_map(|(key, text)| address(r, key, text));
    let plain = plain.map(|address| ListenerConfig {
        address,
        proxy_protocol_from: Networks::default(),
        tls: None,
    });
    plain.chain(others).collect()
}

fn one(r: &mut Reader<'_>, folder: &Path) -> Option<ListenerConfig> {
    if !r.has("listen") {
        r.fault("listen", "is missing");
    }
    let at = r.text("listen").and_then(|text| address(r, "listen", &text));
    let proxy_protocol_from = r.networks("proxy_protocol_from");
    let tls = tls(r, folder, Offered::Both);
    Some(ListenerConfig { address: at?, proxy_protocol_from, tls })
}

/// `certificates`, `keys` and `tls_version_min`.
pub(super) fn tls(r: &mut Reader<'_>, folder: &Path, http: Offered) -> Option<TlsConfig> {
    let versions = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
    let version_min = r.word("tls_version_min", &versions, TlsVersion::V1_2);
    let certificates = r.texts("certificates").unwrap_or_default();
    let keys = r.texts("keys").unwrap_or_default();
    if certificates.is_empty() && keys.is_empty() {
        return None;
    }
    if certificates.len() != keys.len() || CERTIFICATES_MAX < keys.len() {
        let counts = (certificates.len(), keys.len());
        let what = format!("must be as many as certificates, at most {CERTIFICATES_MAX}");
        r.fault("keys", format!("{what}: {} for {}", counts.1, counts.0));
        return None;
    }
    let path = |(_, name): (String, String)| folder.join(name);
    let pairs = certificates.into_iter().map(path).zip(keys.into_iter().map(path)).collect();
    let files = TlsFiles { pairs, version_min, http };
    // Read once here, so that whatever is wrong with the files is found with all other faults.
    match files.load() {
        Ok(usable) => Some(usable),
        Err(faults) => {
            for fault in faults {
                match fault {
                    TlsFault::Certificate(n, what) => r.fault(&format!("certificates[{n}]"), what),
                    TlsFault::Key(n, what) => r.fault(&format!("keys[{n}]"), what),
                }
            }
            None
        }
    }
}
