//! What a counter is named by.

use std::fmt;
use std::sync::Arc;

use crate::domain::id::{AppId, ConsumerOrgId, CredentialId, UserId};
use crate::domain::time::UnixMs;

/// One run of a gateway: 64 random bits, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// Whose units are counted. All counters of a subject lie in one shard of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One credential; the rates of its tokens lie with it.
    Credential(CredentialId),
    /// All credentials of an app.
    App(AppId),
    /// All credentials of a user.
    Developer(UserId),
    /// All credentials of a consumer organisation.
    Organisation(ConsumerOrgId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(id) => write!(f, "c{id}"),
            Self::App(id) => write!(f, "a{id}"),
            Self::Developer(id) => write!(f, "u{id}"),
            Self::Organisation(id) => write!(f, "o{id}"),
        }
    }
}

/// The name of one counter: its subject and its limit's definition.
///
/// The definition spells everything that makes two limits count apart (kind, scope, period, and
/// for rates the token), and not their numbers: a raised limit goes on with the same counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    /// Whose.
    pub subject: Subject,
    /// Which limit, such as `q//e86400000` or `r/5f0c.../10000`.
    pub definition: Arc<str>,
}

impl fmt::Display for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.subject, self.definition)
    }
}

/// One period of a quota: `[start, end)`. Its units can be spent in no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// First instant.
    pub start: UnixMs,
    /// First instant after it; `None` for a quota that never renews.
    pub end: Option<UnixMs>,
    /// How often an administrator reset the quota: a reset starts a new window.
    pub reset: u64,
}

impl Window {
    /// Whether `now` lies inside.
    #[must_use]
    pub fn contains(&self, now: UnixMs) -> bool {
        self.start <= now && self.end.is_none_or(|end| now < end)
    }
}
