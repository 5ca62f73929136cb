//! One shard of the store: which life of the store it is in, and how it learns what it has lost.
//!
//! A store may lose its last writes, or all of them: a restart, a failover, a flush. Every such
//! loss begins a new [`Incarnation`]. While a shard is *learning* it grants nothing, and gateways
//! assert what they remember; units they hold go on being spent meanwhile. design.md, section 4,
//! "The scripts", step 1 of **reserve**, and **assert**.
//!
//! The store's side is [`Shard`] and, for each quota counter, [`Kept`]; the gateway's side is
//! [`Member`] and, for each quota counter, [`Held`]. Time is an argument: the store's own clock.

use std::collections::BTreeSet;

use crate::domain::counter::ProcessId;

mod held;
mod kept;
mod local;
#[cfg(test)]
mod tests;

pub use held::{Accepted, Assertion, Held, Member, QuotaReply};
pub use kept::{CounterCopy, Kept};
pub use local::local_share;

/// Learning lasts at least this long: gateways poll every node once a second.
pub const LEARN_MS_MIN: u64 = 1_000;
/// Learning ends after this long, whoever is missing: a gateway silent for so long counts as gone.
pub const LEARN_MS_MAX: u64 = 5_000;
/// Learning ends after this long even while asserts arrive: past it, waiting costs more than the
/// units at stake.
pub const LEARN_ARRIVING_MS_MAX: u64 = 30_000;
/// An assert keeps learning open for so long after it, so that the next batch finds it open.
pub const LEARN_PAUSE_MS: u64 = 1_000;

/// One life of a shard, between two losses. Only ever compared; 0 is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// One run of a server, as it names itself: 40 hexadecimal digits in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub [u8; 20]);

/// Where and when a call is executed, as the server itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The server's clock, in milliseconds. Correctness does not need it to be right.
    pub now_ms: u64,
    /// The server's run.
    pub run: RunId,
}

/// What a shard says to a reserve before it looks at a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The call may be executed.
    Open,
    /// The caller has to assert what it remembers, if it has not, and to come again.
    Learn,
}

/// How an assert is to be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Copies and cells count.
    Learning,
    /// Grants go on already: only the caller's own cell counts.
    After,
}

/// One batch of a gateway's assertions on one shard; the counters come beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssertCall {
    /// Who asserts.
    pub process: ProcessId,
    /// The incarnation the caller was told to assert in.
    pub incarnation: Incarnation,
    /// Live gateways, as the caller last read them.
    pub live: BTreeSet<ProcessId>,
    /// Whether this is the last batch.
    pub done: bool,
}

/// Who has said what since learning began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learning {
    /// When it began, in milliseconds.
    pub began_ms: u64,
    /// When it ends at the latest, in milliseconds; moves while asserts arrive.
    pub until_ms: u64,
    /// Gateways that somebody who asserted takes to be alive.
    pub listed: BTreeSet<ProcessId>,
    /// Gateways that asserted all they remember.
    pub done: BTreeSet<ProcessId>,
}

/// One shard, without its counters. The default is a shard whose key is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The life it is in.
    pub incarnation: Incarnation,
    /// The run of the server that began this life.
    pub run: Option<RunId>,
    /// Since when rates before it are unknown, in milliseconds.
    pub blind_since_ms: u64,
    /// Set while the shard grants nothing.
    pub learning: Option<Learning>,
}

impl Shard {
    /// Step 1 of `reserve`: begins a new incarnation where writes were lost, ends learning where
    /// it is over, and says whether a call that names `from` may be executed.
    pub fn enter(&mut self, from: Incarnation, at: &At) -> Entry {
        self.keep_up(from, at);
        if self.learning.is_some() || from < self.incarnation { Entry::Learn } else { Entry::Open }
    }

    /// Takes the head of an assert in; `None` means LEARN: the caller asserts in a life that is
    /// over, or one that this store never heard of, and what it says now may be out of date.
    pub fn assert(&mut self, call: &AssertCall, at: &At) -> Option<Stage> {
        self.keep_up(call.incarnation, at);
        if call.incarnation < self.incarnation {
            return None;
        }
        let Some(learning) = &mut self.learning else { return Some(Stage::After) };
        learning.listed.extend(call.live.iter().copied());
        learning.listed.insert(call.process);
        if call.done {
            learning.done.insert(call.process);
        }
        let latest = learning.began_ms.saturating_add(LEARN_ARRIVING_MS_MAX);
        let wanted = at.now_ms.saturating_add(LEARN_PAUSE_MS).min(latest);
        learning.until_ms = learning.until_ms.max(wanted);
        Some(Stage::Learning)
    }

    fn keep_up(&mut self, from: Incarnation, at: &At) {
        if self.run != Some(at.run) || self.incarnation < from {
            let newest = self.incarnation.max(from).max(Incarnation(at.now_ms));
            *self = Self {
                incarnation: Incarnation(newest.0.saturating_add(1)),
                run: Some(at.run),
                blind_since_ms: at.now_ms,
                learning: Some(Learning::begun(at.now_ms)),
            };
        }
        if let Some(learning) = &mut self.learning
            && at.now_ms < learning.began_ms
        {
            // The clock was set back: what would end far in the future begins again.
            learning.began_ms = at.now_ms;
            learning.until_ms = at.now_ms.saturating_add(LEARN_MS_MAX);
        }
        // Once over, it stays over: grants may have followed.
        if self.learning.as_ref().is_some_and(|learning| learning.is_over(at.now_ms)) {
            self.learning = None;
        }
    }
}

impl Learning {
    fn begun(now_ms: u64) -> Self {
        Self {
            began_ms: now_ms,
            until_ms: now_ms.saturating_add(LEARN_MS_MAX),
            listed: BTreeSet::new(),
            done: BTreeSet::new(),
        }
    }

    /// Whether nothing more is to be waited for. That nobody has said anything is no end: then
    /// nobody has said who is alive either.
    fn is_over(&self, now_ms: u64) -> bool {
        let heard_all = !self.done.is_empty() && self.listed.is_subset(&self.done);
        let shortest = self.began_ms.saturating_add(LEARN_MS_MIN);
        self.until_ms <= now_ms || (heard_all && shortest <= now_ms)
    }
}
