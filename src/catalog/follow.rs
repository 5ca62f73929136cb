//! Following the change feed: what other gateways were told is enforced here too.
//!
//! A commit of several records is taken in whole. A token's record is forgotten, and read again
//! when it is used next; a policy is read at once. Who is too far behind starts anew.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::kept::changed;
use crate::catalog::live::Noted;
use crate::catalog::{Catalog, LOAD_PAGE, Snapshot};
use crate::clock::Clock;
use crate::store::feed::{Change, Changes};
use crate::store::registry::{Heartbeat, Peer};
use crate::store::{AnyStore, Generation, Kind, Record, RecordKey, RecordStore, StoreError};

/// The first and the longest pause after the store gave no answer.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The kinds of policies.
pub(super) const POLICIES: [Kind; 3] = [Kind::Product, Kind::Plan, Kind::Policy];

impl Catalog {
    /// Follows the change feed, for as long as it is polled.
    pub async fn follow(&self, clock: &dyn Clock) {
        self.live.follow();
        let mut pause = PAUSE_MIN;
        loop {
            if let Err(error) = self.keep_late().await {
                tracing::debug!(%error, "no copy of the store is kept yet");
            }
            match self.step().await {
                Ok(()) => {
                    self.standing.note_current(clock.boot());
                    if PAUSE_MIN < pause {
                        tracing::info!("the change feed is followed again");
                    }
                    pause = PAUSE_MIN;
                }
                Err(error) => {
                    if pause == PAUSE_MIN {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "the change feed cannot be followed");
                    }
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Waits for commits, and takes them in.
    async fn step(&self) -> Result<(), StoreError> {
        match self.store.changes(self.live.applied()).await? {
            Changes::Next(changes) => self.take_in(changes).await,
            Changes::Gap(_) => self.start_anew().await,
        }
    }

    async fn take_in(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let Some(last) = changes.last().map(|change| change.generation) else { return Ok(()) };
        let changed = changed(changes);
        let (tokens, policies): (Vec<_>, Vec<_>) =
            changed.iter().cloned().partition(|(key, _)| key.kind == Kind::Token);
        let taking = self.kept.taking(last);
        // First, because they need no answer of the store: a revoked token is refused from here on.
        let noted = |(key, at)| Noted { key, value: None, at };
        self.live.forget(&tokens.into_iter().map(noted).collect::<Vec<_>>());
        let mut noted = Vec::new();
        for (key, at) in policies {
            noted.push(self.read(key, at).await?);
        }
        self.live.take_policies(&noted, Some(last));
        self.kept.take(changed, noted, last).await?;
        taking.done();
        self.live.advance(last);
        Ok(())
    }

    /// A record as it is now, which is at least as new as the commit that wrote it.
    async fn read(&self, key: RecordKey, at: Generation) -> Result<Noted, StoreError> {
        Ok(match self.store.get(&key).await? {
            Some(record) => Noted { key, value: Some(record.value), at: record.generation },
            None => Noted { key, value: None, at },
        })
    }

    /// Reads all policies, and forgets all tokens.
    async fn start_anew(&self) -> Result<(), StoreError> {
        tracing::warn!(
            applied = self.live.applied().0,
            "the feed has a gap: everything is read anew"
        );
        let (generation, policies) = read_policies(&self.store).await?;
        let mut next = Snapshot::clone(&self.live.snapshot.load()).without_policies();
        next.generation = generation;
        next.put_all(&policies);
        let taking = self.kept.taking(generation);
        self.live.start_anew(next);
        self.kept.begin(generation, policies).await?;
        taking.done();
        self.live.advance(generation);
        self.standing.note_resync();
        Ok(())
    }

    /// Says that this gateway lives, and hears which others do.
    ///
    /// # Errors
    /// When the store does not answer: the gateways heard of last stay.
    pub async fn heartbeat(&self, own: &Heartbeat) -> Result<Vec<Peer>, StoreError> {
        let peers = self.store.heartbeat(own).await?;
        self.standing.heard(peers.clone());
        Ok(peers)
    }
}

/// Reads all policies, and of which commit they are: the last one before that began, although some
/// may be of later ones. Whoever follows from there misses nothing.
pub(super) async fn read_policies(
    store: &AnyStore,
) -> Result<(Generation, Vec<(RecordKey, Record)>), StoreError> {
    let generation = store.generation().await?;
    let mut policies = Vec::new();
    for kind in POLICIES {
        let mut after: Option<Arc<[u8]>> = None;
        loop {
            let page = store.list(kind, &[], after.as_deref(), LOAD_PAGE).await?;
            after = page.records.last().map(|(key, _)| Arc::clone(&key.id));
            policies.extend(page.records);
            if !page.more {
                break;
            }
        }
    }
    Ok((generation, policies))
}
