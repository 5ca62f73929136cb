//! Commits of an import: while one is on its way, the lines of the next are looked at.
//!
//! They are looked at as if the one before were through, and handed in once it is. If it is not, because
//! somebody else changed what it relied on, both are done anew, one after the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::batch::{Batch, Lesson};
use super::job::{Job, Pass, Stop};
use super::reader::Item;
use super::{PartKind, damaged, decode, encode, part_key};
use crate::admin::ATTEMPTS_MAX;
use crate::admin::txn::{Ahead, Sealed, Txn};
use crate::store::{Committed, Generation, Kind, RecordKey, StoreError};
use crate::wire::imports::record::{Import, Part};

/// Faults and warnings kept of one file; further ones are only counted.
const ENTRIES_MAX: usize = 100_000;
/// How often a commit is tried when others change the same records: of two imports into one app, which
/// both change it with every commit, each comes through sooner or later.
const CONFLICTS_MAX: usize = 8 * ATTEMPTS_MAX;
/// How often a commit is tried while the store does not answer: half a minute.
const TRIES_MAX: u32 = 40;
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Where other gateways use the store, every so manyth commit is waited for before the next is begun:
/// who wants to change the same records there, or end the import, comes in between.
const GAP: u64 = 8;

/// Lines of one commit.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) items: Vec<Item>,
    pub(super) pass: Pass,
    /// What the lines were kept in.
    pub(super) draft: Option<RecordKey>,
}

/// A commit on its way.
#[derive(Debug)]
pub(super) struct Flight {
    lines: Lines,
    ahead: Arc<Ahead>,
    pub(super) next: Import,
    pub(super) lesson: Lesson,
    done: JoinHandle<Result<Committed, StoreError>>,
}

/// A commit that could be handed in.
#[derive(Debug)]
struct Prepared {
    writes: Sealed,
    next: Import,
    lesson: Lesson,
}

/// What became of the commit that was on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landed {
    /// There was none.
    Nothing,
    /// It is through, as it was handed in.
    At(Generation),
    /// It is through after it was done anew: what was prepared meanwhile is not to be used.
    Anew,
}

impl Job {
    /// How the import stands with the commit that is on its way.
    pub(super) fn newest(&self) -> &Import {
        self.flight.as_ref().map_or(&self.import, |flight| &flight.next)
    }

    /// Hands lines in. They are through when [`Self::land`] says so, or the lines after them are in.
    pub(super) async fn batch(&mut self, lines: Lines) -> Result<(), Stop> {
        let apart =
            self.state.catalog.store().has_feed() && self.newest().batches.is_multiple_of(GAP);
        if apart {
            self.land().await?;
        }
        loop {
            let prepared = match self.prepare(&lines).await {
                Err(Stop::Store(error)) if error.is_transient() => None,
                prepared => prepared?,
            };
            let landed = self.wait().await?;
            match (prepared, landed) {
                (None, _) => return self.slowly(&lines, Vec::new()).await,
                (Some(_), Landed::Anew) => {}
                (Some(prepared), Landed::Nothing) => {
                    return self.launch(lines, prepared, None).await;
                }
                (Some(prepared), Landed::At(at)) => {
                    return self.launch(lines, prepared, Some(at)).await;
                }
            }
        }
    }

    /// Returns when what was handed in is through.
    pub(super) async fn land(&mut self) -> Result<(), Stop> {
        self.wait().await.map(|_| ())
    }

    async fn wait(&mut self) -> Result<Landed, Stop> {
        let Some(flight) = &mut self.flight else { return Ok(Landed::Nothing) };
        let done = (&mut flight.done).await;
        let Some(Flight { lines, next, lesson, .. }) = self.flight.take() else {
            return Ok(Landed::Nothing);
        };
        match done {
            Ok(Ok(Committed::At(at))) => {
                self.learn(next, lesson);
                return Ok(Landed::At(at));
            }
            Ok(Ok(Committed::Conflict(_))) => self.slowly(&lines, Vec::new()).await?,
            // Whether it is through, and why not, is seen when it is tried again.
            Ok(Err(_)) | Err(_) => self.slowly(&lines, vec![(next, lesson)]).await?,
        }
        Ok(Landed::Anew)
    }

