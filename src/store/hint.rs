//! Hints between gateways on one store: who is short of units, and that some came back.
//!
//! They only save time. Any may be lost, late or repeated, and nothing that is safe rests on one.

use crate::domain::counter::{CounterKey, ProcessId};
use crate::store::AnyStore;

/// What a hint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintKind {
    /// A request was refused while others hold units: who has no use for his gives them back.
    Short,
    /// Units came back of which there had been too few: who was refused may ask again.
    Freed,
}

/// One hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Who gives it: everybody hears his own, too.
    pub from: ProcessId,
    /// What it says.
    pub kind: HintKind,
    /// Of which counter.
    pub key: CounterKey,
}

impl AnyStore {
    /// Gives a hint to all gateways, soon. It is dropped where too many wait.
    pub fn give_hint(&self, hint: Hint) {
        match self {
            // Nobody else is there to hear it.
            Self::Embedded(_) => drop(hint),
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.hints().give(hint),
        }
    }

    /// The next hint that was given; there may never be one.
    pub async fn next_hint(&self) -> Hint {
        match self {
            Self::Embedded(_) => std::future::pending().await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.hints().next().await,
        }
    }
}
