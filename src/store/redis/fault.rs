//! Why Redis cannot be used, in words that hold no secret.

use crate::store::StoreError;

/// What is wrong with a Redis server, its address or what it answers.
///
/// It is the source of a [`StoreError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum RedisFault {
    /// There is no address.
    #[error("no redis url is configured")]
    NoUrl,
    /// An address is not one. The text of it is not shown: it may hold a password.
    #[error("redis url {number} {reason}")]
    Url {
        /// Which of the configured addresses, from 1.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The prefix of the keys.
    #[error("the key prefix must be 1 to 32 letters, digits, `.`, `_` or `-`")]
    Prefix,
    /// A file for TLS cannot be read.
    #[error("{path}, for redis at {address}, cannot be read")]
    File {
        /// Host and port.
        address: String,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server cannot be reached, or refuses the user.
    #[error("redis at {address} cannot be reached")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: redis::RedisError,
    },
    /// The server does not answer.
    #[error("redis at {address} does not answer within {deadline_ms} ms")]
    Silent {
        /// Host and port.
        address: String,
        /// How long was waited.
        deadline_ms: u64,
    },
    /// The server may not be asked what it is.
    #[error("redis at {address} refuses INFO to this user: the ACL must allow +info")]
    Info {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: redis::RedisError,
    },
    /// The server is too old.
    #[error("redis at {address} is version {version}: 6.2 or later is needed")]
    Version {
        /// Host and port.
        address: String,
        /// What it says it is.
        version: String,
    },
    /// The server may drop counters when its memory is full, and so admit above a limit.
    #[error(
        "redis at {address} has maxmemory-policy {policy}: it must be noeviction, \
         or counters would be lost"
    )]
    Evicts {
        /// Host and port.
        address: String,
        /// The policy it has.
        policy: String,
    },
    /// The server is a replica.
    #[error("redis at {address} is a replica: the primary is needed")]
    Replica {
        /// Host and port.
        address: String,
    },
    /// The server may lose what was to be on its disk.
    #[error(
        "redis at {address} has {setting} {value}: durability \"fsync\" needs appendonly yes, \
         appendfsync always and no-appendfsync-on-rewrite no"
    )]
    NotSynced {
        /// Host and port.
        address: String,
        /// Which of its settings.
        setting: &'static str,
        /// What it is.
        value: String,
    },
    /// The server may not be asked for its settings.
    #[error(
        "redis at {address} refuses CONFIG GET to this user: durability \"fsync\" needs \
         +config|get, to see that writes are synced"
    )]
    Config {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: redis::RedisError,
    },
    /// What was written is not where it has to be. It may get there yet.
    #[error("{confirmed} of {wanted} replicas have confirmed the write")]
    Unconfirmed {
        /// Replicas that have it.
        confirmed: u32,
        /// Replicas that should.
        wanted: u32,
    },
    /// There is no connection now. One is being made.
    #[error("redis is away")]
    Away,
    /// The server refused a call.
    #[error("redis refused the call: {code}")]
    Refused {
        /// The first word of the server's answer.
        code: String,
        /// All of it.
        #[source]
        source: redis::RedisError,
    },
    /// The connection broke under a call.
    #[error("the connection to redis broke")]
    Broken(#[source] redis::RedisError),
    /// An answer belonged to another call, or has another shape. The connection was closed.
    #[error("redis gave an answer that does not match its call")]
    Mismatch,
}

impl RedisFault {
    /// Whether a store fails because of something that only a person can change.
    #[must_use]
    pub fn is_lasting(error: &StoreError) -> bool {
        let StoreError::Io { source, .. } = error else { return !error.is_transient() };
        match source.downcast_ref::<Self>() {
            Some(
                Self::NoUrl
                | Self::Url { .. }
                | Self::Prefix
                | Self::File { .. }
                | Self::Info { .. }
                | Self::Version { .. }
                | Self::Evicts { .. }
                | Self::NotSynced { .. }
                | Self::Config { .. },
            ) => true,
            Some(
                Self::Unreachable { .. }
                | Self::Silent { .. }
                | Self::Replica { .. }
                | Self::Unconfirmed { .. }
                | Self::Away
                | Self::Refused { .. }
                | Self::Broken(_)
                | Self::Mismatch,
            )
            | None => false,
        }
    }

    /// This fault as the store's error, met while something was being `doing`.
    pub(super) fn met(self, doing: &'static str) -> StoreError {
        StoreError::io(doing, self)
    }
}
