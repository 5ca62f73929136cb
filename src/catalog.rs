//! What the gateway knows: APIs and policies as one immutable snapshot, credentials read through.
//!
//! Reading a snapshot takes no lock. Changes come in through [`Catalog::commit`], which stores
//! them and applies them here before it returns: who was told "stored" finds it enforced.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::domain::api::Api;
use crate::domain::credential::Credential;
use crate::domain::time::BootNs;
use crate::domain::token::{Pepper, TokenHash};
use crate::store::fallback::Taken;
use crate::store::registry::Peer;
use crate::store::{
    AnyStore, Committed, Generation, Kind, Record, RecordKey, RecordStore, StoreError, Write,
};
use kept::Kept;
use live::{Live, Noted};
use standing::Standing;

mod follow;
mod kept;
mod key;
mod live;
mod snapshot;
mod standing;

pub use kept::Place;
pub use live::Forget;
pub use snapshot::{Snapshot, policy_id};

/// Records read from the store in one go while loading.
const LOAD_PAGE: usize = 500;
/// How long a commit waits for its own turn in the change feed, at most. It is enforced here before
/// that; in its turn its limits hold in the store too.
const TURN_MAX: Duration = Duration::from_secs(1);

/// The catalog of one process.
pub struct Catalog {
    store: Arc<AnyStore>,
    pepper: Pepper,
    live: Arc<Live>,
    standing: Standing,
    kept: Arc<Kept>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("snapshot", &self.peek().version).finish()
    }
}

/// What the store says of a token.
#[derive(Debug)]
pub enum Looked {
    /// It is a credential's.
    Up {
        /// Whose.
        credential: Box<Credential>,
        /// How often its quotas were reset.
        resets: u64,
        /// The commit that last wrote it: limits that came with it are as new as this.
        generation: Generation,
    },
    /// Nobody has it.
    Unknown,
    /// Its record cannot be read: it is refused, and the log says so.
    Damaged(String),
}

impl Looked {
    fn of(found: Option<Record>) -> Self {
        let Some(Record { value, generation }) = found else { return Self::Unknown };
        match key::credential(&value) {
            Ok((credential, resets)) => {
                Self::Up { credential: Box::new(credential), resets, generation }
            }
            Err(fault) => Self::Damaged(fault),
        }
    }
}

impl Catalog {
    /// Loads APIs and policies.
    ///
    /// # Errors
    /// When the store does not answer. A policy that cannot be read is logged and left out: what
    /// names it is refused.
    pub async fn load(
        store: Arc<AnyStore>,
        pepper: Pepper,
        apis: Vec<Arc<Api>>,
    ) -> Result<Self, StoreError> {
        let (generation, policies) = follow::read_policies(&store).await?;
        let mut snapshot = Snapshot::new(apis, generation);
        snapshot.put_all(&policies);
        let live = Arc::new(Live::new(snapshot));
        Ok(Self { store, pepper, live, standing: Standing::default(), kept: Arc::default() })
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Arc<AnyStore> {
        &self.store
    }

    /// What tokens are hashed with.
    #[must_use]
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    /// APIs and policies as they stand. The snapshot never changes; load it once per request.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.snapshot.load_full()
    }

    /// The same without touching the reference count, for a few lines.
    pub fn peek(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.live.snapshot.load()
    }

