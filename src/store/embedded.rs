//! The store for one machine: records in a crash-safe file, counters in memory with a journal.
//!
//! A folder holds `records.redb` and `journal`. What a record or a counter became is on its way
//! to the disk before anybody is told: a killed process loses nothing, a machine without power
//! loses at most the last [`EmbeddedOptions::fsync_ms`] of counters and no record.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::domain::counter::{CounterKey, Window};
use crate::domain::limit::Rate;
use crate::domain::ratelog::RateAnswer;
use crate::domain::time::UnixMs;
use crate::store::{
    Committed, CounterStore, Generation, Kind, Page, QuotaReserve, QuotaReserved, QuotaUsage,
    RateReserve, Record, RecordKey, RecordStore, StoreError, Write,
};
use counters::{Counters, SHARDS};
use journal::Journal;
use keeper::Keeper;
use records::Records;
use writer::Writer;

mod codec;
mod counters;
mod head;
mod journal;
mod keeper;
pub(in crate::store) mod records;
mod recovery;
mod writer;

/// How an [`EmbeddedStore`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// How often the journal of counters is synced, in milliseconds: what the loss of power may
    /// lose. 0: every change is synced before it is answered. Records are always synced.
    pub fsync_ms: u64,
    /// The journal is not made anew while it is shorter than this, in bytes.
    pub compact_bytes: u64,
    /// Memory for pages of the record file, in bytes.
    pub cache_bytes: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        // 64 MiB of journal are read back in about a second; of pages they hold the records of
        // 100,000 credentials.
        Self { fsync_ms: 100, compact_bytes: 64 << 20, cache_bytes: 64 << 20 }
    }
}

/// What an [`EmbeddedStore`] has in memory and on disk, for operators and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedSize {
    /// Quota counters in memory, one per key and window.
    pub quotas: usize,
    /// Rate counters in memory.
    pub rates: usize,
    /// Length of the journal, in bytes.
    pub journal_bytes: u64,
}

/// Opened on one folder, by one process at a time.
///
/// Dropping it syncs everything and waits for it.
#[derive(Debug)]
pub struct EmbeddedStore {
    // Stopped first: it uses the rest.
    _keeper: Keeper,
    writer: Writer,
    shared: Arc<Shared>,
}

/// What callers and the keeper share.
#[derive(Debug)]
struct Shared {
    records: Arc<Records>,
    counters: Counters,
    journal: Journal,
    /// Held by whoever syncs, compacts or sweeps: a window forgotten while a copy is under way
    /// would be neither in the copy nor in its head.
    upkeep: Mutex<()>,
}

impl EmbeddedStore {
    /// Opens the store in `path`, and makes the folder (for the owner only) if there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Damaged`] if what was
    /// synced cannot be read back, [`StoreError::Io`] if the folder cannot be used.
    pub fn open(
        path: &Path,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let EmbeddedOptions { fsync_ms, compact_bytes, cache_bytes } = options;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|e| StoreError::io("opened", e))?;
        // First, because its lock covers the journal too.
        let records = Records::open(&path.join("records.redb"), cache_bytes)?;
        let recovered = match recovery::recover(&Journal::path(path))? {
            Some(recovered) => recovered,
            None => {
                if Generation::default() < records.generation()? {
                    tracing::warn!("there are records but no journal: counters start at zero");
                }
                recovery::Recovered::default()
            }
        };
        let number = recovered.number;
        let counters = Counters::new(recovered, clock);
        (0..SHARDS).for_each(|index| counters.sweep(index));
        let journal = Journal::create(path, number, &counters, (fsync_ms == 0, compact_bytes))?;
        let records = Arc::new(records);
        let writer = Writer::start(Arc::clone(&records))?;
        let shared = Arc::new(Shared { records, counters, journal, upkeep: Mutex::new(()) });
        let keeper = Keeper::start(Arc::clone(&shared), fsync_ms)?;
        Ok(Self { _keeper: keeper, writer, shared })
    }

    /// Makes everything durable that was answered before the call. The store goes on; dropping
    /// it does the same and gives the folder free.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk refuses.
    pub fn close(&self) -> Result<(), StoreError> {
        self.shared.sync()
    }

    /// Makes everything durable, and gives the folder free for another process: every later call
    /// fails.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk refuses. The folder is free all the same.
    pub fn release(&self) -> Result<(), StoreError> {
        let _one = self.shared.upkeep.lock();
        let done = self.shared.journal.release();
        // Last, because its lock covers the journal too.
        self.shared.records.release();
        done
    }

    /// Makes the journal anew from what is in memory; calls go on meanwhile. The store does so
    /// by itself when the journal has grown.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk refuses; the old journal stays in use.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.shared.compact()
    }

    /// Forgets windows that are long over and rates of which nothing counts any more. The store
    /// does so by itself, a few counters at a time.
    pub fn sweep(&self) {
        (0..SHARDS).for_each(|index| self.shared.sweep(index));
    }

    /// What the store has in memory and on disk.
    #[must_use]
    pub fn size(&self) -> EmbeddedSize {
        let (quotas, rates) = self.shared.counters.len();
        EmbeddedSize { quotas, rates, journal_bytes: self.shared.journal.len() }
    }
}

