//! Following the store: the change feed, and the registry of gateways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;

use crate::app::opening;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::StoreConfig;
use crate::domain::counter::ProcessId;
use crate::enforce::Enforcer;
use crate::metrics::{Following, Metrics};
use crate::store::registry::{Heartbeat, Peer};
use crate::store::{Generation, StoreError};

/// How often this gateway says that it lives: it may miss two before others count it out.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two beats: commits can come by the hundred, and who waits for others to
/// enforce one is in no greater hurry.
const BEAT_PAUSE: Duration = Duration::from_millis(20);
/// The longest name sent, in bytes.
const NAME_LEN_MAX: usize = 128;

/// This run of the gateway among those of its store.
#[derive(Debug)]
pub(super) struct Membership {
    catalog: Arc<Catalog>,
    enforcer: Arc<Enforcer>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    process: ProcessId,
    name: String,
    config: StoreConfig,
    ended: AtomicBool,
}

impl Membership {
    /// `admin` is where people find this gateway.
    pub(super) fn new(
        (catalog, enforcer): (Arc<Catalog>, Arc<Enforcer>),
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        process: ProcessId,
        admin: SocketAddr,
        config: StoreConfig,
    ) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut name = format!("{host}:{}", admin.port());
        name.retain(|c| c.is_ascii_graphic());
        name.truncate(NAME_LEN_MAX);
        Self {
            catalog,
            enforcer,
            metrics,
            clock,
            process,
            name,
            config,
            ended: AtomicBool::new(false),
        }
    }

    /// Says once a second that it lives, and what it enforces as soon as that is more than it said.
    async fn beat(&self) {
        let mut every = tokio::time::interval(BEAT_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut told, mut resyncs) = (Generation::default(), 0);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = self.catalog.until_news(told) => {}
            }
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let applied = self.catalog.applied();
            // Not told again at once when the store does not answer.
            told = applied;
            let own = Heartbeat { process: self.process, name: self.name.clone(), applied };
            match self.catalog.heartbeat(&own).await {
                Ok(peers) => {
                    let live = peers.iter().filter(|peer| peer.is_live());
                    self.enforcer.see_live(live.map(|peer| peer.process).collect());
                }
                Err(error) => {
                    tracing::debug!(%error, "the store was not told that this gateway lives");
                }
            }
            let now = self.catalog.resyncs();
            if now != resyncs && self.refill().await {
                resyncs = now;
            }
            self.publish();
            tokio::time::sleep(BEAT_PAUSE).await;
        }
    }

    /// Sees to a store whose feed had a gap: it may have lost what it had. Whether that is done.
    async fn refill(&self) -> bool {
        let refilled = opening::refill(&self.config, &self.catalog, &*self.clock).await;
        let Err(error) = refilled else { return true };
        let away = opening::is_away(&error);
        if !away {
            let error = crate::telemetry::chain(&error);
            tracing::error!(error, "a store that may have lost its records could not be seen to");
        }
        !away
    }

    fn publish(&self) {
        let catalog = &self.catalog;
        self.metrics.follows(&Following {
            applied: catalog.applied().0,
            lag_ms: catalog.lag_ms(self.clock.boot()).unwrap_or(0),
            resyncs: catalog.resyncs(),
            gateways: catalog.peers().iter().filter(|peer| Peer::is_live(peer)).count(),
            store_up: catalog.store().is_up(),
        });
    }

    /// Signs off: the other gateways do not count on this one any more.
    pub(super) async fn end(&self) -> Result<(), StoreError> {
        self.ended.store(true, Ordering::SeqCst);
        self.catalog.store().sign_off(self.process).await
    }
}

/// Follows and beats, on a thread of its own: no request delays a revocation.
#[derive(Debug)]
pub(super) struct FollowService(pub(super) Arc<Membership>);

#[async_trait]
impl Service for FollowService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let member = &self.0;
        if member.catalog.store().has_feed() {
            tokio::join!(member.catalog.follow(member.clock.as_ref()), member.beat());
        } else {
            member.beat().await;
        }
    }

    fn name(&self) -> &str {
        "follow"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
