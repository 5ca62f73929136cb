//! The store for several gateways: records, counters and the change feed in Redis, or Valkey.
//!
//! Everything that changes anything is a script, or a transaction of scripts, and so atomic; the scripts
//! say their keys and arguments in their heads. Windows and rates are reckoned by the server's clock, never by a
//! gateway's. What the server's own durability settings may lose when it fails, this store loses.
//!
//! Three connections are shared by all calls: one for counters, one for records (a long list must
//! not hold a request up), one that waits for changes; a fourth hears hints. They live on a thread of the store's own,
//! because callers come from several runtimes.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::clock::Clock;
use crate::domain::counter::{CounterKey, ProcessId, Subject, Window};
use crate::domain::limit::Rate;
use crate::domain::ratelog::{RateAnswer, RateCall};
use crate::domain::time::UnixMs;
use crate::store::feed::Changes;
use crate::store::registry::{Heartbeat, Peer};
use crate::store::shards::{AssertBatch, ShardId};
use crate::store::{
    Committed, CounterStore, Generation, Kind, Page, QuotaReserve, QuotaReserved, QuotaUsage,
    RateReserve, Record, RecordKey, RecordStore, StoreError, Write,
};
use changes::Feed;
use counters::Counters;
use hints::Hints;
use keys::Keys;
use link::{Link, Terms, Watch};
use records::Records;
use registry::Registry;
use shards::Shards;

mod chain;
mod changes;
mod commit;
mod counters;
mod durability;
mod fault;
mod hints;
mod keys;
mod link;
mod many;
mod options;
mod records;
mod registry;
mod script;
mod server;
mod shards;
mod steps;

pub use durability::Durability;
pub use fault::RedisFault;
pub use options::RedisOptions;

/// Calls that may be large, and that no request waits for, wait so many times as long.
const LONG_FACTOR: u32 = 10;

/// A store in Redis 6.2 or later. It reconnects by itself, for as long as it lives.
#[derive(Debug)]
pub struct RedisStore {
    keys: Keys,
    // Boxed: beside the embedded store this one would be large.
    counters: Box<Counters>,
    records: Box<Records>,
    feed: Feed,
    registry: Registry,
    hints: Hints,
    _background: Background,
}

/// The thread the connections live on.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Nothing there is worth waiting for, and waiting is not allowed in async code.
            runtime.shutdown_background();
        }
    }
}

impl RedisStore {
    /// Connects, and checks that the server keeps what is promised of it.
    ///
    /// # Errors
    /// [`StoreError::Io`] with a [`RedisFault`] as its source: the options are wrong, no server
    /// can be reached, or the first that can is too old, a replica, or may evict keys. No error
    /// holds a password.
    pub async fn connect(options: RedisOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::begin(&options, clock, false).await
    }

    /// The same, but where servers are merely away, calls fail until one is there.
    ///
    /// # Errors
    /// As above, for what only a person can change.
    pub async fn connect_in_time(
        options: RedisOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        Self::begin(&options, clock, true).await
    }

    /// A store; also while it is away, if one is `patient`.
    async fn begin(
        options: &RedisOptions,
        clock: Arc<dyn Clock>,
        patient: bool,
    ) -> Result<Self, StoreError> {
        let keys = Keys::new(options.checked_prefix().map_err(|fault| fault.met("opened"))?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("turnpike-redis")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| StoreError::io("opened", error))?;
        let handle = runtime.handle().clone();
        let background = Background(Some(runtime));
        let timeout = options.timeout();
        let link = |watch, transacts| {
            let terms = Terms { timeout, durability: options.durability, watch, transacts };
            let endpoints = options.endpoints().map_err(|fault| fault.met("opened"))?;
            Ok(Link::new(endpoints, terms))
        };
        let counters = link(Watch::Pings, false)?;
        let (records, feed) = (link(Watch::Pings, true)?, link(Watch::Calls, false)?);
        let links = [counters.clone(), records.clone(), feed.clone()];
        let long = timeout.saturating_mul(LONG_FACTOR);
        let registry = Registry::new(records.clone(), timeout);
        let endpoints = options.endpoints().map_err(|fault| fault.met("opened"))?;
        let hints = Hints::start((&keys, records.clone()), endpoints, timeout, &handle);
        let store = Self {
            counters: Box::new(Counters::new(counters, timeout, Arc::clone(&clock))),
            records: Box::new(Records::new(records, (timeout, long), options.feed_len, clock)),
            feed: Feed::new(feed, timeout),
            registry,
            hints,
            keys,
            _background: background,
        };
        match store.first_connections(&links, &handle).await {
            Err(error) if !patient || RedisFault::is_lasting(&error) => return Err(error),
            Err(_) | Ok(()) => {}
        }
        links.iter().for_each(|link| link.keep(&handle));
        Ok(store)
    }

