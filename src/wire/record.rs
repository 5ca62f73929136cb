//! What lies in the store for the gateway itself.

use serde::{Deserialize, Serialize};

use crate::wire::is_default;

/// The names in a credential's metadata that say whose it is (portal-api, A1): its app, the app's
/// owner, the owner's organisation, and its teams, as one text with commas.
pub const TIES: [&str; 4] = ["ApplicationID", "DeveloperID", "OrganisationID", "TeamIDs"];

/// One token as the gateway enforces it: self-contained, so that a cache miss costs one read.
///
/// Stored under [`crate`]-wide kind `Token`, named by the token's hash. Whoever changes a
/// credential writes this record anew in the same commit; the change feed carries it to every
/// gateway. It never holds a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The credential: counters of quotas are keyed by it.
    pub credential: u64,
    /// The pepper the name was hashed with.
    #[serde(default)]
    pub pepper: u32,
    /// The providers' organisation.
    pub org: String,
    /// Products, by number: access rights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<u64>,
    /// The plan, by number: limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<u64>,
    /// Policies in Tyk's format, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Switched off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inactive: bool,
    /// First instant at which it is refused, in unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Another token took this one's place: first instant at which this one is unknown, in unix
    /// milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_ms: Option<u64>,
    /// The app it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<u64>,
    /// The app's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u64>,
    /// The owner's organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<u64>,
    /// The owner's teams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<u64>,
    /// What the owner's custom attributes add to its metadata.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// How often its quotas were reset: each reset starts new windows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resets: u64,
    /// Metadata of its own.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Tags for logs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// A Tyk session's own rights and limits, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<serde_json::Value>,
}
