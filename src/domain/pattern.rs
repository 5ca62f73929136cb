//! Path patterns, compiled once, and the allow lists made of them.
//!
//! They match normal paths ([`crate::domain::path::NormalPath`]), that is, what the upstream will get:
//! a blank is `%20` there, `é` is `%C3%A9`. Our patterns are brought into that spelling when they are
//! compiled; Tyk's are regular expressions and are taken as written.

use std::fmt;
use std::sync::Arc;

use crate::domain::path::Ambiguous;

mod methods;
mod segments;
#[cfg(test)]
mod tests;
mod tyk;

pub use methods::{InvalidMethod, METHOD_LEN_MAX, METHODS_MAX, Methods};
pub use tyk::TykMatching;

/// The longest pattern we accept, in bytes: real ones are below 200, and it bounds every match.
pub const PATTERN_LEN_MAX: usize = 1024;

/// The most entries of one allow list: they are tried one after the other.
pub const ALLOWED_MAX: usize = 1024;

/// What a compiled regular expression, and each cache of its automaton, may take, in bytes. A pattern of
/// [`PATTERN_LEN_MAX`] literals and a dozen wildcards takes a third of it.
pub const REGEX_BYTES_MAX: usize = 256 * 1024;

/// A compiled path pattern. Cloning is shallow.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    written: Box<str>,
    matcher: Matcher,
}

enum Matcher {
    Segments(segments::Segments),
    Tyk(tyk::TykMatcher),
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Longer than [`PATTERN_LEN_MAX`].
    #[error("must be at most {PATTERN_LEN_MAX} bytes long, is {len}")]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// Does not start with `/` (ours), or is empty (Tyk's, which then never matches).
    #[error("must start with a slash")]
    NotAbsolute,
    /// `*`, `{` or `}` beside other text in one segment, or a name outside `[A-Za-z0-9_-]`.
    #[error("segment {segment:?}: a wildcard must be a whole segment: *, ** or {{name}}")]
    Wildcard {
        /// The segment as written.
        segment: String,
    },
    /// A segment that no normal path has: empty in the middle, `.` or `..`.
    #[error("segment {segment:?} is removed from every path, so it would never match")]
    NeverMatches {
        /// The segment as written.
        segment: String,
    },
    /// A segment that would be refused in a path.
    #[error("segment {segment:?}: {reason}")]
    Literal {
        /// The segment as written.
        segment: String,
        /// What is wrong with it.
        reason: Ambiguous,
    },
    /// Not a regular expression.
    #[error("not a regular expression: {reason}")]
    Regex {
        /// The parser's words, on one line.
        reason: String,
    },
    /// The regular expression takes more than [`REGEX_BYTES_MAX`].
    #[error("the regular expression takes more than {REGEX_BYTES_MAX} bytes when compiled")]
    RegexSize,
}

impl Pattern {
    /// Compiles a pattern of ours.
    ///
    /// `{x}` and `*` are one segment, which is not empty; `**` is any number of segments, also none;
    /// everything else is literal. Both ends are anchored, and a slash at the end counts: `/a/**` matches
    /// `/a`, `/a/` and `/a/b/c`; `/a` does not match `/a/`.
    ///
    /// # Errors
    /// Any of [`InvalidPattern`] but those of regular expressions.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        Self::compile(text, |text| segments::Segments::parse(text).map(Matcher::Segments))
    }

    /// Compiles a pattern as Tyk writes them in `allowed_urls` and `endpoints`.
    ///
    /// A regular expression, not anchored but by `matching`; `{x}` is one segment, `/*/` too, and `/*` is
    /// anything. The pattern as a whole also matches the path equal to it.
    ///
    /// # Errors
    /// [`InvalidPattern::Length`], [`InvalidPattern::NotAbsolute`] if empty, [`InvalidPattern::Regex`],
    /// [`InvalidPattern::RegexSize`]. Leave such an entry out of its list, and keep the list: it then
    /// allows less.
    pub fn parse_tyk(text: &str, matching: TykMatching) -> Result<Self, InvalidPattern> {
        Self::compile(text, |text| tyk::TykMatcher::parse(text, matching).map(Matcher::Tyk))
    }

    fn compile(
        text: &str,
        with: impl FnOnce(&str) -> Result<Matcher, InvalidPattern>,
    ) -> Result<Self, InvalidPattern> {
        if PATTERN_LEN_MAX < text.len() {
            return Err(InvalidPattern::Length { len: text.len() });
        }
        Ok(Self(Arc::new(Compiled { written: text.into(), matcher: with(text)? })))
    }

    /// Whether a normal path matches. Allocates nothing of its own (a regular expression fills caches on
    /// its first matches); takes time linear in the path for each `**`, or for a regular expression.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match &self.0.matcher {
            Matcher::Segments(segments) => segments.matches(path),
            Matcher::Tyk(matcher) => matcher.matches(path),
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.written
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.as_str())
    }
}

/// The paths and methods that a grant allows on one API, compiled. Cloning is shallow.
#[derive(Clone, Debug)]
pub enum AllowList {
    /// Every path and method.
    Unrestricted,
    /// Only what one of these allows; no entry allows nothing.
    Only(Arc<[(Pattern, Methods)]>),
}

/// An allow list has more than [`ALLOWED_MAX`] entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have at most {ALLOWED_MAX} entries, has {count}")]
pub struct TooManyAllowed {
    /// Entries given.
    pub count: usize,
}

impl AllowList {
    /// A list that allows what one of its entries allows. Without entries it allows nothing, so that a list
    /// whose entries were all invalid stays closed.
    ///
    /// # Errors
    /// [`TooManyAllowed`].
    pub fn only(entries: Vec<(Pattern, Methods)>) -> Result<Self, TooManyAllowed> {
        match entries.len() {
            count if ALLOWED_MAX < count => Err(TooManyAllowed { count }),
            _ => Ok(Self::Only(entries.into())),
        }
    }

    /// Whether a request with this method and normal path is allowed.
    #[must_use]
    pub fn allows(&self, method: &str, path: &str) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Only(entries) => entries
                .iter()
                .any(|(pattern, methods)| methods.contains(method) && pattern.matches(path)),
        }
    }
}
