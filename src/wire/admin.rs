//! What the admin listener keeps for itself: its tokens, the log of what was done, and answers.

use serde::{Deserialize, Serialize};

/// What an admin token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Reading all but admin tokens.
    Read,
    /// Changing all but admin tokens.
    Write,
    /// Bulk imports, and how they go.
    Import,
    /// Reading what was used.
    Usage,
}

impl Scope {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Import, Self::Usage];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Import => "import",
            Self::Usage => "usage",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// An admin token. Its record is named by the token's hash; the token itself lies nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminToken {
    /// Its number.
    pub id: u64,
    /// Its name: who uses it, in the audit log.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it was made, in unix milliseconds.
    pub created_ms: u64,
    /// When it was last used, to about a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_ms: Option<u64>,
}

/// The answer to a write, for when the same request comes again. It holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Its turn among all such.
    pub number: u64,
    /// First instant at which it is not given any more, in unix milliseconds.
    pub until_ms: u64,
    /// What the request's body hashes to.
    pub request: [u8; 32],
    /// Its status.
    pub status: u16,
    /// The object it was about.
    pub object: String,
    /// Its body.
    pub answer: serde_json::Value,
}

/// One write through the admin listener. It holds nothing that was sent but numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was answered, in unix milliseconds.
    pub at_ms: u64,
    /// The name of the admin token; `admin` is the configured secret.
    pub who: String,
    /// The method.
    pub method: String,
    /// The path as far as it is known: numbers of objects are in it, other names are `-`.
    pub path: String,
    /// The object it was about, such as `app 41`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// How it was answered.
    pub status: u16,
    /// The id of the request, as its answer says it.
    pub request_id: String,
}
