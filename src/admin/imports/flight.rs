//! Commits of an import: while one is on its way, the lines of the next are looked at.
//!
//! They are looked at as if the one before were through, and go when it is. If it is not, because somebody
//! else changed what it relied on, both are done anew, one after the other.
//!
//! A store that does one thing at a time would keep what the next lines are read for waiting behind the
//! commit. So that is read right behind the commit before ([`Early`]), or the next is held until it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::batch::{Batch, Lesson};
use super::early::Early;
use super::job::{Job, Pass, Stop};
use super::reader::Item;
use super::{PartKind, damaged, decode, encode, part_key};
use crate::admin::ATTEMPTS_MAX;
use crate::admin::turns;
use crate::admin::txn::{Sealed, Txn};
use crate::enforce::Carried;
use crate::store::{Committed, Generation, Kind, Record, RecordKey, StoreError};
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
/// The pause between commits that somebody asked for: several round trips of an edit on another gateway.
const PAUSE: Duration = Duration::from_millis(20);

/// Lines of one commit.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) items: Vec<Item>,
    pub(super) pass: Pass,
    /// What the lines were kept in.
    pub(super) draft: Option<RecordKey>,
}

/// What lines write.
#[derive(Debug)]
pub(super) struct Prepared {
    writes: Arc<Sealed>,
    /// What the counters are told before: of a credential whose commit does not go through the counter
    /// is nobody's, and of one that is there already units count once, however often they are told.
    carried: Vec<Carried>,
    next: Import,
    pub(super) lesson: Lesson,
}

/// The commits that are not through.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// Those handed in, in their order: one on its way, and one that goes when it is through.
    flights: VecDeque<Flight>,
    /// The one after them.
    ready: Option<Ready>,
    /// The generation of the last that is through.
    landed: Option<Generation>,
    /// What is read for the lines that come next, behind the last that was handed in.
    early: Option<Early>,
    /// Whether what was read early for the last lines was of use, and had none of their tokens.
    pub(super) fresh: bool,
    /// Whether somebody on another gateway asked for a pause between commits.
    pub(super) asked: bool,
    /// Ends when the one before it is in force, too.
    in_force: Option<JoinHandle<()>>,
}

/// A commit that can be handed in once the one before is through.
#[derive(Debug)]
struct Ready {
    lines: Lines,
    prepared: Prepared,
    /// Whether the counters are told.
    told: JoinHandle<Result<(), StoreError>>,
}

/// A commit on its way.
#[derive(Debug)]
struct Flight {
    lines: Lines,
    prepared: Prepared,
    /// `None`: somebody else was faster.
    done: JoinHandle<Result<Option<Stored>, StoreError>>,
    /// Tells the next when it is through; nothing if it is not, or nobody knows.
    through: Option<oneshot::Receiver<Generation>>,
}

/// A commit that is stored.
type Stored = (Generation, JoinHandle<()>);

impl Pipeline {
    /// The newest that is not through.
    pub(super) fn last(&self) -> Option<&Prepared> {
        let on_its_way = self.flights.back().map(|flight| &flight.prepared);
        self.ready.as_ref().map(|ready| &ready.prepared).or(on_its_way)
    }

    /// Takes in who asked for a pause last.
    pub(super) fn hear(&mut self, asked: Option<&Record>) {
        let both = asked.zip(self.landed);
        self.asked = both.is_some_and(|(asked, now)| turns::is_asked(asked, now));
    }

    /// Waits until the commit before is in force: not more than this one is ever waited for.
    pub(super) async fn settle(&mut self, next: Option<JoinHandle<()>>) -> Result<(), Stop> {
        let Some(before) = std::mem::replace(&mut self.in_force, next) else { return Ok(()) };
        before.await.map_err(|error| StoreError::io("written", error).into())
    }
}

impl Job {
    /// How the import stands with all lines that were taken.
    pub(super) fn newest(&self) -> &Import {
        self.pipeline.last().map_or(&self.import, |prepared| &prepared.next)
    }

