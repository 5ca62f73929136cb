//! What changes while a gateway runs, shared by commits under way and the change feed.
//!
//! With a feed, its order is the order of everything: the snapshot's generation and the applied one
//! rise with the feed alone, so that two gateways at one generation know the same limits. What was
//! committed here is enforced at once all the same, ahead of its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::catalog::Snapshot;
use crate::domain::api::Api;
use crate::domain::token::TokenHash;
use crate::store::{Generation, Kind, RecordKey};

/// Counters of changes: a token's changes are told from those of most others, so that a bulk
/// import does not keep the tokens that are in use from being remembered.
const STRIPES: usize = 1_024;

/// What is to be forgotten of tokens, because their records changed.
#[derive(Clone, Copy, Debug)]
pub enum Forget<'a> {
    /// Whatever was made of this token's record as it was before a commit.
    Token(&'a TokenHash, Generation),
    /// Everything.
    All,
}

/// Who wants to know.
pub(super) type Listener = Box<dyn Fn(Forget<'_>) + Send + Sync>;

/// A record as a commit left it.
pub(super) struct Noted {
    pub(super) key: RecordKey,
    pub(super) value: Option<Arc<[u8]>>,
    /// The commit.
    pub(super) at: Generation,
}

pub(super) struct Live {
    pub(super) snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot is replaced, so that no change is lost between two of them.
    replacing: Mutex<()>,
    listener: Mutex<Option<Listener>>,
    /// By token: rise with every change of its record, before the listener is told.
    changes: Box<[AtomicU64]>,
    /// All commits up to this one are enforced here.
    applied: watch::Sender<Generation>,
    /// Whether the feed is followed.
    followed: AtomicBool,
}

impl Live {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self {
            applied: watch::channel(snapshot.generation).0,
            snapshot: ArcSwap::from_pointee(snapshot),
            replacing: Mutex::new(()),
            listener: Mutex::new(None),
            changes: std::iter::repeat_with(AtomicU64::default).take(STRIPES).collect(),
            followed: AtomicBool::new(false),
        }
    }

    pub(super) fn listen(&self, listener: Listener) {
        *self.listener.lock() = Some(listener);
    }

    pub(super) fn changes(&self, token: &TokenHash) -> u64 {
        self.stripe(token).map_or(0, |stripe| stripe.load(Ordering::SeqCst))
    }

    fn stripe(&self, token: &TokenHash) -> Option<&AtomicU64> {
        let [.., a, b] = token.0;
        self.changes.get(usize::from(u16::from_be_bytes([a, b])) % STRIPES)
    }

    pub(super) fn applied(&self) -> Generation {
        *self.applied.borrow()
    }

    /// From here on the feed says what is applied.
    pub(super) fn follow(&self) {
        self.followed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::SeqCst)
    }

    /// Returns when everything up to a commit is applied.
    pub(super) async fn until_applied(&self, at: Generation) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as this.
        let _reached = applied.wait_for(|applied| at <= *applied).await;
    }

    /// Takes in what was committed here.
    pub(super) fn committed(&self, noted: &[Noted], at: Generation) {
        let in_order = !self.is_followed();
        self.take_policies(noted, in_order.then_some(at));
        self.forget(noted);
        if in_order {
            self.applied.send_if_modified(|applied| raise(applied, at));
        }
    }

    /// Takes in policies, and what the snapshot stands for then.
    pub(super) fn take_policies(&self, noted: &[Noted], at: Option<Generation>) {
        if noted.iter().all(|noted| noted.key.kind == Kind::Token) {
            return;
        }
        let _replacing = self.replacing.lock();
        let mut next = Snapshot::clone(&self.snapshot.load());
        for Noted { key, value, at } in noted {
            next.put(key, value.as_deref(), *at);
        }
        next.version = next.version.saturating_add(1);
        next.generation = next.generation.max(at.unwrap_or_default());
        self.snapshot.store(Arc::new(next));
    }

    /// Takes these APIs for those there were. Says whether anything changed.
    pub(super) fn replace_apis(&self, apis: Vec<Arc<Api>>) -> bool {
        let _replacing = self.replacing.lock();
        let now = self.snapshot.load();
        let Some(mut next) = now.with_apis(apis) else { return false };
        next.version = next.version.saturating_add(1);
        self.snapshot.store(Arc::new(next));
        true
    }

    /// All commits up to this one are taken in.
    pub(super) fn advance(&self, at: Generation) {
        self.applied.send_replace(at);
    }

    /// Starts anew with these policies, which are as of a commit or newer.
    pub(super) fn start_anew(&self, mut next: Snapshot) {
        {
            let _replacing = self.replacing.lock();
            let now = self.snapshot.load();
            // APIs come from the configuration, and may have been reloaded meanwhile.
            next.keep_apis(&now);
            next.version = now.version.saturating_add(1);
            self.snapshot.store(Arc::new(next));
        }
        self.forget_all();
    }

    /// Whatever was made of any token's record is to be forgotten.
    pub(super) fn forget_all(&self) {
        for stripe in &self.changes {
            stripe.fetch_add(1, Ordering::SeqCst);
        }
        self.tell(Forget::All);
    }

    /// Whatever was made of these tokens' records is to be forgotten.
    pub(super) fn forget(&self, noted: &[Noted]) {
        for Noted { key, at, .. } in noted.iter().filter(|noted| noted.key.kind == Kind::Token) {
            let Ok(hash) = <[u8; 32]>::try_from(key.id.as_ref()) else { continue };
            let token = TokenHash(hash);
            if let Some(stripe) = self.stripe(&token) {
                stripe.fetch_add(1, Ordering::SeqCst);
            }
            self.tell(Forget::Token(&token, *at));
        }
    }

    fn tell(&self, forget: Forget<'_>) {
        if let Some(listener) = self.listener.lock().as_ref() {
            listener(forget);
        }
    }
}

