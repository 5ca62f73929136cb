//! The thread of one import.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::batch::Batch;
use super::feed::Chunk;
use super::find::Apps;
use super::place::Numbers;
use super::reader::{Item, Read, Reader, stand_back};
use super::{PartKind, damaged, decode, delete_parts, encode, part_key, part_prefix};
use crate::admin::answer::Refusal;
use crate::admin::txn::Txn;
use crate::admin::{ATTEMPTS_MAX, AdminState};
use crate::store::{Kind, RecordKey, RecordStore, StoreError};
use crate::wire::imports::options::{OnError, Options};
use crate::wire::imports::record::{Import, Part, Status};

/// Lines of one commit. A credential is some eight records: only other edits wait for them, and the
/// disk is waited for seldom.
const BATCH: usize = 256;
/// The same where the store has other things to do meanwhile: it is over within a few milliseconds,
/// and what waits behind it waits no longer.
const BATCH_SHARED: usize = 64;
/// Faults and warnings kept of one file; further ones are only counted.
const ENTRIES_MAX: usize = 100_000;
/// An import that waits for its client says so this often.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How often a commit is tried while the store does not answer: half a minute.
const TRIES_MAX: u32 = 40;
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// One import on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) state: AdminState,
    pub(super) options: Options,
    pub(super) import: Import,
    /// Tokens that admit to this listener: they are no credentials.
    pub(super) admits: HashSet<[u8; 32]>,
    pub(super) apps: Apps,
    pub(super) numbers: Numbers,
    /// Aliases that lines checked so far will take.
    pub(super) planned: HashSet<u64>,
    /// The app that the file is the whole list of, and its credentials that lines have named.
    pub(super) replaced: Option<u64>,
    pub(super) kept: HashSet<u64>,
    entries: usize,
}

/// What is done with lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// They are looked at.
    Check,
    /// They are looked at, and kept to be applied when none has a fault.
    Stage,
    /// They are applied.
    Apply,
}

