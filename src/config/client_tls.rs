//! The files that connections by TLS are made with: to upstreams, and to Redis.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::reader::Reader;
use crate::config::tls;
use crate::domain::api::UpstreamTls;

/// The keys that name them.
pub(super) struct Keys {
    pub(super) ca: &'static str,
    pub(super) certificate: &'static str,
    pub(super) key: &'static str,
}

/// Reads the keys, and each file once, so that whatever is wrong with it is found with all other
/// faults. `unused`: what they would be for, where there is no such thing.
pub(super) fn read(
    r: &mut Reader<'_>,
    folder: &Path,
    keys: &Keys,
    unused: Option<&str>,
) -> UpstreamTls {
    let mut path = |key: &str| -> Option<Arc<str>> {
        let name = r.text(key).filter(|name| !name.is_empty())?;
        Some(folder.join(name).to_string_lossy().into())
    };
    let (ca, own) = (path(keys.ca), path(keys.certificate));
    let key = path(keys.key);
    let given =
        [(keys.ca, ca.is_some()), (keys.certificate, own.is_some()), (keys.key, key.is_some())];
    for (name, _) in given.into_iter().filter(|(_, given)| *given) {
        if let Some(purpose) = unused {
            r.fault(name, format!("is for {purpose}, and there are none"));
        }
    }
    if let Some(ca) = &ca
        && let Err(what) = tls::roots(Path::new(ca.as_ref()))
    {
        r.fault(keys.ca, what);
    }
    let client = match (own, key) {
        (None, None) => None,
        (Some(own), Some(key)) => {
            pair(r, keys, (&own, &key));
            Some((own, key))
        }
        (Some(_), None) => {
            r.fault(keys.key, format!("is missing: {} needs it", keys.certificate));
            None
        }
        (None, Some(_)) => {
            r.fault(keys.certificate, format!("is missing: {} needs it", keys.key));
            None
        }
    };
    UpstreamTls { ca, client }
}

fn pair(r: &mut Reader<'_>, keys: &Keys, (own, key): (&str, &str)) {
    match (tls::chain(Path::new(own)), tls::private_key(Path::new(key))) {
        (Ok(chain), Ok(key)) => {
            if let Err(error) = CertifiedKey::from_der(chain, key, &tls::provider()) {
                r.fault(keys.key, error.to_string());
            }
        }
        (chain, key) => {
            if let Err(what) = chain {
                r.fault(keys.certificate, what);
            }
            if let Err(what) = key {
                r.fault(keys.key, what);
            }
        }
    }
}
