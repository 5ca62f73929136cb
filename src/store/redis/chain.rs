//! Commits that come right after one of the same gateway.
//!
//! A script takes longer over a record than the command that it calls: a third of what a large commit of new
//! records costs the server (`load/results`, 2026-11-29, import). So the new records of these go by MSETNX itself, in a transaction with two calls
//! of the script: one before it that looks at all that the commit relies on, and one behind it for the
//! rest. MSETNX writes nothing if one of its keys is there. The guard is such a key; the look deletes it only
//! if all is well.
//!
//! Each record begins with its generation, so the gateway must name it beforehand. It may where the last
//! commit was its own, and came by the same connection: then it is the same server, which has lost nothing
//! since, and a generation between the two was never given to another commit. The look sees that no
//! other has come in between, and that the generation is not above the server's time. Whatever speaks
//! against it, nothing is written, and the script as a whole decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::domain::time::BootNs;
use crate::store::redis::commit::{Commit, Part};
use crate::store::redis::keys::Keys;
use crate::store::redis::records::Records;
use crate::store::{Generation, StoreError};

/// The fewest records that are new for which it is worth it.
const NEW_MIN: usize = 64;
/// Commits that go as a whole after one that was tried in vain: somebody else commits, too.
const PAUSE: u32 = 16;

/// What is known of the last commit of this gateway.
#[derive(Debug)]
pub(super) struct Chain {
    clock: Arc<dyn Clock>,
    last: Mutex<Option<Landed>>,
    /// Commits that are not tried.
    pause: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
struct Landed {
    at: Generation,
    heard: BootNs,
    /// The connection it came by.
    connection: u64,
}

impl Chain {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: Mutex::default(), pause: AtomicU32::default() }
    }

    /// A commit is through.
    pub(super) fn landed(&self, at: Generation, connection: u64) {
        *self.last.lock() = Some(Landed { at, heard: self.clock.boot(), connection });
    }

    /// The generation of a commit right after that at `ahead`, and the connection it has to go by: where
    /// that was the last, and at least a millisecond ago.
    fn after(&self, ahead: Generation) -> Option<(Generation, u64)> {
        let Landed { at, heard, connection } = (*self.last.lock())?;
        let passed_ms = self.clock.boot().since_ms(heard);
        if at != ahead || passed_ms == 0 {
            return None;
        }
        let paused = |left: u32| left.checked_sub(1);
        if self.pause.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paused).is_ok() {
            return None;
        }
        Some((Generation(ahead.0.checked_add(passed_ms)?), connection))
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
        let Some((next, connection)) = self.chain.after(ahead) else { return Ok(None) };
        let cmds = |echo| {
            let script = |part| {
                let mut cmd = self.commit.whole_call(&commit.names(keys, part), echo);
                commit.arguments(&mut cmd, part, self.feed_len, ahead);
                cmd
            };
            let mut guard = redis::cmd("SET");
            guard.arg(keys.guard.as_slice()).arg("up");
            let records = commit.new_records(keys, next);
            vec![guard, script(Part::Look(next)), records, script(Part::Rest(next))]
        };
        let ran = self.link.transaction(connection, self.deadline_long, cmds).await?;
        let Some(mut answer) = ran else { return Ok(None) };
        if answer.number()? != 0 {
            self.chain.pause.store(PAUSE, Ordering::Relaxed);
            return Ok(None);
        }
        self.chain.landed(next, answer.connection);
        Ok(Some(next))
    }
}
