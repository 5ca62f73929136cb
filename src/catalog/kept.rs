//! Keeping the copy that this gateway falls back on, and falling back on it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::catalog::live::{Live, Noted};
use crate::catalog::standing::Standing;
use crate::catalog::{Catalog, Looked, Snapshot, follow};
use crate::domain::api::Api;
use crate::domain::token::{Pepper, TokenHash};
use crate::store::fallback::{Fallback, Taken};
use crate::store::feed::{Change, Changes};
use crate::store::{AnyStore, Generation, Kind, Record, RecordKey, RecordStore, StoreError};

/// Where the copy lies, and of which store it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Tells the store from others, and its pepper.
    pub origin: String,
    /// Tokens in it at most.
    pub tokens_max: usize,
}

impl Place {
    /// Opens the copy there; `None`: an earlier process, which hands over to this one, has it open.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(&self) -> Result<Option<Arc<Fallback>>, StoreError> {
        match Fallback::open(&self.folder, self.tokens_max) {
            Ok(copy) => Ok(Some(Arc::new(copy))),
            Err(StoreError::InUse) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The copy, once it is as new as what is applied.
#[derive(Debug, Default)]
pub(super) struct Kept {
    place: OnceLock<Place>,
    copy: OnceLock<Arc<Fallback>>,
    behind: Arc<Behind>,
}

/// Whether the copy may have what a commit has changed that is enforced here already.
#[derive(Debug, Default)]
struct Behind {
    /// Commits that are being taken in.
    under_way: AtomicUsize,
    /// The last commit that could not be taken in, and the last one with all before it that was.
    missed: AtomicU64,
    taken: AtomicU64,
}

/// A commit that is being taken in. Dropped without [`Self::done`] the copy stays out of use until
/// the feed has brought that commit.
#[derive(Debug)]
pub(super) struct Taking(Arc<Behind>, Option<Generation>);

impl Taking {
    pub(super) fn done(mut self) {
        self.1 = None;
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if let Some(missed) = self.1 {
            self.0.missed.fetch_max(missed.0, Ordering::SeqCst);
        }
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Kept {
    pub(super) fn copy(&self) -> Option<&Arc<Fallback>> {
        self.copy.get()
    }

    fn set(&self, place: Place, copy: Option<Arc<Fallback>>) {
        let _first = self.place.set(place);
        let _first = copy.map(|copy| self.copy.set(copy));
    }

    /// From here on the copy is not used, until a commit was taken in. Call it before anything of
    /// that commit is enforced.
    pub(super) fn taking(&self, at: Generation) -> Taking {
        self.behind.under_way.fetch_add(1, Ordering::SeqCst);
        Taking(Arc::clone(&self.behind), Some(at))
    }

    /// Everything up to a commit was taken in.
    fn taken(&self, stands: Generation) {
        self.behind.taken.fetch_max(stands.0, Ordering::SeqCst);
    }

    fn is_current(&self) -> bool {
        let Behind { under_way, missed, taken } = &*self.behind;
        under_way.load(Ordering::SeqCst) == 0
            && missed.load(Ordering::SeqCst) <= taken.load(Ordering::SeqCst)
    }

    /// Takes in what commits changed, before that is said to be applied.
    pub(super) async fn take(
        &self,
        changed: Vec<(RecordKey, Generation)>,
        noted: Vec<Noted>,
        stands: Generation,
    ) -> Result<(), StoreError> {
        let Some(copy) = self.copy() else { return Ok(()) };
        let record =
            |Noted { key, value, at }| Some((key, Record { generation: at, value: value? }));
        let records = noted.into_iter().filter_map(record).collect();
        copy.take(Taken { changed, records, stands: Some(stands) }).await?;
        self.taken(stands);
        Ok(())
    }

    /// Begins the copy anew.
    pub(super) async fn begin(
        &self,
        at: Generation,
        policies: Vec<(RecordKey, Record)>,
    ) -> Result<(), StoreError> {
        match (self.copy(), self.place.get()) {
            (Some(copy), Some(place)) => {
                copy.begin(&place.origin, at, policies).await?;
                self.taken(at);
                Ok(())
            }
            (None, _) | (_, None) => Ok(()),
        }
    }
}

impl Catalog {
    /// Starts with what a copy stands for, where the store is away. What came after it comes with
    /// the feed.
    ///
    /// # Errors
    /// When the copy cannot be read, or is of another store.
    pub fn recall(
        store: Arc<AnyStore>,
        pepper: Pepper,
        apis: Vec<Arc<Api>>,
        (place, copy): (Place, Arc<Fallback>),
    ) -> Result<Self, StoreError> {
        let stands = copy.stands_for(&place.origin)?;
        let stands = stands.ok_or(StoreError::Damaged { what: "the copy of the store" })?;
        let mut snapshot = Snapshot::new(apis, stands);
        for kind in follow::POLICIES {
            snapshot.put_all(&copy.all(kind)?);
        }
        let kept = Kept::default();
        kept.set(place, Some(copy));
        let live = Arc::new(Live::new(snapshot));
        Ok(Self { store, pepper, live, standing: Standing::default(), kept: Arc::new(kept) })
    }

    /// Keeps a copy from here on. One that is there is brought up to date first; if it is not given,
    /// because an earlier process has it open, that is done once it has ended.
    ///
    /// # Errors
    /// When the store does not answer, or the copy cannot be written.
    pub async fn keep(&self, place: Place, copy: Option<Arc<Fallback>>) -> Result<(), StoreError> {
        if let Some(copy) = &copy {
            self.bring_up(&place, copy).await?;
        }
        self.kept.set(place, copy);
        Ok(())
    }

    /// Keeps the copy that could not be opened before, if it can be by now.
    pub(super) async fn keep_late(&self) -> Result<(), StoreError> {
        let (Some(place), None) = (self.kept.place.get(), self.kept.copy()) else { return Ok(()) };
        let Some(copy) = place.open()? else { return Ok(()) };
        self.bring_up(place, &copy).await?;
        self.kept.set(place.clone(), Some(copy));
        // What was looked up meanwhile is looked up once more, and copied.
        self.live.forget_all();
        Ok(())
    }

    /// Makes a copy stand for what is applied: from the feed, or, if that does not reach back so
    /// far, without any token.
    async fn bring_up(&self, place: &Place, copy: &Fallback) -> Result<(), StoreError> {
        let stands = copy.stands_for(&place.origin)?;
        let replayed = match stands {
            Some(from) => self.replay(copy, from).await?,
            None => false,
        };
        let applied = self.applied();
        let (_, policies) = follow::read_policies(&self.store).await?;
        if !replayed {
            return copy.begin(&place.origin, applied, policies).await;
        }
        let there: BTreeSet<&RecordKey> = policies.iter().map(|(key, _)| key).collect();
        let mut gone = Vec::new();
        for kind in follow::POLICIES {
            let known = copy.all(kind)?.into_iter().map(|(key, _)| key);
            gone.extend(known.filter(|key| !there.contains(key)));
        }
        let changed = gone.into_iter().map(|key| (key, Generation(u64::MAX))).collect();
        copy.take(Taken { changed, records: policies, stands: Some(applied) }).await
    }

    /// Takes tokens out of a copy that changed since it was last written; `false`: nobody knows
    /// which ones did.
    async fn replay(&self, copy: &Fallback, mut at: Generation) -> Result<bool, StoreError> {
        let applied = self.applied();
        while at != applied {
            let Changes::Next(changes) = self.store.changes(at).await? else { return Ok(false) };
            let Some(last) = changes.last().map(|change| change.generation) else {
                return Ok(false);
            };
            let changed = changed(changes);
            copy.take(Taken { changed, ..Taken::default() }).await?;
            // What comes after the applied commit comes once more by the feed.
            at = last.min(applied);
        }
        Ok(true)
    }

    /// Finds a token for a request, and copies it. While the store does not answer within
    /// `deadline`, the copy does.
    ///
    /// # Errors
    /// When neither knows it: it is then neither known nor unknown.
    pub async fn find(&self, hash: &TokenHash, deadline: Duration) -> Result<Looked, StoreError> {
        let before = self.changes(hash);
        let key = RecordKey::bytes(Kind::Token, hash.0);
        let read = tokio::time::timeout(deadline, self.store.get(&key)).await;
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let read = read.unwrap_or(Err(StoreError::Timeout { deadline_ms }));
        let Some(copy) = self.kept.copy() else { return Ok(Looked::of(read?)) };
        match read {
            Ok(found) => {
                if let Some(record) = &found {
                    let (live, hash) = (Arc::clone(&self.live), *hash);
                    let still = move || live.changes(&hash) == before;
                    if !copy.copy(&hash, record.clone(), still) {
                        tracing::debug!("too much waits to be copied: a token is not");
                    }
                }
                Ok(Looked::of(found))
            }
            // Looked at after `before`: what is taken in from here on makes the caller look again.
            Err(error) if error.is_away() && self.kept.is_current() => match copy.token(hash)? {
                Some(record) => Ok(Looked::of(Some(record))),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

/// The records of commits that concern the catalog, each with the last commit that wrote it.
pub(super) fn changed(changes: Vec<Change>) -> Vec<(RecordKey, Generation)> {
    let mut keys = std::collections::BTreeMap::new();
    for Change { generation, keys: written } in changes {
        let ours = written.into_iter().filter(|key| key.kind.is_followed());
        keys.extend(ours.map(|key| (key, generation)));
    }
    keys.into_iter().collect()
}
