//! One call to the store per counter at a time: whoever else needs one waits for its answer.

use std::sync::Arc;

use tokio::sync::futures::Notified;

use crate::enforce::slot::Slot;

/// What a request that needs more than is in hand has to do.
pub(in crate::enforce) enum Turn<'a> {
    /// Make the call; nobody else does.
    Call(Asking),
    /// Wait for the call that is under way.
    Wait(Wait<'a>),
}

/// The mark of a call under way. Dropping it wakes who waits, also when the asking request is gone:
/// the next one makes the call anew.
pub(in crate::enforce) struct Asking(Arc<Slot>);

/// The cost of a request, counted in for as long as it waits.
pub(in crate::enforce) struct Waiting<'a>(&'a Slot, u64);

/// Waiting for the end of somebody else's call.
pub(in crate::enforce) struct Wait<'a> {
    slot: &'a Slot,
    ended: Notified<'a>,
    failures: u64,
}

/// Why a call got no answer that helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::enforce) enum Failure {
    /// The store is away.
    Away,
    /// It is there, and learns what it has lost.
    Learning,
}

impl Slot {
    /// What to do about `cost` units that are not in hand.
    pub(in crate::enforce) fn turn(self: &Arc<Self>, cost: u64) -> (Waiting<'_>, Turn<'_>) {
        // Made before the look at the mark: no end after that look is missed.
        let ended = self.changed.notified();
        let mut state = self.state.lock();
        state.waiting = state.waiting.saturating_add(cost);
        let calls = !std::mem::replace(&mut state.asking, true);
        let failures = state.failures;
        drop(state);
        let turn = match calls {
            true => Turn::Call(Asking(Arc::clone(self))),
            false => Turn::Wait(Wait { slot: self, ended, failures }),
        };
        (Waiting(self, cost), turn)
    }

    /// The mark, unless a call is under way.
    pub(in crate::enforce) fn try_ask(self: &Arc<Self>) -> Option<Asking> {
        let calls = !std::mem::replace(&mut self.state.lock().asking, true);
        calls.then(|| Asking(Arc::clone(self)))
    }
}

impl Asking {
    /// The call got no answer: who waited for it need not wait for another one.
    pub(in crate::enforce) fn failed(self, failure: Failure) {
        let mut state = self.0.state.lock();
        state.failures = state.failures.saturating_add(1);
        state.failure = failure;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.state.lock().asking = false;
        self.0.changed.notify_waiters();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waiting = state.waiting.saturating_sub(self.1);
    }
}

impl Wait<'_> {
    /// Returns when the call has ended, and why it failed if it did: each of many who wait would
    /// else wait anew, one after the other.
    pub(in crate::enforce) async fn for_answer(self) -> Option<Failure> {
        self.ended.await;
        let state = self.slot.state.lock();
        (state.failures != self.failures).then_some(state.failure)
    }
}
