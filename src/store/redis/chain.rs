//! Commits that come right after one of the same gateway.
//!
//! A script takes longer over a record than the command that it calls: half of what a large commit of new
//! records costs the server. So these go by MSETNX itself, in a transaction of three: a look at all that the
//! commit relies on, the records that are new, and the rest. MSETNX writes nothing if one of its keys is
//! there, and the look leaves one there that is, the guard, unless all is well. For each record has its
//! generation in front, the gateway says which it will be: it can where it made the commit before, and that
//! is still the last. Whatever speaks against it, the script alone decides.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::domain::time::BootNs;
use crate::store::redis::commit::{Commit, Part};
use crate::store::redis::fault::RedisFault;
use crate::store::redis::keys::Keys;
use crate::store::redis::records::Records;
use crate::store::{Generation, StoreError};

/// The fewest records that are new for which it is worth it.
const NEW_MIN: usize = 64;

/// The last commit of this gateway.
#[derive(Debug)]
pub(super) struct Chain {
    clock: Arc<dyn Clock>,
    /// Its generation, and when that was heard.
    last: Mutex<Option<(Generation, BootNs)>>,
}

impl Chain {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: Mutex::default() }
    }

    /// A commit is through.
    pub(super) fn landed(&self, at: Generation) {
        *self.last.lock() = Some((at, self.clock.boot()));
    }

    /// The generation of a commit right after that at `ahead`, if that was the last. It is not above the
    /// server's time, as no generation is that the server makes: time has passed there, too, and longer.
    fn after(&self, ahead: Generation) -> Option<Generation> {
        let (_, heard) = self.last.lock().filter(|(last, _)| *last == ahead)?;
        let passed_ms = self.clock.boot().since_ms(heard);
        ahead.0.checked_add(passed_ms.max(1)).map(Generation)
    }
}

impl Records {
    /// Commits right after `ahead`; `None` where that cannot be, and nothing is written.
    pub(super) async fn commit_next(
        &self,
        keys: &Keys,
        commit: &Commit<'_>,
        ahead: Option<Generation>,
    ) -> Result<Option<Generation>, StoreError> {
        let Some(ahead) = ahead.filter(|_| NEW_MIN <= commit.new_count()) else { return Ok(None) };
        let Some(next) = self.chain.after(ahead) else { return Ok(None) };
        let cmds = |echo| {
            let script = |part| {
                let mut cmd = self.commit.whole_call(&commit.names(keys, part), echo);
                commit.arguments(&mut cmd, part, self.feed_len, ahead);
                cmd
            };
            let mut guard = redis::cmd("SET");
            guard.arg(keys.guard.as_slice()).arg("up");
            let records = commit.new_records(keys, next);
            vec![guard, script(Part::Look), records, script(Part::Rest(next))]
        };
        let answer = match self.link.transaction(self.deadline_long, cmds).await {
            Err(error) if is_refusal(&error) => None,
            ran => ran?,
        };
        let Some(mut answer) = answer else { return Ok(None) };
        if answer.number()? != 0 {
            return Ok(None);
        }
        self.chain.landed(next);
        Ok(Some(next))
    }
}

/// Whether it was the server that did not do something.
fn is_refusal(error: &StoreError) -> bool {
    let StoreError::Io { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(RedisFault::Refused { .. }))
}
