//! What the gateway knows: APIs and policies as one immutable snapshot, credentials read through.
//!
//! Reading a snapshot takes no lock. Changes come in through [`Catalog::commit`], which stores
//! them and applies them here before it returns: who was told "stored" finds it enforced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::domain::api::Api;
use crate::domain::credential::Credential;
use crate::domain::token::{Pepper, TokenHash};
use crate::store::{
    AnyStore, Committed, Generation, Kind, Record, RecordKey, RecordStore, StoreError, Write,
};

mod key;
mod snapshot;

pub use snapshot::{Snapshot, policy_id};

/// Records read from the store in one go while loading.
const LOAD_PAGE: usize = 500;

/// Who wants to know that a token's record changed: whatever was made of it is to be forgotten.
type Listener = Box<dyn Fn(&TokenHash) + Send + Sync>;

/// The catalog of one process.
pub struct Catalog {
    store: Arc<AnyStore>,
    pepper: Pepper,
    live: Arc<Live>,
}

/// What changes, shared with the commits under way.
struct Live {
    snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot is replaced, so that no change is lost between two of them.
    replacing: Mutex<()>,
    listener: Mutex<Option<Listener>>,
    /// Rises with every change of a token's record, before the listener is told.
    changes: AtomicU64,
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
        let generation = store.generation().await?;
        let mut snapshot = Snapshot::new(apis, generation);
        for kind in [Kind::Product, Kind::Plan, Kind::Policy] {
            let mut after: Option<Arc<[u8]>> = None;
            loop {
                let page = store.list(kind, &[], after.as_deref(), LOAD_PAGE).await?;
                after = page.records.last().map(|(key, _)| Arc::clone(&key.id));
                for (key, record) in page.records {
                    snapshot.put(&key, Some(&record.value), record.generation);
                }
                if !page.more {
                    break;
                }
            }
        }
        let live = Live {
            snapshot: ArcSwap::from_pointee(snapshot),
            replacing: Mutex::new(()),
            listener: Mutex::new(None),
            changes: AtomicU64::new(0),
        };
        Ok(Self { store, pepper, live: Arc::new(live) })
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
    pub fn on_change(&self, listener: impl Fn(&TokenHash) + Send + Sync + 'static) {
        *self.live.listener.lock() = Some(Box::new(listener));
    }

    /// Rises with every change of a token's record. Who reads a record and keeps what it made of
    /// it compares before and after: if they differ, it may have kept an old one.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.live.changes.load(Ordering::SeqCst)
    }

    /// Stores, and applies here.
    ///
    /// Once begun it goes on to its end, whether or not the caller waits for it: what is stored is
    /// enforced, also when the client that asked for it has hung up.
    ///
    /// # Errors
    /// When the store does not answer; it may then have stored or not, all or nothing.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        let noted: Vec<(RecordKey, Option<Arc<[u8]>>)> = writes
            .iter()
            .filter(|write| concerns_us(write.key.kind))
            .map(|write| (write.key.clone(), write.value.clone()))
            .collect();
        let (store, live) = (Arc::clone(&self.store), Arc::clone(&self.live));
        let whole = tokio::spawn(async move {
            let committed = store.commit(writes).await;
            match &committed {
                Ok(Committed::At(generation)) => live.apply(&noted, *generation),
                Ok(Committed::Conflict(_)) => {}
                // It may be stored all the same: what is in memory of these tokens is read anew.
                Err(_) => live.forget(&noted),
            }
            committed
        });
        whole.await.unwrap_or_else(|error| Err(StoreError::io("written", error)))
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
        let _replacing = self.live.replacing.lock();
        let now = self.live.snapshot.load();
        let Some(mut next) = now.with_apis(apis) else { return false };
        next.version = next.version.saturating_add(1);
        self.live.snapshot.store(Arc::new(next));
        true
    }

    /// Reads a token's record from the store.
    ///
    /// # Errors
    /// When the store does not answer: the token is then neither known nor unknown.
    pub async fn look_up(&self, hash: &TokenHash) -> Result<Looked, StoreError> {
        let key = RecordKey::bytes(Kind::Token, hash.0);
        let Some(Record { value, generation }) = self.store.get(&key).await? else {
            return Ok(Looked::Unknown);
        };
        Ok(match key::credential(&value) {
            Ok((credential, resets)) => {
                Looked::Up { credential: Box::new(credential), resets, generation }
            }
            Err(fault) => Looked::Damaged(fault),
        })
    }
}

impl Live {
    fn apply(&self, noted: &[(RecordKey, Option<Arc<[u8]>>)], generation: Generation) {
        if noted.iter().any(|(key, _)| key.kind != Kind::Token) {
            let _replacing = self.replacing.lock();
            let mut next = Snapshot::clone(&self.snapshot.load());
            for (key, value) in noted {
                next.put(key, value.as_deref(), generation);
            }
            next.version = next.version.saturating_add(1);
            next.generation = next.generation.max(generation);
            self.snapshot.store(Arc::new(next));
        }
        self.forget(noted);
    }

    /// Whatever was made of these tokens' records is to be forgotten.
    fn forget(&self, noted: &[(RecordKey, Option<Arc<[u8]>>)]) {
        let listener = self.listener.lock();
        for (key, _) in noted.iter().filter(|(key, _)| key.kind == Kind::Token) {
            let Ok(hash) = <[u8; 32]>::try_from(key.id.as_ref()) else { continue };
            self.changes.fetch_add(1, Ordering::SeqCst);
            if let Some(listener) = listener.as_ref() {
                listener(&TokenHash(hash));
            }
        }
    }
}

/// Whether the catalog makes something of records of a kind.
fn concerns_us(kind: Kind) -> bool {
    matches!(kind, Kind::Token | Kind::Product | Kind::Plan | Kind::Policy)
}
