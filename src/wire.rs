//! Shapes of files and admin bodies, and their way into the domain and back.
//!
//! A shape is lenient where clients are known to be (numbers as strings, `null` for empty), keeps
//! members it does not know, and never lets a sentinel such as -1 through.

pub mod admin;
pub mod decimal;
pub mod extras;
pub mod imports;
pub mod portal;
pub mod record;
pub mod tyk;

use serde::{Deserialize, Deserializer};

/// A value that has the right shape and no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {fault}")]
pub struct Invalid {
    /// Where it is, as a path of members: `access_rights.a.limit.rate`.
    pub path: String,
    /// What is wrong with it, to follow the path in a sentence.
    pub fault: String,
}

impl Invalid {
    /// A fault at `path`.
    pub fn new(path: impl Into<String>, fault: impl ToString) -> Self {
        Self { path: path.into(), fault: fault.to_string() }
    }

    /// The same fault, seen from the object that holds it as `member`.
    #[must_use]
    pub fn within(self, member: &str) -> Self {
        Self { path: format!("{member}.{}", self.path), ..self }
    }
}

/// Reads `null` as the default: other gateways write empty lists and maps so.
pub(crate) fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Whether a value is its type's default, and so left out of what we write.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
