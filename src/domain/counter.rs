//! What a counter is named by.

use std::fmt;
use std::str::FromStr;
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

/// A text that is no counter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the name of a counter")]
pub struct InvalidKey;

/// Reads what [`Display`](fmt::Display) wrote.
impl FromStr for CounterKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (subject, definition) = text.split_once('/').ok_or(InvalidKey)?;
        let (kind, number) = subject.split_at_checked(1).ok_or(InvalidKey)?;
        let number: u64 = number.parse().map_err(|_no_number| InvalidKey)?;
        let subject = match kind {
            "c" => Subject::Credential(CredentialId(number)),
            "a" => Subject::App(AppId(number)),
            "u" => Subject::Developer(UserId(number)),
            "o" => Subject::Organisation(ConsumerOrgId(number)),
            _ => return Err(InvalidKey),
        };
        Ok(Self { subject, definition: definition.into() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back() {
        for text in ["c7/q/e60000/", "a3/q/n/p/plan-1", "u4/r/1/2/e/a/GET//x", "o5/"] {
            assert_eq!(text.parse::<CounterKey>().unwrap().to_string(), text);
        }
        for text in ["", "c7", "x7/q", "c/q", "cc/q", "/q", "c-1/q"] {
            assert_eq!(text.parse::<CounterKey>(), Err(InvalidKey), "{text}");
        }
    }
}
