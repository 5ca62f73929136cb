//! The shards of the counters: which life each is in, and telling a store what it has lost.
//!
//! A store of one gateway loses nothing that was answered: it is one shard with one life.

use std::collections::BTreeSet;

use crate::domain::counter::{CounterKey, ProcessId, Window};
use crate::domain::shard::{Assertion, Incarnation, Member};
use crate::domain::time::UnixMs;
use crate::store::{AnyStore, StoreError};

/// One of the places that counters are spread over. All counters of a subject lie in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

/// What a process remembers of one quota counter.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Which counter.
    pub key: CounterKey,
    /// In which window.
    pub window: Window,
    /// When the subject's rolling periods began, if they roll.
    pub anchor: Option<UnixMs>,
    /// What is remembered.
    pub assertion: Assertion,
}

/// What a process remembers of one rate counter.
#[derive(Clone, Debug)]
pub struct RememberedRate {
    /// Which counter.
    pub key: CounterKey,
    /// Units that count, and in how many milliseconds they leave.
    pub told: Vec<(u64, u64)>,
}

/// A part of what a process remembers of one shard.
#[derive(Clone, Debug)]
pub struct AssertBatch<'a> {
    /// Who asserts.
    pub process: ProcessId,
    /// Live gateways, as the caller last read them.
    pub live: &'a BTreeSet<ProcessId>,
    /// Quota counters.
    pub counters: &'a [Remembered],
    /// Rate counters.
    pub rates: &'a [RememberedRate],
    /// Whether there are no more.
    pub last: bool,
}

impl AnyStore {
    /// Where a counter lies.
    #[must_use]
    pub fn shard(&self, key: &CounterKey) -> ShardId {
        match self {
            Self::Embedded(_) => ShardId(0),
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.shards().of(key),
        }
    }

    /// This process's standing at a shard.
    #[must_use]
    pub fn member(&self, shard: ShardId) -> Member {
        match self {
            Self::Embedded(_) => Member::begun(Incarnation(0), false),
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.shards().member(shard),
        }
    }

    /// Whether a store may forget what it answered, so that it has to be remembered here.
    #[must_use]
    pub fn may_forget(&self) -> bool {
        match self {
            Self::Embedded(_) => false,
            #[cfg(feature = "redis")]
            Self::Redis(_) => true,
        }
    }

    /// Shards that began a new life which this process has not asserted in.
    #[must_use]
    pub fn unasserted(&self) -> Vec<ShardId> {
        match self {
            Self::Embedded(_) => Vec::new(),
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.shards().unasserted(),
        }
    }

    /// Returns when a shard is found to have begun a new life; may return without reason.
    pub async fn until_lost(&self) {
        match self {
            Self::Embedded(_) => std::future::pending().await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.shards().until_lost().await,
        }
    }

    /// Returns when a shard may have been opened again. Has to be called before it is looked at.
    pub async fn until_told(&self) {
        match self {
            Self::Embedded(_) => std::future::pending().await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.shards().until_told().await,
        }
    }

    /// Looks which life each shard is in.
    ///
    /// # Errors
    /// When the store does not answer for one of them; what was learned of the others counts.
    pub async fn poll(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) => Ok(()),
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.poll().await,
        }
    }

    /// Tells a shard a part of what is remembered of it. After the last part calls may be made,
    /// unless the shard has begun yet another life.
    ///
    /// # Errors
    /// When the store does not answer: all has to be told again.
    pub async fn assert(&self, shard: ShardId, batch: &AssertBatch<'_>) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) => {
                let _nothing_is_ever_lost = (shard, batch);
                Ok(())
            }
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.assert(shard, batch).await,
        }
    }
}
