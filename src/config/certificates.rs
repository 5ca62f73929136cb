//! Certificates that are read again when their files change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::config::tls::{Stamp, TlsConfig, TlsFiles};

/// The certificates of one listener, as its files were when they were last usable.
#[derive(Debug)]
pub struct Certificates {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    /// When and how large the files were when they were last read.
    read: Mutex<Vec<Stamp>>,
}

impl Certificates {
    /// Begins with what was read with the configuration.
    #[must_use]
    pub fn new(tls: &TlsConfig) -> Self {
        Self {
            files: tls.files.clone(),
            current: ArcSwap::from(Arc::clone(&tls.config)),
            read: Mutex::new(tls.stamps.clone()),
        }
    }

    /// Accepts with those that are in force.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Takes over certificates whose files have changed, and says whether they could be used; those
    /// from before stay otherwise.
    pub fn refresh(&self) -> Option<bool> {
        let mut read = self.read.lock();
        let now = self.files.stamps();
        if *read == now {
            return None;
        }
        let loaded = self.files.load();
        *read = now;
        match loaded {
            Ok(loaded) => {
                self.current.store(loaded.config);
                tracing::info!("certificates were read again");
                Some(true)
            }
            Err(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                tracing::warn!(?faults, "changed certificates cannot be used; the old ones stay");
                Some(false)
            }
        }
    }
}
