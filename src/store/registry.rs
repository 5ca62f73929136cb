//! Which gateways of a store are alive, and how far each of them follows the change feed.

use crate::domain::counter::ProcessId;
use crate::store::{AnyStore, Generation, StoreError};

/// A gateway that has been silent for so long, by the store's clock, is not counted as live. Each
/// says once a second that it is.
pub const LIVE_MS: u64 = 3_000;

/// What a gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// This run of it.
    pub process: ProcessId,
    /// What people call it.
    pub name: String,
    /// The last commit that it enforces, with all before it.
    pub applied: Generation,
}

/// A gateway that spoke within the last hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which run of it.
    pub process: ProcessId,
    /// What people call it.
    pub name: String,
    /// The last commit that it said it enforces.
    pub applied: Generation,
    /// For how long it has said nothing, in milliseconds of the store's clock.
    pub silent_ms: u64,
}

impl Peer {
    /// Whether it counts as live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.silent_ms < LIVE_MS
    }
}

impl AnyStore {
    /// Whether there is a connection to the store now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.is_up(),
        }
    }

    /// Says that this gateway lives, and tells of all that did within the last hour, itself among
    /// them; the last to speak come first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn heartbeat(&self, own: &Heartbeat) -> Result<Vec<Peer>, StoreError> {
        match self {
            // Its folder is open once.
            Self::Embedded(_) => {
                let Heartbeat { process, name, applied } = own.clone();
                Ok(vec![Peer { process, name, applied, silent_ms: 0 }])
            }
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.heartbeat(own).await,
        }
    }

    /// Says that this gateway ends: it is not told of any more.
    ///
    /// # Errors
    /// When the store does not answer; the gateway then counts as live for a few more seconds.
    pub async fn sign_off(&self, process: ProcessId) -> Result<(), StoreError> {
        match self {
            Self::Embedded(_) => {
                let _nobody_counts = process;
                Ok(())
            }
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.sign_off(process).await,
        }
    }
}
