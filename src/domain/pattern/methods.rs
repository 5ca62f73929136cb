//! Sets of request methods.

/// The longest method name we accept in a list, in bytes: the longest registered one has 17
/// (`UPDATEREDIRECTREF`, IANA HTTP Method Registry).
pub const METHOD_LEN_MAX: usize = 32;

/// The most methods of one list: IANA registers some 40.
pub const METHODS_MAX: usize = 64;

/// Those of RFC 9110, 9.1 and RFC 5789: one bit each, in this order.
const STANDARD: [&str; 9] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT"];

/// A set of methods. Names are compared exactly (RFC 9110, 9.1); `GET` does not include `HEAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods(Set);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Set {
    All,
    These { standard: u16, others: Box<[Box<str>]> },
}

/// Why a list of methods is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMethod {
    /// Empty, too long, or not a token in upper case.
    #[error(
        "{name:?} is not a method: 1 to {METHOD_LEN_MAX} of A-Z 0-9 ! # $ % & ' * + - . ^ _ ` | ~"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// More than [`METHODS_MAX`].
    #[error("must be at most {METHODS_MAX} methods")]
    TooMany,
}

impl Methods {
    /// Every method.
    pub const ALL: Self = Self(Set::All);

    /// Only these. None at all is the empty set (as Tyk reads it); use [`Self::ALL`] where it means all.
    ///
    /// # Errors
    /// [`InvalidMethod`], naming the first bad one. Lower case is one: it would never match.
    pub fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidMethod> {
        let (mut standard, mut others) = (0, Vec::<Box<str>>::new());
        for (count, name) in names.into_iter().enumerate() {
            if METHODS_MAX <= count {
                return Err(InvalidMethod::TooMany);
            }
            if name.is_empty() || METHOD_LEN_MAX < name.len() || !name.bytes().all(is_upper_token) {
                return Err(InvalidMethod::Name {
                    name: name.chars().take(METHOD_LEN_MAX).collect(),
                });
            }
            match bit(name) {
                0 => others.push(name.into()),
                bit => standard |= bit,
            }
        }
        others.sort_unstable();
        others.dedup();
        Ok(Self(Set::These { standard, others: others.into() }))
    }

    /// Whether the method is in the set.
    #[must_use]
    pub fn contains(&self, method: &str) -> bool {
        match &self.0 {
            Set::All => true,
            Set::These { standard, others } => {
                standard & bit(method) != 0 || others.iter().any(|other| **other == *method)
            }
        }
    }

    /// Everything that is in one of the two.
    #[must_use]
    pub fn union(&self, with: &Self) -> Self {
        match (&self.0, &with.0) {
            (Set::All, _) | (_, Set::All) => Self::ALL,
            (
                Set::These { standard: left, others: ours },
                Set::These { standard: right, others: theirs },
            ) => {
                let mut others: Vec<_> = ours.iter().chain(theirs).cloned().collect();
                others.sort_unstable();
                others.dedup();
                Self(Set::These { standard: left | right, others: others.into() })
            }
        }
    }
}

/// The bit of a standard method; 0 for any other.
fn bit(method: &str) -> u16 {
    match STANDARD.iter().position(|name| *name == method) {
        Some(at) => 1 << at,
        None => 0,
    }
}

/// `tchar` (RFC 9110, 5.6.2) without lower-case letters.
fn is_upper_token(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