fn raise(applied: &mut Generation, at: Generation) -> bool {
    let raised = *applied < at;
    *applied = at.max(*applied);
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(hash: [u8; 32], at: u64) -> Noted {
        let key = RecordKey::bytes(Kind::Token, hash);
        Noted { key, value: None, at: Generation(at) }
    }

    #[test]
    fn a_change_of_a_token_is_told_from_those_of_others() {
        let live = Live::new(Snapshot::new(Vec::new(), Generation(1)));
        let told = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&told);
        live.listen(Box::new(move |forget| {
            into.lock().push(match forget {
                Forget::Token(token, at) => Some((*token, at)),
                Forget::All => None,
            });
        }));
        let (one, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        let before = (live.changes(&one), live.changes(&other));
        live.committed(&[token([1; 32], 7)], Generation(7));
        assert_ne!(live.changes(&one), before.0);
        assert_eq!(live.changes(&other), before.1);
        assert_eq!(live.applied(), Generation(7));
        live.start_anew(Snapshot::new(Vec::new(), Generation(9)));
        assert_ne!(live.changes(&other), before.1);
        assert_eq!(*told.lock(), [Some((one, Generation(7))), None]);
    }

    #[test]
    fn what_is_committed_here_holds_at_once_and_counts_in_its_turn() {
        let live = Live::new(Snapshot::new(Vec::new(), Generation(1)));
        live.follow();
        let plan = Noted {
            key: RecordKey::number(Kind::Plan, 3),
            value: Some(
                br#"{"id":3,"cid":"c","created_ms":0,"updated_ms":0,
                    "members":{"Name":"p","ProviderID":1}}"#
                    .as_slice()
                    .into(),
            ),
            at: Generation(9),
        };
        live.committed(&[plan], Generation(9));
        assert_eq!(live.snapshot.load().policy_count(), 1);
        assert_eq!(live.snapshot.load().generation, Generation(1), "8 may still come");
        assert_eq!(live.applied(), Generation(1));
    }
}
