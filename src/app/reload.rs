//! The configuration, read again: on SIGHUP, and when its file has changed. What can change while
//! the gateway runs is applied as one snapshot; anything else is refused by name, and nothing of
//! the file is applied then.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::signal::unix::{SignalKind, signal};

use crate::catalog::Catalog;
use crate::config::{Config, ConfigError, Fixed, Overrides};
use crate::metrics::{Metrics, Reload};
use crate::telemetry;

/// How often the file is looked at. A change is taken up when the file has been still for as long:
/// who writes it in pieces is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the configuration came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What was in it at the start.
    pub text: String,
    /// What the environment said at the start.
    pub overrides: Overrides,
}

impl Source {
    /// The configuration that this is.
    ///
    /// # Errors
    /// When it is not TOML or has faults.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        Config::parse(&self.text, folder, &self.overrides)
    }
}

/// Watches the file and applies it.
pub(super) struct ReloadService {
    pub(super) source: Source,
    /// What the gateway was started with and cannot change.
    pub(super) fixed: Fixed,
    pub(super) catalog: Arc<Catalog>,
    pub(super) metrics: Arc<Metrics>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// None while there is no file.
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        let modified = (file.mtime(), file.mtime_nsec());
        Some(Self { inode: file.ino(), length: file.len(), modified })
    }
}

#[async_trait]
impl Service for ReloadService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "SIGHUP cannot be watched");
                return;
            }
        };
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut taken_up, mut seen) = (None, None);
        loop {
            let told = tokio::select! {
                heard = hangup.recv() => heard.is_some(),
                _ = every.tick() => false,
            };
            let now = Stamp::of(&self.source.path);
            let still = now == seen;
            seen = now;
            // A file that is gone is about to come back, mostly; SIGHUP says that it should be there.
            if told || (still && now.is_some() && now != taken_up) {
                taken_up = now;
                self.reload(told);
            }
        }
    }

    fn name(&self) -> &'static str {
        "reload"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

impl ReloadService {
    /// Takes the file up, if it is another than before, or if that is asked for.
    fn reload(&mut self, told: bool) {
        let text = std::fs::read_to_string(&self.source.path);
        if !told && text.as_ref().is_ok_and(|text| *text == self.source.text) {
            return;
        }
        let config = text.map_err(ConfigError::Read).and_then(|text| {
            self.source.text = text;
            self.source.config()
        });
        let path = self.source.path.display();
        let outcome = match config {
            Ok(config) => self.apply(&config),
            Err(ConfigError::Faults(faults)) => {
                for fault in &faults {
                    tracing::error!(%path, key = fault.path, what = fault.what, "a fault");
                }
                Reload::Refused
            }
            Err(error @ (ConfigError::Read(_) | ConfigError::Syntax(_))) => {
                tracing::error!(%path, error = telemetry::chain(&error), "no configuration");
                Reload::Refused
            }
        };
        self.metrics.reloaded(outcome);
        match outcome {
            Reload::Refused => tracing::error!(%path, "not reloaded: everything stays as it was"),
            Reload::Unchanged => tracing::info!(%path, "reloaded: nothing has changed"),
            Reload::Applied => {
                let apis = self.catalog.snapshot().apis().count();
                tracing::info!(%path, apis, "reloaded");
            }
        }
    }

    fn apply(&self, config: &Config) -> Reload {
        let keys = self.fixed.differences(&config.fixed);
        for key in &keys {
            tracing::error!(key, "cannot change while the gateway runs: restart or upgrade it");
        }
        if !keys.is_empty() {
            return Reload::Refused;
        }
        match self.catalog.replace_apis(config.shared_apis()) {
            true => Reload::Applied,
            false => Reload::Unchanged,
        }
    }
}