    /// Takes lines, and sees those that come next. They are through when [`Self::land`] says so.
    pub(super) async fn batch(&mut self, lines: Lines, coming: &[Item]) -> Result<(), Stop> {
        let has_feed = self.state.catalog.store().has_feed();
        let apart = self.pipeline.asked;
        let mut early = self.pipeline.early.take();
        // A second look that has to read much would wait behind it.
        if early.is_some() && self.pipeline.fresh && !apart {
            self.launch(coming);
        }
        if self.pipeline.ready.is_some() || 1 < self.pipeline.flights.len() {
            let through = self.wait().await?;
            early = early.filter(|_| through);
        }
        match self.prepare(&lines, coming, early, apart).await {
            Ok(Some(prepared)) => {
                self.pipeline.ready = Some(self.ready(lines, prepared));
                // Where reads do not wait behind commits it is not held for those of the next lines.
                return if has_feed { Ok(()) } else { self.send_off().await };
            }
            Ok(None) => {}
            Err(Stop::Store(error)) if error.is_transient() => {}
            Err(stop) => return Err(stop),
        }
        self.land().await?;
        self.slowly(&lines, Vec::new()).await
    }

    /// Begins to tell the counters what comes before a commit.
    fn ready(&self, lines: Lines, mut prepared: Prepared) -> Ready {
        let enforcer = Arc::clone(&self.state.enforcer);
        let carried = std::mem::take(&mut prepared.carried);
        let told = self.beside.spawn(async move { enforcer.carry(&carried).await });
        Ready { lines, prepared, told }
    }

    /// Returns when all that was taken is through, and in force.
    pub(super) async fn land(&mut self) -> Result<(), Stop> {
        self.send_off().await?;
        while !self.pipeline.flights.is_empty() {
            self.wait().await?;
        }
        self.pipeline.settle(None).await
    }

    /// Hands in what is ready, after what is on its way.
    pub(super) async fn send_off(&mut self) -> Result<(), Stop> {
        self.wait().await?;
        self.launch(&[]);
        Ok(())
    }

    /// Returns when what is on its way is through. If it had to be done anew (false), so is what was made
    /// ready meanwhile.
    async fn wait(&mut self) -> Result<bool, Stop> {
        let Some(flight) = self.pipeline.flights.front_mut() else { return Ok(true) };
        let done = (&mut flight.done).await;
        let Some(Flight { lines, prepared, .. }) = self.pipeline.flights.pop_front() else {
            return Ok(true);
        };
        let Prepared { next, lesson, .. } = prepared;
        let tried = match done {
            Ok(Ok(Some((at, in_force)))) => {
                self.learn(next, lesson);
                self.pipeline.landed = Some(at);
                self.pipeline.settle(Some(in_force)).await?;
                return Ok(true);
            }
            Ok(Ok(None)) => Vec::new(),
            // Whether it is through, and why not, is seen when it is tried again.
            Ok(Err(_)) | Err(_) => vec![(next, lesson)],
        };
        let mut behind = Vec::new();
        for Flight { lines, done, .. } in std::mem::take(&mut self.pipeline.flights) {
            // It does not go, since the one before is not through.
            let _not_sent = done.await;
            behind.push(lines);
        }
        behind.extend(self.pipeline.ready.take().map(|ready| ready.lines));
        self.slowly(&lines, tried).await?;
        for lines in behind {
            self.slowly(&lines, Vec::new()).await?;
        }
        Ok(false)
    }

