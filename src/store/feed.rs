//! The change feed: which records each commit wrote, in order, so that gateways follow along.

#[cfg(doc)]
use crate::store::Kind;
use crate::store::{AnyStore, Generation, RecordKey, StoreError};

/// One commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its generation.
    pub generation: Generation,
    /// The records it wrote or deleted, of kinds that [`Kind::is_followed`]. Their values are read from
    /// the store, and are at least as new as this commit.
    pub keys: Vec<RecordKey>,
}

/// What happened after some generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These commits, in order, and none between them. Empty: there was none until just now, so
    /// whoever asked is up to date.
    Next(Vec<Change>),
    /// The feed does not reach back that far, or the store has lost writes: everything that was
    /// read may be out of date, and is read anew. The generation was that of the last commit.
    Gap(Generation),
}

impl AnyStore {
    /// Whether others may commit, so that there is something to follow.
    #[must_use]
    pub fn has_feed(&self) -> bool {
        match self {
            Self::Embedded(_) => false,
            #[cfg(feature = "redis")]
            Self::Redis(_) => true,
        }
    }

    /// Waits until a commit after `after` was made, for half a second at most, and tells of it.
    /// A store of one gateway has nobody to tell: there the future never ends.
    ///
    /// # Errors
    /// When the store does not answer. The same call can be made again.
    pub async fn changes(&self, after: Generation) -> Result<Changes, StoreError> {
        match self {
            Self::Embedded(_) => {
                let _nobody_follows = after;
                std::future::pending().await
            }
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.changes(after).await,
        }
    }
}
