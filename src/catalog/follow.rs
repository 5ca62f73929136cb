//! Following the change feed: what other gateways were told is enforced here too.
//!
//! A commit of several records is taken in whole. A token's record is forgotten, and read again
//! when it is used next; a policy is read at once. Who is too far behind starts anew.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalog::live::Noted;
use crate::catalog::{Catalog, LOAD_PAGE, Snapshot, concerns_us};
use crate::clock::Clock;
use crate::store::feed::{Change, Changes};
use crate::store::registry::{Heartbeat, Peer};
use crate::store::{AnyStore, Generation, Kind, RecordKey, RecordStore, StoreError};

/// The first and the longest pause after the store gave no answer.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Catalog {
    /// Follows the change feed, for as long as it is polled.
    pub async fn follow(&self, clock: &dyn Clock) {
        self.live.follow();
        let mut pause = PAUSE_MIN;
        loop {
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
        let mut keys = BTreeMap::new();
        for Change { generation, keys: written } in changes {
            let ours = written.into_iter().filter(|key| concerns_us(key.kind));
            keys.extend(ours.map(|key| (key, generation)));
        }
        let (tokens, policies): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(key, _)| key.kind == Kind::Token);
        // First, because they need no answer of the store: a revoked token is refused from here on.
        let noted = |(key, at)| Noted { key, value: None, at };
        self.live.forget(&tokens.into_iter().map(noted).collect::<Vec<_>>());
        let mut noted = Vec::new();
        for (key, at) in policies {
            noted.push(self.read(key, at).await?);
        }
        self.live.take_policies(&noted, Some(last));
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
        let mut next = Snapshot::clone(&self.live.snapshot.load()).without_policies();
        load_policies(&self.store, &mut next).await?;
        let generation = next.generation;
        self.live.start_anew(next);
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

/// Reads all policies. The snapshot then stands for the last commit before that began, although it
/// may hold later ones: whoever follows from there misses nothing.
pub(super) async fn load_policies(
    store: &AnyStore,
    snapshot: &mut Snapshot,
) -> Result<(), StoreError> {
    snapshot.generation = store.generation().await?;
    for kind in [Kind::Product, Kind::Plan, Kind::Policy] {
        let mut after: Option<std::sync::Arc<[u8]>> = None;
        loop {
            let page = store.list(kind, &[], after.as_deref(), LOAD_PAGE).await?;
            after = page.records.last().map(|(key, _)| std::sync::Arc::clone(&key.id));
            for (key, record) in page.records {
                snapshot.put(&key, Some(&record.value), record.generation);
            }
            if !page.more {
                break;
            }
        }
    }
    Ok(())
}
