//! How the portal's objects lie in the store.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RecordFault;
use super::fields::Members;

/// One object of the portal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Its number.
    pub id: u64,
    /// Its custom id.
    pub cid: String,
    /// When it was made, in unix milliseconds.
    pub created_ms: u64,
    /// When it was last changed, in unix milliseconds.
    pub updated_ms: u64,
    /// What a body can set: canonical where we know it, as it came elsewhere. No secret.
    pub members: Members,
    /// What no body can set.
    #[serde(default)]
    pub links: Links,
    /// Entries of the index of unique names that are this object's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uniques: Vec<String>,
    /// Objects it belongs to: (kind of record, number).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<(u8, u64)>,
}

/// Ties of an object that no body can set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The object whose path it was made under: an app, an organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// A credential's access request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// An access request's credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<u64>,
    /// A credential's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenFacts>,
    /// An existing credential that an access request changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
    /// The access request that waits to change a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
    /// The token that a credential's token took the place of, while both work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// The key and the secret of a credential that is kept for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// How often a user asked for plans, for as long as their intervals last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
    /// An app or a user was moved, and its tokens may not say so yet: which move that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<u64>,
    /// Lists that an owner is to have, by kind of their members, while it is unsettled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roster: Vec<(u8, Vec<u64>)>,
    /// A user's custom attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// The team that an organisation's users are in when they are in no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_team: Option<u64>,
}

/// One custom attribute of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its number among those of the user.
    pub id: u64,
    /// What people call it.
    pub name: String,
    /// What metadata calls it.
    pub identifier: String,
    /// Its value.
    pub value: String,
    /// Whether it is part of the metadata of the user's credentials.
    #[serde(default)]
    pub in_metadata: bool,
    /// Whether its value is for ever.
    #[serde(default)]
    pub fixed: bool,
}

/// A token on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its hash, in hexadecimal digits.
    pub hash: String,
    /// First instant at which it is unknown, in unix milliseconds.
    pub until_ms: u64,
}

/// A key and a secret, each sealed, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The secret.
    pub secret: String,
}

/// How often one plan was asked for within its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The plan.
    pub plan: u64,
    /// When the interval ends, in unix milliseconds.
    pub until_ms: u64,
    /// Requests in it so far.
    pub count: u64,
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// Its hash, in hexadecimal digits.
    pub hash: String,
    /// What is shown of it.
    pub mask: String,
    /// The token itself, sealed, in hexadecimal digits: only of one that was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

impl Stored {
    /// Reads a record.
    ///
    /// # Errors
    /// When the bytes are no such record.
    pub fn decode(value: &[u8]) -> Result<Self, RecordFault> {
        serde_json::from_slice(value).map_err(|_shape| RecordFault::Shape)
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings as keys and plain numbers: there is nothing in it that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// A member that is a number above zero.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.members.get(name).and_then(Value::as_u64).filter(|id| 0 < *id)
    }

    /// A member that is a list of numbers.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<u64> {
        let list = self.members.get(name).and_then(Value::as_array);
        list.map(|list| list.iter().filter_map(Value::as_u64).collect()).unwrap_or_default()
    }

    /// A member that is a text; empty when it is not there.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.members.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A member that is a flag; off when it is not there.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.members.get(name).and_then(Value::as_bool).unwrap_or_default()
    }
}
