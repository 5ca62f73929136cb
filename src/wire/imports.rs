//! Bulk imports of credentials (portal-api, F2): how a file is read, and what is told of it.
//!
//! A file is NDJSON with the members of the portal's custom credentials, or CSV with columns of the
//! same meaning. Nothing that is told of a line holds what the line held, but its mask.

pub mod csv;
pub mod lines;
pub mod options;
pub mod record;
pub mod row;

use serde::{Deserialize, Serialize};

/// What can be wrong with a line, or with a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The line is no JSON object.
    BadJson,
    /// The line has another number of fields than the header.
    BadRow,
    /// The line is longer than can be read.
    LineTooLong,
    /// Something that must be there is not.
    MissingField,
    /// Something is not what it must be.
    BadType,
    /// There is no such app.
    UnknownApp,
    /// There is no such user.
    UnknownUser,
    /// There is no such plan.
    UnknownPlan,
    /// There is no such product.
    UnknownProduct,
    /// The product opens nothing.
    ProductNotAssignable,
    /// Only tokens can be imported.
    AuthMethodUnsupported,
    /// The token is too short.
    KeyTooShort,
    /// The token is too long.
    KeyTooLong,
    /// The token has characters that no header can carry.
    KeyBadChars,
    /// The token belongs to something else.
    KeyInUse,
    /// A line before this one has the same token.
    DuplicateInFile,
    /// Another credential of the app has this alias.
    AliasInUse,
    /// A key of several usage plans: a credential has one plan.
    SeveralPlans,
    /// A hash that tokens cannot be looked up by.
    HashNotIndexable,
    /// It would be over before it began.
    ExpiresInPast,
    /// Something beside the token holds the token.
    TokenInText,
    /// A warning: the token can be guessed.
    WeakKey,
    /// A warning: a member or column that means nothing here, and is not kept.
    UnknownField,
}

/// Something that is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    pub code: Code,
    /// Of which member.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// For people. It holds nothing of the line.
    pub message: String,
    /// The line that was first with this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_line: Option<u64>,
}

impl Fault {
    /// A fault of a member.
    pub fn new(code: Code, field: &str, message: impl Into<String>) -> Self {
        Self { code, field: field.to_owned(), message: message.into(), first_line: None }
    }
}
