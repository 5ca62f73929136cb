//! What a gateway falls back on while a shared store is away: a copy, on its own disk, of the
//! policies, and of the tokens that it has looked up. Of tokens there are hashes only.
//!
//! A copy *stands for* a commit: it has what that commit and all before it left, or something
//! newer. What changes is taken out, or put in its place, before that commit is acknowledged; what
//! is looked up is put in soon after. So a copy may lack a token, and never has one that was revoked.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::domain::token::TokenHash;
use crate::store::embedded::records::Records;
use crate::store::{Generation, Kind, Record, RecordKey, StoreError};
use writer::Job;

mod writer;

const FILE: &str = "fallback.redb";
/// Memory for pages of the file, in bytes: it is written more than it is read.
const CACHE_BYTES: usize = 8 << 20;
/// Jobs that wait, at most: looked-up tokens on top are not copied, and changes wait to be let in.
const WAITING_MAX: usize = 4_096;
/// Records read in one go.
const PAGE: usize = 1_000;
/// What the copy stands for: a generation (eight bytes, big-endian), and of which store.
const STANDS: &str = "stands";

/// A copy on disk, open in one process at a time. Its writes are made by a thread of its own.
#[derive(Debug)]
pub struct Fallback {
    records: Arc<Records>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Records as some commit left them.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// These were written or deleted, at the latest by this commit: older ones are taken out.
    pub changed: Vec<(RecordKey, Generation)>,
    /// These are as they are now.
    pub records: Vec<(RecordKey, Record)>,
    /// The commit that the copy stands for from then on.
    pub stands: Option<Generation>,
}

impl Fallback {
    /// Opens the copy in a folder, and makes both (for the owner only) if they are missing. A copy
    /// that is damaged is thrown away. Of more than `tokens_max` tokens some are forgotten.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open, [`StoreError::Io`] when the folder
    /// cannot be used.
    pub fn open(folder: &Path, tokens_max: usize) -> Result<Self, StoreError> {
        let io = |error| StoreError::io("opened", error);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        let path = folder.join(FILE);
        let records = match Records::open(&path, CACHE_BYTES) {
            Err(StoreError::Damaged { what }) => {
                tracing::warn!(what, "the copy is damaged: it is made anew");
                std::fs::remove_file(&path).map_err(io)?;
                Records::open(&path, CACHE_BYTES)?
            }
            opened => opened?,
        };
        let records = Arc::new(records);
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let run = writer::prepare(Arc::clone(&records), tokens_max)?;
        let thread = std::thread::Builder::new().name("fallback".into());
        let thread = thread.spawn(move || run(waiting)).map_err(io)?;
        Ok(Self { records, jobs: Some(jobs), thread: Some(thread) })
    }

    /// The commit that this copy stands for; `None`: it is not one of the store `origin`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stands_for(&self, origin: &str) -> Result<Option<Generation>, StoreError> {
        let found = self.get(&RecordKey::bytes(Kind::Meta, STANDS))?;
        let stands = found.filter(|record| record.value.as_ref() == origin.as_bytes());
        Ok(stands.map(|record| record.generation))
    }

    /// A token's record.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn token(&self, hash: &TokenHash) -> Result<Option<Record>, StoreError> {
        self.get(&RecordKey::bytes(Kind::Token, hash.0))
    }

    /// All records of a kind.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn all(&self, kind: Kind) -> Result<Vec<(RecordKey, Record)>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<Arc<[u8]>> = None;
        loop {
            let page = self.records.list(kind, &[], after.as_deref(), PAGE)?;
            after = page.records.last().map(|(key, _)| Arc::clone(&key.id));
            for (key, record) in page.records {
                all.push((key, decode(&record)?));
            }
            if !page.more {
                return Ok(all);
            }
        }
    }

    fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.records.get(key)?.as_ref().map(decode).transpose()
    }

    /// Copies a token that was looked up, soon, if `still` holds then: that its record has not
    /// changed since. Whoever makes it untrue calls [`Self::take`] afterwards. Says whether it was
    /// taken in: where too much waits it is not.
    pub fn copy(
        &self,
        hash: &TokenHash,
        record: Record,
        still: impl Fn() -> bool + Send + 'static,
    ) -> bool {
        let key = RecordKey::bytes(Kind::Token, hash.0);
        let job = Job::Copy { key, record, still: Box::new(still) };
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// Takes changes in. When this returns nothing that is out of date is on the disk any more.
    ///
    /// # Errors
    /// When that cannot be written.
    pub async fn take(&self, taken: Taken) -> Result<(), StoreError> {
        self.ask(|done| Job::Take { taken, done }).await
    }

    /// Begins anew as a copy of a store, with these records and without any token.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn begin(
        &self,
        origin: &str,
        stands: Generation,
        records: Vec<(RecordKey, Record)>,
    ) -> Result<(), StoreError> {
        let key = RecordKey::bytes(Kind::Meta, STANDS);
        let stands = Record { generation: stands, value: origin.as_bytes().into() };
        let records = records.into_iter().chain([(key, stands)]).collect();
        self.ask(|done| Job::Begin { records, done }).await
    }

    async fn ask(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<(), StoreError>>) -> Job,
    ) -> Result<(), StoreError> {
        let gone = || StoreError::io("written", "the writer of the copy has ended");
        let (done, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job(done)).await.map_err(|_unsent| gone())?;
        answer.await.unwrap_or_else(|_unanswered| Err(gone()))
    }
}

impl Drop for Fallback {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the copy had panicked");
        }
    }
}

/// In the file a record's value begins with its generation in the store: the file counts commits
/// of its own.
fn encode(record: &Record) -> Arc<[u8]> {
    [&record.generation.0.to_be_bytes(), record.value.as_ref()].concat().into()
}

fn decode(record: &Record) -> Result<Record, StoreError> {
    let split = record.value.split_first_chunk();
    let (generation, value) = split.ok_or(StoreError::Damaged { what: "a copied record" })?;
    Ok(Record { generation: Generation(u64::from_be_bytes(*generation)), value: value.into() })
}

#[cfg(test)]
mod tests;
