//! When a write counts as done.

use std::num::NonZeroU32;
use std::time::Duration;

use redis::{Cmd, Value};

use crate::store::redis::fault::RedisFault;

/// A replica has this part of a call's deadline to confirm: the server's word on it has to arrive
/// in time too, or a replica that is away would be taken for a server that is.
const CONFIRM_NUMERATOR: u32 = 3;
const CONFIRM_DENOMINATOR: u32 = 4;

/// When a grant may be spent, and a commit is answered: what then is lost of them when a server
/// fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the server has done it: as much as its own settings may lose.
    #[default]
    Memory,
    /// Once it is on the server's disk: nothing, while the disk lives. The server must have
    /// `appendonly yes` and `appendfsync always`. (`WAITAOF` would not help with less: it returns
    /// with the next sync, up to a second later.)
    Fsync,
    /// Once so many replicas have it: nothing, if one of those takes over.
    Replica {
        /// How many.
        confirm: NonZeroU32,
    },
}

impl Durability {
    /// The command that follows a write on its connection, and returns when it counts as done.
    pub(super) fn confirmation(self, deadline: Duration) -> Option<Cmd> {
        match self {
            // The server answers after its sync.
            Self::Memory | Self::Fsync => None,
            Self::Replica { confirm } => {
                let span = deadline.saturating_mul(CONFIRM_NUMERATOR) / CONFIRM_DENOMINATOR;
                let mut wait = Cmd::new();
                // 0 would wait for ever.
                wait.arg("WAIT").arg(confirm.get()).arg(span.as_millis().max(1).to_string());
                Some(wait)
            }
        }
    }

    /// Whether the answer to [`Self::confirmation`] says that the write counts as done.
    pub(super) fn check(self, answer: &Value) -> Result<(), RedisFault> {
        let Self::Replica { confirm } = self else { return Ok(()) };
        let Value::Int(replicas) = answer else { return Err(RedisFault::Mismatch) };
        let confirmed = u32::try_from(*replicas).unwrap_or(0);
        if confirm.get() <= confirmed {
            return Ok(());
        }
        Err(RedisFault::Unconfirmed { confirmed, wanted: confirm.get() })
    }
}
