//! Turns of those who found others faster, so that they stop passing one another: on one gateway by a
//! lock, between gateways by a record that whoever writes without a pause looks at.

use tokio::sync::MutexGuard;

use super::AdminState;
use crate::store::{
    AnyStore, Expect, Generation, Kind, Record, RecordKey, RecordStore, StoreError, Write,
};

/// How long who writes without a pause makes some after it was asked for, in milliseconds of the store.
const ASKED_MS: u64 = 1_000;

/// The record that is written to ask for a pause.
pub(crate) fn key() -> RecordKey {
    RecordKey::bytes(Kind::Meta, "turn")
}

/// Takes a turn, if it is not taken already; asks for a pause on other gateways, each time.
pub(crate) async fn take<'s>(
    state: &'s AdminState,
    turn: &mut Option<MutexGuard<'s, ()>>,
) -> Result<(), StoreError> {
    if turn.is_none() {
        *turn = Some(state.turns.lock().await);
    }
    ask(state.catalog.store()).await
}

/// Asks those who write without a pause, on other gateways, to make some.
pub(crate) async fn ask(store: &AnyStore) -> Result<(), StoreError> {
    if !store.has_feed() {
        return Ok(());
    }
    let write = Write { key: key(), expect: Expect::Anything, value: Some([].into()) };
    store.commit(vec![write]).await.map(drop)
}

/// Whether a pause was asked for shortly before `now`, the generation of a late commit: generations
/// are the store's milliseconds, or more.
pub(crate) fn is_asked(asked: &Record, now: Generation) -> bool {
    now.0.saturating_sub(asked.generation.0) < ASKED_MS
}