    async fn first_connections(&self, links: &[Link], on: &Handle) -> Result<(), StoreError> {
        for link in links {
            link.connect(on).await.map_err(|fault| fault.met("opened"))?;
        }
        // A store without a single commit was never used, or there is nothing left to protect. One
        // that is found later, when units may have been admitted without it, is not asked.
        let fresh = self.records.generation(&self.keys).await? == Generation(0);
        self.counters.poll(&self.keys, fresh).await
    }

    /// Waits until a commit after `after` was made, and tells of it and those that followed; for
    /// half a second at most. One caller at a time is served.
    ///
    /// # Errors
    /// When the server does not answer. The same call can be made again.
    pub async fn changes(&self, after: Generation) -> Result<Changes, StoreError> {
        self.feed.changes(&self.keys, after, self.generation()).await
    }

    pub(crate) async fn heartbeat(&self, own: &Heartbeat) -> Result<Vec<Peer>, StoreError> {
        let peers = self.registry.heartbeat(&self.keys, own).await?;
        self.counters.seen(peers.iter().map(|peer| peer.process).collect());
        Ok(peers)
    }

    pub(crate) async fn sign_off(&self, process: ProcessId) -> Result<(), StoreError> {
        self.registry.sign_off(&self.keys, process).await
    }

    pub(in crate::store) fn hints(&self) -> &Hints {
        &self.hints
    }

    /// This process's standing at all shards.
    pub(in crate::store) fn shards(&self) -> &Shards {
        &self.counters.shards
    }

    pub(in crate::store) async fn poll(&self) -> Result<(), StoreError> {
        self.counters.poll(&self.keys, false).await
    }

    pub(in crate::store) async fn assert(
        &self,
        shard: ShardId,
        batch: &AssertBatch<'_>,
    ) -> Result<(), StoreError> {
        self.counters.assert(&self.keys, shard, batch).await
    }

    pub(in crate::store) async fn commit_after(
        &self,
        writes: &[Write],
        ahead: Option<Generation>,
    ) -> Result<Committed, StoreError> {
        self.records.commit(&self.keys, writes, ahead).await
    }

    pub(in crate::store) async fn anchors(
        &self,
        subjects: &[(Subject, Option<UnixMs>)],
    ) -> Result<Vec<UnixMs>, StoreError> {
        self.counters.anchors(&self.keys, subjects).await
    }

    pub(in crate::store) async fn first_use(
        &self,
        subject: &Subject,
    ) -> Result<Option<UnixMs>, StoreError> {
        self.counters.first_use(&self.keys, subject).await
    }

    /// Whether there are connections for counters and for records now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.counters.is_up() && self.records.is_up()
    }

    /// A call on a rate counter as if the server's clock read `at`, or by that clock; and what it
    /// read. For tests that compare the script with the arithmetic in `domain::ratelog`.
    ///
    /// # Errors
    /// As [`CounterStore::rate`].
    pub async fn rate_at(
        &self,
        reserve: &RateReserve,
        at: Option<UnixMs>,
    ) -> Result<(RateAnswer, UnixMs), StoreError> {
        self.counters.rate(&self.keys, reserve, at).await
    }
}

impl RecordStore for RedisStore {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.records.get(&self.keys, key).await
    }

    async fn get_all(&self, keys: &[RecordKey]) -> Result<Vec<Option<Record>>, StoreError> {
        self.records.get_all(&self.keys, keys).await
    }

    async fn list(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.records.list(&self.keys, kind, (prefix, after), limit).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        self.records.commit(&self.keys, &writes, None).await
    }

    async fn next_id(&self, kind: Kind, count: u64) -> Result<u64, StoreError> {
        self.records.next_id(&self.keys, kind, count).await
    }

    async fn generation(&self) -> Result<Generation, StoreError> {
        self.records.generation(&self.keys).await
    }
}

impl CounterStore for RedisStore {
    async fn quota(&self, reserve: &QuotaReserve) -> Result<QuotaReserved, StoreError> {
        self.counters.quota(&self.keys, reserve).await
    }

    async fn reports(&self, calls: &[QuotaReserve]) -> Result<Vec<Option<UnixMs>>, StoreError> {
        self.counters.reports(&self.keys, calls).await
    }

    async fn rate(&self, reserve: &RateReserve) -> Result<RateAnswer, StoreError> {
        let (answer, _now) = self.counters.rate(&self.keys, reserve, None).await?;
        Ok(answer)
    }

    async fn quota_usage(
        &self,
        key: &CounterKey,
        window: &Window,
    ) -> Result<QuotaUsage, StoreError> {
        self.counters.usage(&self.keys, key, window).await
    }

    async fn rate_usage(&self, key: &CounterKey, rate: Rate) -> Result<RateAnswer, StoreError> {
        let reserve = RateReserve { key: key.clone(), call: RateCall::look(rate) };
        self.rate(&reserve).await
    }
}