/// Why an import ends before its file.
#[derive(Debug)]
pub(super) enum Stop {
    Cancelled,
    Interrupted,
    File(String),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Job {
    /// Starts the thread.
    pub(super) fn spawn(
        state: AdminState,
        options: Options,
        import: Import,
        chunks: mpsc::Receiver<Chunk>,
        report: oneshot::Sender<Import>,
    ) -> Result<(), Refusal> {
        let failed = |error: std::io::Error| {
            tracing::error!(%error, "an import could not be started");
            Refusal::Internal
        };
        // A runtime of its own: whatever the import waits for, it works on its thread alone.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(failed)?;
        let batch = if state.catalog.store().has_feed() { BATCH_SHARED } else { BATCH };
        let catalog = Arc::clone(&state.catalog);
        let read = Reader::spawn(catalog, options.clone(), batch, chunks).map_err(failed)?;
        let job = Self {
            state,
            options,
            import,
            admits: HashSet::new(),
            apps: Apps::default(),
            numbers: Numbers::default(),
            planned: HashSet::new(),
            replaced: None,
            kept: HashSet::new(),
            entries: 0,
        };
        let thread = std::thread::Builder::new().name("import".to_owned());
        let run = move || {
            stand_back();
            let import = runtime.block_on(job.run(read));
            // The client may have gone.
            let _unheard = report.send(import);
        };
        thread.spawn(run).map(|_| ()).map_err(failed)
    }

    async fn run(mut self, mut read: mpsc::Receiver<Read>) -> Import {
        let id = self.import.id;
        tracing::info!(import = id, by = self.import.by, "import started");
        let whole = self.whole(&mut read).await;
        // From here on the client's bytes are not wanted.
        drop(read);
        if let Err(error) = delete_parts(&self.state, &part_prefix(id, PartKind::Draft)).await {
            tracing::warn!(import = id, %error, "lines of an import could not be forgotten");
        }
        let faulty = 0 < self.import.counts.failed;
        let (status, reason) = match whole {
            Ok(()) if faulty && self.aborts() && !self.import.applying => (Status::Aborted, None),
            Ok(()) if faulty => (Status::CompletedWithErrors, None),
            Ok(()) => (Status::Completed, None),
            Err(Stop::Cancelled) => (Status::Cancelled, None),
            Err(Stop::Interrupted) => (Status::Interrupted, None),
            Err(Stop::File(reason)) => (Status::Failed, Some(reason)),
            Err(Stop::Store(error)) => {
                tracing::error!(import = id, %error, "an import failed in the store");
                (Status::Failed, Some("the store is not available; try again".to_owned()))
            }
        };
        (self.import.status, self.import.reason) = (status, reason);
        self.import.applied = self.generation().await;
        self.import.finished_ms = Some(self.state.clock.unix().0);
        if let Err(error) = self.note().await {
            tracing::error!(import = id, ?error, "the end of an import could not be noted");
        }
        let counts = self.import.counts;
        tracing::info!(
            import = id,
            status = ?status,
            total = counts.total,
            failed = counts.failed,
            "import ended"
        );
        self.import
    }

    async fn whole(&mut self, read: &mut mpsc::Receiver<Read>) -> Result<(), Stop> {
        self.admits = super::place::admits(&self.state).await?;
        self.find_replaced().await?;
        self.read(read).await?;
        self.apply_drafts().await?;
        self.delete_rest().await
    }

    /// A generation that has all that was applied, if anything was, and the store tells.
    async fn generation(&self) -> Option<u64> {
        let counts = self.import.counts;
        let applied = 0 < counts.applied().saturating_add(counts.deleted);
        if self.options.dry_run || !applied {
            return None;
        }
        self.state.catalog.store().generation().await.ok().map(|at| at.0)
    }

    fn aborts(&self) -> bool {
        self.options.on_error == OnError::Abort && !self.options.dry_run
    }

    pub(super) fn pass(&self) -> Pass {
        match (self.options.dry_run, self.options.on_error) {
            (true, _) => Pass::Check,
            (false, OnError::Abort) => Pass::Stage,
            (false, OnError::Continue) => Pass::Apply,
        }
    }

    /// Does with the file what is to be done as it is read.
    async fn read(&mut self, read: &mut mpsc::Receiver<Read>) -> Result<(), Stop> {
        loop {
            match tokio::time::timeout(HEARTBEAT, read.recv()).await {
                Err(_) => self.note().await?,
                Ok(None) => return Err(Stop::Interrupted),
                Ok(Some(Read::Lines(items))) => self.batch(items, self.pass(), None).await?,
                Ok(Some(Read::Failed(reason))) => return Err(Stop::File(reason)),
                Ok(Some(Read::End(warnings))) => {
                    self.import.notes = warnings;
                    return Ok(());
                }
            }
        }
    }

    /// Applies the lines that were kept, if none had a fault. Nobody ends it meanwhile; a line
    /// that finds a fault only now does not keep the others from being applied.
    async fn apply_drafts(&mut self) -> Result<(), Stop> {
        if self.pass() != Pass::Stage || 0 < self.import.counts.failed {
            return Ok(());
        }
        // Who would end it has done so by now, or is told that it is too late.
        self.import.applying = true;
        self.note().await?;
        let prefix = part_prefix(self.import.id, PartKind::Draft);
        loop {
            let store = self.state.catalog.store();
            let page = store.list(Kind::ImportPart, &prefix, None, 1).await?;
            let Some((key, record)) = page.records.into_iter().next() else { break };
            let items: Vec<Item> = serde_json::from_slice(&record.value).map_err(damaged)?;
            self.batch(items, Pass::Apply, Some(key)).await?;
        }
        Ok(())
    }

    /// One commit, tried again until it is through or cannot be. `draft` is what the lines were
    /// kept in.
    async fn batch(
        &mut self,
        items: Vec<Item>,
        pass: Pass,
        draft: Option<RecordKey>,
    ) -> Result<(), Stop> {
        let (mut conflicts, mut failures, mut pause) = (0, 0, Duration::from_millis(50));
        let turns = self.state.turns.clone();
        let mut turn = None;
        loop {
            match self.attempt(&items, pass, draft.as_ref()).await {
                Ok(true) => return Ok(()),
                Ok(false) if conflicts < 2 * ATTEMPTS_MAX => {
                    conflicts += 1;
                    if ATTEMPTS_MAX <= conflicts && turn.is_none() {
                        turn = Some(turns.lock().await);
                    }
                }
                Ok(false) => return Err(StoreError::io("written", "others were faster").into()),
                Err(Stop::Store(error)) if error.is_transient() && failures < TRIES_MAX => {
                    failures += 1;
                    tracing::warn!(import = self.import.id, %error, "an import waits for the store");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(PAUSE_MAX);
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Whether the commit is through.
    async fn attempt(
        &mut self,
        items: &[Item],
        pass: Pass,
        draft: Option<&RecordKey>,
    ) -> Result<bool, Stop> {
        let state = self.state.clone();
        let mut txn = Txn::new(&state.catalog);
        if self.caught_up(&mut txn).await? {
            return Ok(true);
        }
        let mut batch = Batch::new(self, pass, draft.is_none());
        batch.fill(&mut txn, items).await?;
        let (counts, mut part, learnt) = batch.done();
        let mut next = self.import.clone();
        next.counts = counts;
        next.batches = next.batches.saturating_add(1);
        next.updated_ms = state.clock.unix().0;
        part.entries.truncate(ENTRIES_MAX.saturating_sub(self.entries));
        let kept = part.entries.len();
        if kept != 0 || !part.results.is_empty() {
            put_part(&mut txn, part_key(next.id, PartKind::Report, next.batches), &part).await?;
        }
        if pass == Pass::Stage && counts.failed == 0 {
            let key = part_key(next.id, PartKind::Draft, next.batches);
            txn.absent(key.clone());
            txn.put(key, Some(serde_json::to_vec(items).map_err(damaged)?)).await?;
        }
        if let Some(draft) = draft {
            txn.put(draft.clone(), None).await?;
        }
        txn.put(RecordKey::number(Kind::Import, next.id), Some(encode(&next))).await?;
        if !txn.commit().await? {
            return Ok(false);
        }
        self.import = next;
        self.entries = self.entries.saturating_add(kept);
        self.planned.extend(learnt.planned);
        self.kept.extend(learnt.kept);
        self.apps.learn(learnt.apps);
        Ok(true)
    }

    /// Whether the commit that was tried before is through after all: the store had not answered.
    async fn caught_up(&mut self, txn: &mut Txn<'_>) -> Result<bool, Stop> {
        let value = txn.get(&RecordKey::number(Kind::Import, self.import.id)).await?;
        let stored = value.as_deref().map(decode).transpose()?.ok_or(Stop::Cancelled)?;
        if self.import.batches < stored.batches {
            self.import = stored;
            return Ok(true);
        }
        if stored.cancel { Err(Stop::Cancelled) } else { Ok(false) }
    }

    /// Writes down how it stands, and hears whether it shall end.
    async fn note(&mut self) -> Result<(), Stop> {
        for _ in 0..ATTEMPTS_MAX {
            let state = self.state.clone();
            let mut txn = Txn::new(&state.catalog);
            let key = RecordKey::number(Kind::Import, self.import.id);
            let value = txn.get(&key).await?;
            let stored = value.as_deref().map(decode).transpose()?.ok_or(Stop::Cancelled)?;
            self.import.cancel = stored.cancel;
            self.import.applying &= !stored.cancel;
            self.import.updated_ms = state.clock.unix().0;
            txn.put(key, Some(encode(&self.import))).await?;
            if txn.commit().await? {
                let running = self.import.status == Status::Running;
                return if running && stored.cancel { Err(Stop::Cancelled) } else { Ok(()) };
            }
        }
        Err(StoreError::io("written", "others were faster").into())
    }
}

async fn put_part(txn: &mut Txn<'_>, key: RecordKey, part: &Part) -> Result<(), StoreError> {
    txn.absent(key.clone());
    txn.put(key, Some(serde_json::to_vec(part).map_err(damaged)?)).await
}