impl Shared {
    fn sync(&self) -> Result<(), StoreError> {
        let _one = self.upkeep.lock();
        self.journal.sync()
    }

    fn compact(&self) -> Result<(), StoreError> {
        let _one = self.upkeep.lock();
        self.journal.compact(&self.counters)
    }

    fn sweep(&self, index: usize) {
        let _one = self.upkeep.lock();
        self.counters.sweep(index);
    }
}

/// Reads answer on the calling thread: they are a few microseconds of memory, or of the page
/// cache, and moving them to another thread would cost more than they do. They come once per
/// credential and cache miss, not per request.
impl RecordStore for EmbeddedStore {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.shared.records.get(key)
    }

    async fn get_all(&self, keys: &[RecordKey]) -> Result<Vec<Option<Record>>, StoreError> {
        self.shared.records.get_all(keys)
    }

    async fn list(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.shared.records.list(kind, prefix, after, limit)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        self.writer.commit(writes).await
    }

    async fn next_id(&self, kind: Kind, count: u64) -> Result<u64, StoreError> {
        self.writer.numbers(kind, count).await
    }

    async fn generation(&self) -> Result<Generation, StoreError> {
        self.shared.records.generation()
    }
}

/// Calls are executed on the calling thread, and their futures are ready at once: two short
/// locks and one write into the page cache take less than handing the call to another thread.
/// Only with `fsync_ms = 0` do they wait, for the thread that syncs.
impl CounterStore for EmbeddedStore {
    async fn quota(&self, reserve: &QuotaReserve) -> Result<QuotaReserved, StoreError> {
        let (answer, number) = self.shared.counters.quota(reserve, &self.shared.journal)?;
        self.shared.journal.durable(number).await?;
        Ok(answer)
    }

    async fn reports(&self, calls: &[QuotaReserve]) -> Result<Vec<Option<UnixMs>>, StoreError> {
        let mut told = Vec::with_capacity(calls.len());
        let mut last = 0;
        for reserve in calls {
            let (answer, number) = self.shared.counters.quota(reserve, &self.shared.journal)?;
            last = last.max(number);
            told.push(match answer {
                QuotaReserved::Answer { .. } => None,
                QuotaReserved::OtherWindow { now } => Some(now),
                QuotaReserved::Learn => return Err(StoreError::Learning),
            });
        }
        self.shared.journal.durable(last).await?;
        Ok(told)
    }

    async fn rate(&self, reserve: &RateReserve) -> Result<RateAnswer, StoreError> {
        let (answer, number) = self.shared.counters.rate(reserve, &self.shared.journal)?;
        self.shared.journal.durable(number).await?;
        Ok(answer)
    }

    async fn quota_usage(
        &self,
        key: &CounterKey,
        window: &Window,
    ) -> Result<QuotaUsage, StoreError> {
        Ok(self.shared.counters.usage(key, window))
    }

    async fn rate_usage(&self, key: &CounterKey, rate: Rate) -> Result<RateAnswer, StoreError> {
        Ok(self.shared.counters.rate_usage(key, rate))
    }
}