    /// Sends a commit on its way, after one at `ahead`.
    async fn launch(
        &mut self,
        lines: Lines,
        prepared: Prepared,
        ahead: Option<Generation>,
    ) -> Result<(), Stop> {
        let Prepared { writes, next, lesson } = prepared;
        let Some(writes) = writes.after(ahead) else {
            return self.slowly(&lines, Vec::new()).await;
        };
        // Who was not fast enough goes first: there would be no gap to come in between.
        drop(self.state.turns.lock().await);
        let ahead = Arc::new(Ahead::of(writes.clone()));
        let catalog = Arc::clone(&self.state.catalog);
        let done = tokio::spawn(async move { catalog.commit(writes).await });
        self.flight = Some(Flight { lines, ahead, next, lesson, done });
        // It is handed in before anything else is done on this thread.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Commits lines, tried again until they are through or cannot be. Nothing is on its way; what was
    /// `tried` before may be through, only the store has not answered.
    async fn slowly(
        &mut self,
        lines: &Lines,
        mut tried: Vec<(Import, Lesson)>,
    ) -> Result<(), Stop> {
        let (mut conflicts, mut failures, mut pause) = (0, 0, Duration::from_millis(50));
        let turns = self.state.turns.clone();
        let mut turn = None;
        loop {
            match self.attempt(lines, &mut tried).await {
                Ok(true) => return Ok(()),
                Ok(false) if conflicts < CONFLICTS_MAX => {
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

    /// Whether the lines are through.
    async fn attempt(
        &mut self,
        lines: &Lines,
        tried: &mut Vec<(Import, Lesson)>,
    ) -> Result<bool, Stop> {
        let Some(Prepared { writes, next, lesson }) = self.prepare(lines).await? else {
            let same = |next: &Import| {
                let Import { counts, updated_ms, .. } = self.import;
                (next.counts, next.updated_ms) == (counts, updated_ms)
            };
            if let Some(at) = tried.iter().position(|(next, _)| same(next)) {
                let (_, lesson) = tried.swap_remove(at);
                self.learn(self.import.clone(), lesson);
            }
            return Ok(true);
        };
        let Some(writes) = writes.after(None) else { return Ok(false) };
        match self.state.catalog.commit(writes).await {
            Ok(Committed::At(_)) => {
                self.learn(next, lesson);
                Ok(true)
            }
            Ok(Committed::Conflict(_)) => Ok(false),
            Err(error) => {
                tried.push((next, lesson));
                Err(error.into())
            }
        }
    }

    /// Looks at lines, as if what is on its way were through. `None`: these are through already.
    async fn prepare(&mut self, lines: &Lines) -> Result<Option<Prepared>, Stop> {
        let Lines { items, pass, draft } = lines;
        let state = self.state.clone();
        let ahead = self.flight.as_ref().map(|flight| Arc::clone(&flight.ahead));
        let mut txn = Txn::after(&state.catalog, ahead);
        if self.caught_up(&mut txn).await? {
            return Ok(None);
        }
        let mut batch = Batch::new(self, *pass, draft.is_none());
        batch.fill(&mut txn, items).await?;
        let (counts, mut part, mut lesson) = batch.done();
        let mut next = self.newest().clone();
        next.counts = counts;
        next.batches = next.batches.saturating_add(1);
        next.updated_ms = state.clock.unix().0;
        part.entries.truncate(ENTRIES_MAX.saturating_sub(self.entries()));
        lesson.entries = part.entries.len();
        if lesson.entries != 0 || !part.results.is_empty() {
            let part = serde_json::to_vec::<Part>(&part).map_err(damaged)?;
            txn.put_new(part_key(next.id, PartKind::Report, next.batches), part);
        }
        if *pass == Pass::Stage && counts.failed == 0 {
            let items = serde_json::to_vec(items).map_err(damaged)?;
            txn.put_new(part_key(next.id, PartKind::Draft, next.batches), items);
        }
        if let Some(draft) = draft {
            txn.put(draft.clone(), None).await?;
        }
        txn.put(RecordKey::number(Kind::Import, next.id), Some(encode(&next))).await?;
        Ok(Some(Prepared { writes: txn.seal(), next, lesson }))
    }

    /// Whether the commit that was tried before is through after all: the store had not answered.
    async fn caught_up(&mut self, txn: &mut Txn<'_>) -> Result<bool, Stop> {
        let value = txn.get(&RecordKey::number(Kind::Import, self.import.id)).await?;
        let stored = value.as_deref().map(decode).transpose()?.ok_or(Stop::Cancelled)?;
        if self.newest().batches < stored.batches {
            self.import = stored;
            return Ok(true);
        }
        if stored.cancel { Err(Stop::Cancelled) } else { Ok(false) }
    }

    /// Faults and warnings of all lines that were handed in.
    fn entries(&self) -> usize {
        let ahead = self.flight.as_ref().map_or(0, |flight| flight.lesson.entries);
        self.entries.saturating_add(ahead)
    }

    /// Takes in what a commit that is through leaves.
    fn learn(&mut self, next: Import, lesson: Lesson) {
        self.import = next;
        self.entries = self.entries.saturating_add(lesson.entries);
        self.planned.extend(lesson.planned);
        self.kept.extend(lesson.kept);
        self.apps.learn(lesson.apps);
    }
}
