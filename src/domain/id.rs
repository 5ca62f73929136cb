//! Names of things: one type per kind, parsed once, cheap to clone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest id we accept, in bytes: it becomes a metric label and part of a counter key.
pub const ID_LEN_MAX: usize = 64;

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Empty, or longer than [`ID_LEN_MAX`].
    #[error("must be 1 to {ID_LEN_MAX} characters long, is {len}")]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// A byte outside `[A-Za-z0-9._~-]`.
    #[error("has a character outside A-Z a-z 0-9 . _ ~ - at position {at}")]
    Byte {
        /// Offset of the first such byte, from 0.
        at: usize,
    },
}

fn checked(text: &str) -> Result<Arc<str>, InvalidId> {
    if text.is_empty() || ID_LEN_MAX < text.len() {
        return Err(InvalidId::Length { len: text.len() });
    }
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    match text.bytes().position(|b| !allowed(&b)) {
        Some(at) => Err(InvalidId::Byte { at }),
        None => Ok(text.into()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Invariant: 1 to [`ID_LEN_MAX`] bytes of `[A-Za-z0-9._~-]`. Only [`FromStr`] makes one.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                checked(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// The name of one API, as configuration, metrics and counter keys spell it.
    ApiId
}
text_id! {
    /// The name of one organisation of API providers; policies and APIs belong to one.
    OrgId
}
text_id! {
    /// The name of one policy (also of a product or a plan), unique within its organisation.
    PolicyId
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id! {
    /// One credential. It survives rotation of its token, so quota counters are keyed by it.
    CredentialId
}
number_id! {
    /// One app: the wrapper of the credentials of one consumer.
    AppId
}
number_id! {
    /// One user of the portal: a developer or an administrator.
    UserId
}
number_id! {
    /// One organisation of API consumers in the portal (not an [`OrgId`] of providers).
    ConsumerOrgId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_bounded_and_plain() {
        check("inv-v1", Ok(()));
        check("A.b_c~d-9", Ok(()));
        check("", Err(InvalidId::Length { len: 0 }));
        check(&"x".repeat(65), Err(InvalidId::Length { len: 65 }));
        check("a/b", Err(InvalidId::Byte { at: 1 }));
        check("aé", Err(InvalidId::Byte { at: 1 }));
    }

    #[track_caller]
    fn check(text: &str, expect: Result<(), InvalidId>) {
        assert_eq!(text.parse::<ApiId>().map(|_| ()), expect, "{text:?}");
    }
}