    /// Who is told of changed tokens. There is one such: the enforcer.
    pub fn on_change(&self, listener: impl Fn(Forget<'_>) + Send + Sync + 'static) {
        self.live.listen(Box::new(listener));
    }

    /// Rises with every change of a token's record. Who reads a record and keeps what it made of
    /// it compares before and after: if they differ, it may have kept an old one.
    #[must_use]
    pub fn changes(&self, token: &TokenHash) -> u64 {
        self.live.changes(token)
    }

    /// Every commit up to this one is enforced here.
    #[must_use]
    pub fn applied(&self) -> Generation {
        self.live.applied()
    }

    /// Returns when every commit up to one is enforced here: a record may have been read before
    /// its turn in the change feed, and the policies it names with it.
    pub async fn until_applied(&self, at: Generation) {
        if self.live.is_followed() {
            self.live.until_applied(at).await;
        }
    }

    /// Returns when there is something to tell the other gateways, who were told that everything
    /// up to `told` is enforced here, or when somebody here waits for their word.
    pub async fn until_news(&self, told: Generation) {
        if !self.live.is_followed() {
            return std::future::pending().await;
        }
        let next = Generation(told.0.saturating_add(1));
        tokio::select! {
            () = self.live.until_applied(next) => {}
            () = self.standing.until_asked() => {}
        }
    }

    /// Waits until all live gateways have said that they enforce everything up to a commit; the
    /// names of those that have not when the time is over. One that falls silent meanwhile is
    /// waited for, and named: it may only stand still, and then it admits what it knew before.
    pub async fn until_acknowledged(&self, at: Generation, wait: Duration) -> Vec<String> {
        if !self.live.is_followed() {
            return Vec::new();
        }
        // Only what is heard from here on counts: who began before has spoken by then.
        let mut heard = self.standing.hear();
        let peers = self.peers();
        let lived: Vec<_> = peers.iter().filter(|peer| peer.is_live()).map(|p| p.process).collect();
        let late = |peers: &[Peer]| -> Vec<String> {
            let counts = |peer: &Peer| peer.is_live() || lived.contains(&peer.process);
            let late = peers.iter().filter(|peer| counts(peer) && peer.applied < at);
            late.map(|peer| peer.name.clone()).collect()
        };
        let all = async {
            loop {
                self.standing.ask();
                // The sender lives as long as this.
                let _heard = heard.changed().await;
                if late(&heard.borrow_and_update()).is_empty() {
                    return;
                }
            }
        };
        match tokio::time::timeout(wait, all).await {
            Ok(()) => Vec::new(),
            Err(_elapsed) => late(&self.peers()),
        }
    }

    /// For how long this gateway may have missed commits, in milliseconds; `None` when nobody
    /// else makes any.
    #[must_use]
    pub fn lag_ms(&self, now: BootNs) -> Option<u64> {
        self.store.has_feed().then(|| self.standing.lag_ms(now))
    }

    /// How often everything was read anew, because the change feed had a gap.
    #[must_use]
    pub fn resyncs(&self) -> u64 {
        self.standing.resyncs()
    }

    /// The gateways heard of last, this one among them.
    #[must_use]
    pub fn peers(&self) -> Arc<Vec<Peer>> {
        self.standing.peers()
    }

    /// Stores, and applies here.
    ///
    /// Once begun it goes on to its end, whether or not the caller waits for it: what is stored is
    /// enforced, also when the client that asked for it has hung up.
    ///
    /// # Errors
    /// When the store does not answer; it may then have stored or not, all or nothing.
    pub async fn commit(&self, writes: &[Write]) -> Result<Committed, StoreError> {
        let (committed, in_force) = self.store_first(writes, None).await?;
        in_force.await.map_err(|error| StoreError::io("written", error))?;
        Ok(committed)
    }

    /// As [`Self::commit`], after a commit at `ahead`, but returns as soon as it is stored, with what
    /// ends when it is in force, too.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) async fn store_first(
        &self,
        writes: &[Write],
        ahead: Option<Generation>,
    ) -> Result<(Committed, JoinHandle<()>), StoreError> {
        let ours = writes.iter().filter(|write| write.key.kind.is_followed());
        let ours: Vec<_> = ours.map(|write| (write.key.clone(), write.value.clone())).collect();
        let noted = move |at| -> Vec<Noted> {
            ours.into_iter().map(|(key, value)| Noted { key, value, at }).collect()
        };
        let writes = writes.to_vec();
        let (store, live) = (Arc::clone(&self.store), Arc::clone(&self.live));
        let kept = Arc::clone(&self.kept);
        let (tell, told) = oneshot::channel();
        let rest = tokio::spawn(async move {
            let committed = store.commit_after(writes, ahead).await;
            let noted = match &committed {
                Ok(Committed::At(at)) => Some((noted(*at), *at)),
                Ok(Committed::Conflict(_)) => None,
                // It may be stored all the same: what is in memory of these tokens is read anew.
                Err(_) => {
                    live.forget(&noted(Generation(u64::MAX)));
                    None
                }
            };
            let taking = noted.as_ref().map(|(noted, at)| {
                let taking = kept.taking(*at);
                live.committed(noted, *at);
                taking
            });
            // It goes on, whether anybody still wants to know or not.
            let _unheard = tell.send(committed);
            let (Some((noted, at)), Some(taking)) = (noted, taking) else { return };
            let changed = noted.into_iter().map(|Noted { key, at, .. }| (key, at));
            let taken = Taken { changed: changed.collect(), ..Taken::default() };
            let kept = match kept.copy() {
                Some(copy) => copy.take(taken).await,
                None => Ok(()),
            };
            match kept {
                Ok(()) => taking.done(),
                // The feed brings it once more, and does not go on before it is written.
                Err(error) => tracing::error!(%error, "a commit is not in the copy yet"),
            }
            if live.is_followed() {
                // Should it take longer, the feed is broken, and said so.
                let turn = tokio::time::timeout(TURN_MAX, live.until_applied(at));
                let _in_turn = turn.await;
            }
        });
        match told.await {
            Ok(committed) => Ok((committed?, rest)),
            Err(error) => Err(StoreError::io("written", error)),
        }
    }

    /// What a token's record says: a credential, and how often its quotas were reset.
    ///
    /// # Errors
    /// When it is no such record.
    pub fn read_key(value: &[u8]) -> Result<(Credential, u64), StoreError> {
        key::credential(value).map_err(|fault| {
            tracing::error!(fault, "a credential's record cannot be read");
            StoreError::Damaged { what: "a token record" }
        })
    }

    /// Takes these APIs for those there were, in one step. One that is as it was stays the same
    /// value. Says whether anything changed.
    pub fn replace_apis(&self, apis: Vec<Arc<Api>>) -> bool {
        self.live.replace_apis(apis)
    }

    /// Reads a token's record from the store.
    ///
    /// # Errors
    /// When the store does not answer: the token is then neither known nor unknown.
    pub async fn look_up(&self, hash: &TokenHash) -> Result<Looked, StoreError> {
        let key = RecordKey::bytes(Kind::Token, hash.0);
        Ok(Looked::of(self.store.get(&key).await?))
    }
}
