//! Sessions in memory: those of known tokens, and apart from them the tokens known to be unknown,
//! so that a flood of the latter evicts nothing.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle, EntryAction};

use crate::catalog::{Forget, Looked};
use crate::domain::id::CredentialId;
use crate::domain::token::TokenHash;
use crate::enforce::Enforcer;
use crate::enforce::refused::Refused;
use crate::enforce::session::{Session, TokenRecord};
use crate::metrics::CacheUse;
use crate::store::{Generation, StoreError};

/// Known and unknown tokens.
#[derive(Debug)]
pub(super) struct Sessions {
    known: Cache<TokenHash, Arc<Session>, UnitWeighter, Prefix>,
    unknown: Cache<TokenHash, (), UnitWeighter, Prefix>,
    refused: Refused,
}

/// What is known of a token.
#[derive(Debug)]
pub(super) enum Found {
    Session(Arc<Session>),
    Unknown,
    /// Not looked up: its sender tried too many.
    Blocked {
        retry_ms: u64,
    },
}

impl Sessions {
    pub(super) fn new(known_max: usize, unknown_max: usize) -> Self {
        let refused = Refused::default();
        Self { known: bounded(known_max), unknown: bounded(unknown_max), refused }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets what was made of records that changed.
    pub(super) fn forget(&self, what: Forget<'_>) {
        match what {
            Forget::Token(token, at) => {
                self.known.remove_if(token, |session| session.record.generation < at);
                self.unknown.remove(token);
                self.refused.forget(token);
            }
            Forget::All => {
                self.known.clear();
                self.unknown.clear();
                self.refused.clear();
            }
        }
    }

    /// Credentials whose policies cannot be applied, and why: some of those used lately.
    pub(super) fn refused(&self) -> Vec<(CredentialId, String)> {
        self.refused.list()
    }

    /// The session of a token, from memory or, once for all who wait, from the store. `blocked`
    /// is asked before the store is.
    pub(super) async fn find(
        &self,
        token: &TokenHash,
        of: &Enforcer,
        blocked: impl FnOnce() -> Option<u64>,
    ) -> Result<Found, StoreError> {
        if let Some(session) = self.known.get(token) {
            of.metrics.cache(CacheUse::Hit);
            return Ok(Found::Session(self.current(session, of)));
        }
        if let Some(retry_ms) = blocked() {
            return Ok(Found::Blocked { retry_ms });
        }
        if self.unknown.get(token).is_some() {
            of.metrics.cache(CacheUse::UnknownHit);
            return Ok(Found::Unknown);
        }
        // Apart, as all that is rare: what a request's future could become is copied with it.
        Box::pin(self.load(token, of)).await
    }

    async fn load(&self, token: &TokenHash, of: &Enforcer) -> Result<Found, StoreError> {
        let guard = match self.known.get_value_or_guard_async(token).await {
            Ok(session) => return Ok(Found::Session(self.current(session, of))),
            Err(guard) => guard,
        };
        let before = of.catalog.changes(token);
        let looked = of.catalog.find(token, of.settings.store_timeout).await?;
        // What changed while it was read may be this record: it serves this request, which raced
        // the change anyway, and is not kept.
        let found = match looked {
            Looked::Up { credential, resets, generation } => {
                of.metrics.cache(CacheUse::Miss);
                // Policies of the same commit or an earlier one may be on their way here.
                let in_turn = of.catalog.until_applied(generation);
                let _late = tokio::time::timeout(of.settings.store_timeout, in_turn).await;
                // What follows in the feed is news to a session that was made ahead of it.
                let generation = generation.min(of.catalog.applied());
                let record =
                    TokenRecord { token: *token, credential: *credential, resets, generation };
                let session = Arc::new(of.compile(record));
                // A guard whose place was taken out in between keeps nothing; that is fine too.
                let _kept = guard.insert(Arc::clone(&session));
                Found::Session(session)
            }
            Looked::Unknown => {
                of.metrics.cache(CacheUse::UnknownMiss);
                self.unknown.insert(*token, ());
                Found::Unknown
            }
            Looked::Damaged(fault) => {
                tracing::error!(?token, fault, "a credential's record cannot be read");
                Found::Unknown
            }
        };
        if of.catalog.changes(token) != before {
            self.forget(Forget::Token(token, Generation(u64::MAX)));
        }
        Ok(found)
    }

    /// The session, compiled anew if a policy or API changed since.
    fn current(&self, session: Arc<Session>, of: &Enforcer) -> Arc<Session> {
        if session.version == of.catalog.peek().version {
            return session;
        }
        let fresh = Arc::new(of.compile(session.record.clone()));
        // Only in the place of the very session it was made from: one that was forgotten meanwhile,
        // because its token's record changed, must not come back.
        let _kept = self.known.entry(&session.record.token, Some(Duration::ZERO), |_, kept| {
            if Arc::ptr_eq(kept, &session) {
                *kept = Arc::clone(&fresh);
            }
            EntryAction::Retain(())
        });
        fresh
    }
}

fn bounded<T: Clone>(max: usize) -> Cache<TokenHash, T, UnitWeighter, Prefix> {
    let weight = u64::try_from(max).unwrap_or(u64::MAX);
    Cache::with(max, weight, UnitWeighter, Prefix, DefaultLifecycle::default())
}

impl Enforcer {
    fn compile(&self, record: TokenRecord) -> Session {
        let snapshot = self.catalog.snapshot();
        let (mode, defaults) = (self.settings.mode, self.settings.defaults);
        let tally = self.history.tally(record.credential.id);
        let session = Session::compile(
            record,
            &snapshot,
            mode,
            defaults,
            &self.ledger,
            &self.in_flight,
            tally,
        );
        self.sessions.refused.note(&session);
        session
    }
}

/// Token hashes are uniform already, and nobody without the pepper can choose them: their first
/// eight bytes are the map's hash.
#[derive(Clone, Copy, Debug, Default)]
struct Prefix;

impl BuildHasher for Prefix {
    type Hasher = PrefixHasher;
    fn build_hasher(&self) -> PrefixHasher {
        PrefixHasher(0)
    }
}

#[derive(Debug)]
struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_be_bytes(*first);
        }
    }

    /// The length of an array comes before its bytes; it tells nothing.
    fn write_usize(&mut self, _length: usize) {}
}