    /// Hands in what is ready: it goes when what is on its way is through. Behind it, what the lines that
    /// come next will take is read.
    fn launch(&mut self, coming: &[Item]) {
        let Some(Ready { lines, prepared, told }) = self.pipeline.ready.take() else {
            return;
        };
        let catalog = Arc::clone(&self.state.catalog);
        let (sent, read) = oneshot::channel();
        let early = !coming.is_empty() && catalog.store().has_feed();
        // What was read for other lines than these lacks what they write.
        self.pipeline.early = early.then(|| {
            let import = RecordKey::number(Kind::Import, self.import.id);
            let import = (import, prepared.next.batches);
            Early::begin(&self.beside, (&catalog, read), &self.hints, coming, import)
        });
        let before = self.pipeline.flights.back_mut().and_then(|flight| flight.through.take());
        let (landed, turns) = (self.pipeline.landed, self.state.turns.clone());
        let writes = Arc::clone(&prepared.writes);
        let (tell, through) = oneshot::channel();
        let done = self.beside.spawn(async move {
            let ahead = match before {
                Some(before) => match before.await {
                    Ok(at) => Some(at),
                    Err(_not_through) => return Ok(None),
                },
                None => landed,
            };
            told.await.unwrap_or_else(|error| Err(StoreError::io("written", error)))?;
            // Who was not fast enough goes first: there would be no gap to come in between.
            drop(turns.lock().await);
            let store = catalog.store_first(writes.writes(), ahead);
            let reads = async {
                tokio::task::yield_now().await;
                let _unread = sent.send(());
            };
            let (stored, ()) = tokio::join!(store, reads);
            let (committed, in_force) = stored?;
            let Committed::At(at) = committed else { return Ok(None) };
            let _last = tell.send(at);
            Ok(Some((at, in_force)))
        });
        self.pipeline.flights.push_back(Flight { lines, prepared, done, through: Some(through) });
    }

    /// Commits lines, tried again until they are through or cannot be. Nothing is on its way; what was
    /// `tried` before may be through, only the store has not answered.
    async fn slowly(
        &mut self,
        lines: &Lines,
        mut tried: Vec<(Import, Lesson)>,
    ) -> Result<(), Stop> {
        (self.pipeline.early, self.pipeline.landed) = (None, None);
        let (mut conflicts, mut failures, mut pause) = (0, 0, Duration::from_millis(50));
        let turns = self.state.turns.clone();
        let mut turn = None;
        loop {
            match self.attempt(lines, &mut tried).await {
                Ok(true) => return Ok(()),
                Ok(false) if conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    turns::ask(self.state.catalog.store()).await?;
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
        let Some(Prepared { writes, carried, next, lesson }) =
            self.prepare(lines, &[], None, false).await?
        else {
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
        self.state.enforcer.carry(&carried).await?;
        match self.state.catalog.commit(writes.writes()).await {
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

    /// Looks at lines, as if what is ready or on its way were through; once they are read, what is ready is
    /// handed in, or once they are worked on, if it is to be `apart`. `None`: these are through already.
    async fn prepare(
        &mut self,
        lines: &Lines,
        coming: &[Item],
        early: Option<Early>,
        apart: bool,
    ) -> Result<Option<Prepared>, Stop> {
        let Lines { items, pass, draft } = lines;
        let state = self.state.clone();
        let ahead = self.pipeline.last().map(|prepared| Arc::clone(&prepared.writes));
        let mut txn = Txn::after(&state.catalog, ahead);
        if self.caught_up(&mut txn).await? {
            return Ok(None);
        }
        let mut batch = Batch::new(self, *pass, draft.is_none());
        batch.look(&mut txn, items, draft.as_ref(), early).await?;
        let known = batch.look_again(&mut txn, items).await?;
        if !apart {
            batch.job.launch(coming);
        }
        batch.fill(&mut txn, items, known).await?;
        if apart && batch.job.pipeline.ready.is_some() {
            tokio::time::sleep(PAUSE).await;
        }
        batch.job.launch(coming);
        let carried = batch.told(&mut txn).await?;
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
        Ok(Some(Prepared { writes: Arc::new(txn.seal()), carried, next, lesson }))
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

    /// Faults and warnings of all lines before.
    fn entries(&self) -> usize {
        let ahead = self.pipeline.last().map_or(0, |prepared| prepared.lesson.entries);
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
