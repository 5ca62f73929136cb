//! What members of bodies can be, once read.

use std::fmt::Display;

use serde_json::Value;

use crate::domain::id::{ApiId, PolicyId};
use crate::domain::time::UnixMs;

/// The most faults that are told at once.
const FAULTS_MAX: usize = 100;

/// What is wrong with a body: one plain sentence per fault, beginning with the member's path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Adds one; beyond a hundred they are left out.
    pub fn add(&mut self, path: &str, what: impl Display) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(format!("{path} {what}"));
        }
    }

    /// Adds a whole sentence.
    pub fn sentence(&mut self, text: impl Into<String>) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(text.into());
        }
    }

    /// Whether one of them begins so.
    #[must_use]
    pub fn begins_with(&self, begin: &str) -> bool {
        self.0.iter().any(|fault| fault.starts_with(begin))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sentences, in the order found.
    #[must_use]
    pub fn into_texts(self) -> Vec<String> {
        self.0
    }
}

/// What a body names another object by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ref {
    /// Its number.
    Id(u64),
    /// Its custom id.
    Cid(String),
}

impl Ref {
    /// Reads a number or a custom id, also as the portal describes objects: `User#6`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text.rsplit_once('#').map_or(text, |(_, number)| number);
        match bare.parse::<u64>() {
            Ok(id) => Some(Self::Id(id)),
            Err(_) if is_cid(text) => Some(Self::Cid(text.to_owned())),
            Err(_) => None,
        }
    }
}

/// Whether a text can be a custom id: 1 to 64 of `[A-Za-z0-9._~-]`, and not a number.
#[must_use]
pub fn is_cid(text: &str) -> bool {
    text.parse::<PolicyId>().is_ok() && text.parse::<u64>().is_err()
}

/// An API that a body names, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRef {
    /// The path of the member, for faults.
    pub path: String,
    /// The API.
    pub id: ApiId,
}

/// What an absent flag means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Yes.
    On,
    /// No.
    Off,
}

/// A time in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Not given.
    Absent,
    /// Given as "never": 0, below, or the epoch.
    Never,
    /// Then.
    At(UnixMs),
}

/// What an object that is described names it by; anything else is what it is.
pub(super) fn described(value: &Value) -> &Value {
    value.get("ID").unwrap_or(value)
}

/// The text of a value that is no list and no object.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}
