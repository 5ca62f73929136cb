//! The thread of one import.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::early::Hints;
use super::feed::Chunk;
use super::find::Apps;
use super::flight::{Lines, Pipeline};
use super::place::Numbers;
use super::reader::{Item, Read, Reader, stand_back};
use super::{PartKind, damaged, decode, delete_parts, encode, part_prefix};
use crate::admin::answer::Refusal;
use crate::admin::turns;
use crate::admin::txn::Txn;
use crate::admin::{ATTEMPTS_MAX, AdminState};
use crate::store::{Kind, RecordKey, RecordStore, StoreError};
use crate::wire::imports::options::{OnError, Options};
use crate::wire::imports::record::{Import, Status};

/// Lines of one commit. A credential is some eight records: only other edits wait for them, and the
/// disk is waited for seldom.
const BATCH: usize = 512;
/// The same where the store has other things to do meanwhile: it is over within a few milliseconds,
/// and what waits behind it waits no longer.
const BATCH_SHARED: usize = 128;
/// An import that waits for its client says so this often.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// One import on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) state: AdminState,
    pub(super) options: Options,
    pub(super) import: Import,
    /// Tokens that admit to this listener: they are no credentials.
    pub(super) admits: HashSet<[u8; 32]>,
    pub(super) apps: Apps,
    pub(super) hints: Hints,
    pub(super) numbers: Numbers,
    /// Aliases that lines checked so far will take.
    pub(super) planned: HashSet<u64>,
    /// The app that the file is the whole list of, and its credentials that lines have named.
    pub(super) replaced: Option<u64>,
    pub(super) kept: HashSet<u64>,
    /// Faults and warnings written down.
    pub(super) entries: usize,
    /// Where what goes on beside the lines is done.
    pub(super) beside: Handle,
    /// Commits whose lines were read early.
    pub(super) early: u64,
    /// The commits that are not through. All else here is as of before them.
    pub(super) pipeline: Pipeline,
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
        // A runtime of its own: lines are worked on there alone.
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
            hints: Hints::default(),
            numbers: Numbers::default(),
            planned: HashSet::new(),
            replaced: None,
            kept: HashSet::new(),
            entries: 0,
            beside: Handle::current(),
            early: 0,
            pipeline: Pipeline::default(),
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
        // What was handed in counts, whatever ended the import.
        let whole = whole.and(self.land().await).and(self.pipeline.settle(None).await);
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
            commits = self.import.batches,
            early = self.early,
            "import ended"
        );
        self.import
    }

    async fn whole(&mut self, read: &mut mpsc::Receiver<Read>) -> Result<(), Stop> {
        self.admits = super::place::admits(&self.state).await?;
        self.find_replaced().await?;
        self.read(read).await?;
        self.land().await?;
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
        let mut next = None;
        loop {
            let got = match next.take() {
                Some(got) => Ok(Some(got)),
                None => {
                    if read.is_empty() {
                        // What is ready does not wait for a client that is slow.
                        self.send_off().await?;
                    }
                    tokio::time::timeout(HEARTBEAT, read.recv()).await
                }
            };
            match got {
                Err(_) => {
                    self.land().await?;
                    self.note().await?;
                }
                Ok(None) => return Err(Stop::Interrupted),
                Ok(Some(Read::Lines(items))) => {
                    next = read.try_recv().ok();
                    let coming = match &next {
                        Some(Read::Lines(items)) => items.as_slice(),
                        Some(Read::End(_) | Read::Failed(_)) | None => &[],
                    };
                    let lines = Lines { items, pass: self.pass(), draft: None };
                    self.batch(lines, coming).await?;
                }
                Ok(Some(Read::Failed(reason))) => return Err(Stop::File(reason)),
                Ok(Some(Read::End(warnings))) => {
                    // A commit on its way has its own copy of how the import stands.
                    self.land().await?;
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
        let mut after = None::<RecordKey>;
        loop {
            let store = self.state.catalog.store();
            let after_id = after.as_ref().map(|key| key.id.as_ref());
            let page = store.list(Kind::ImportPart, &prefix, after_id, 1).await?;
            // These lines are not read early.
            let asked = if store.has_feed() { store.get(&turns::key()).await? } else { None };
            self.pipeline.hear(asked.as_ref());
            let Some((key, record)) = page.records.into_iter().next() else { break };
            let items: Vec<Item> = serde_json::from_slice(&record.value).map_err(damaged)?;
            after = Some(key.clone());
            self.batch(Lines { items, pass: Pass::Apply, draft: Some(key) }, &[]).await?;
        }
        self.land().await
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
