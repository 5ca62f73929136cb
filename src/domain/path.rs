//! Path normalisation: done once per request, before anything matches on the path, so that what the
//! access check saw is what the upstream gets.
//!
//! The rules, and where they come from:
//!
//! | In the path | Becomes | Source or reason |
//! |---|---|---|
//! | `.` and `..` segments, also as `%2e` | removed | RFC 3986, 5.2.4 and 6.2.2.3 |
//! | `%41`, escapes of `A-Z a-z 0-9 - . _ ~` | the character | RFC 3986, 6.2.2.2 |
//! | `%c3`, lower-case escapes | `%C3` | RFC 3986, 6.2.2.1 |
//! | raw `"` `<` `>` `[` `]` `^` `` ` `` `{` `\|` `}` | escaped | not allowed raw (RFC 3986, 3.3), but sent |
//! | `//` | `/` | most upstreams merge them, access rules never mean them |
//! | `..` above the root | refused | RFC 3986 drops it, others climb |
//! | `..` that meets an empty segment (`/a//../b`) | refused | the result depends on what is done first |
//! | `%2F` | refused, or kept by a switch of the API | half of all parsers decode it |
//! | `/a%2Fb/..`, even where it is kept | refused | one segment to remove, or two |
//! | `\`, `%5C` | refused | a slash to WHATWG URL parsers and to Windows |
//! | controls, raw or escaped, U+0080 to U+009F, a raw space | refused | cut or stripped by some parsers |
//! | `%` without two hexadecimal digits | refused | kept, dropped or decoded otherwise (`%u002e`) |
//! | escapes that are not UTF-8 (`%C0%AE`) | refused | lenient decoders make dots and slashes of them |
//! | raw bytes outside ASCII | refused | not allowed (RFC 3986, 2); the charset is anyone's guess |
//! | `/..;x/`, `/..%3B/`, `/..%20/`, `/..%2Fx/` | refused | servlet containers strip `;x`, Windows the space |
//! | `/;x/`, `/%20/`, nothing but these | refused, unless last | an empty segment once stripped |
//! | `%25` before two digits that one more decoding would change | refused | double decoding |
//! | `#` and `?` | refused | they end a path; the caller passes the path alone |
//!
//! Escaped `%23`, `%3F`, `%3B` and `%25` itself are data (RFC 3986, 2.2) and stay escaped. Letters that
//! look like dots or slashes elsewhere in Unicode are letters: no URL parser folds them.

use std::borrow::Cow;
use std::fmt;

mod escapes;
mod segments;
#[cfg(test)]
mod tests;

/// The longest path we accept, in bytes: above the 8,000 octets that RFC 9110, 4.1 asks for.
pub const PATH_LEN_MAX: usize = 8 * 1024;

/// What to do with an escaped slash (`%2F`), which some upstreams take for data and some for `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EncodedSlash {
    /// Refuse the request.
    #[default]
    Refuse,
    /// Keep it as `%2F`, part of its segment.
    Keep,
}

/// A path in its one spelling. Only [`normalise`] makes one.
///
/// Invariants: printable ASCII; starts with `/`; no empty segment but the last; no dot segment; no raw or
/// escaped control or backslash; escapes are upper case and of characters that need them. Normalising
/// it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NormalPath<'a>(Cow<'a, str>);

/// Why a path is refused: two parsers could read it differently, or it is no path.
///
/// `Display` is the public text. All are the caller's fault: 414 for [`Ambiguous::TooLong`], else 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Ambiguous {
    /// The target `*`, which means the server and not a path: only `OPTIONS` may name it (RFC 9112, 3.2.4).
    #[error("the request target * is for OPTIONS only")]
    Asterisk,
    /// Empty, or does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// Longer than [`PATH_LEN_MAX`], before or after normalisation.
    #[error("the path is too long")]
    TooLong,
    /// `..` above the root.
    #[error("the path leads above its root")]
    AboveRoot,
    /// `..` takes away an empty segment, or nothing once `//` is merged.
    #[error("the path has a parent segment after an empty one")]
    ParentOfEmpty,
    /// `%2F`, which this API does not accept, or a kept one in a segment that `..` removes.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("the path has a backslash")]
    Backslash,
    /// A control character, raw or escaped, or a raw space.
    #[error("the path has a control character or a space")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("the path has an invalid percent-escape")]
    BadEscape,
    /// Escapes that decode to something that is not UTF-8.
    #[error("the path has percent-escapes that are not UTF-8")]
    NotUtf8,
    /// A raw byte outside ASCII.
    #[error("the path has a character outside ASCII that is not percent-encoded")]
    NonAscii,
    /// A dot segment with parameters, spaces or encoded slashes about it.
    #[error("the path has a disguised dot segment")]
    DisguisedDot,
    /// A segment, not the last, of nothing but parameters or spaces.
    #[error("the path has a segment without a name")]
    Nameless,
    /// An escaped `%` that gives an escape once decoded, and another path if that is decoded too.
    #[error("the path is percent-encoded twice")]
    DoubleEncoded,
    /// `#`.
    #[error("the path has a fragment")]
    Fragment,
    /// `?`: the caller must pass the path alone.
    #[error("the path has a query")]
    Query,
}

impl Ambiguous {
    /// A closed set of names for logs and metrics.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Asterisk => "asterisk",
            Self::NotAbsolute => "not_absolute",
            Self::TooLong => "too_long",
            Self::AboveRoot => "above_root",
            Self::ParentOfEmpty => "parent_of_empty",
            Self::EncodedSlash => "encoded_slash",
            Self::Backslash => "backslash",
            Self::Control => "control",
            Self::BadEscape => "bad_escape",
            Self::NotUtf8 => "not_utf8",
            Self::NonAscii => "non_ascii",
            Self::DisguisedDot => "disguised_dot",
            Self::Nameless => "nameless",
            Self::DoubleEncoded => "double_encoded",
            Self::Fragment => "fragment",
            Self::Query => "query",
        }
    }
}

impl<'a> NormalPath<'a> {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text: borrowed from the request where nothing (or only its tail) was changed.
    #[must_use]
    pub fn into_cow(self) -> Cow<'a, str> {
        self.0
    }

    /// Whether it has a `%2F`, which only [`EncodedSlash::Keep`] lets in.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.0.contains("%2F")
    }

    /// The switch of an API, applied once routing has found the API.
    ///
    /// `normalise(raw, Keep)` followed by this accepts what `normalise(raw, slashes)` accepts.
    ///
    /// # Errors
    /// [`Ambiguous::EncodedSlash`] if there is one, and it is to be refused.
    pub fn with_slashes(self, slashes: EncodedSlash) -> Result<Self, Ambiguous> {
        match slashes {
            EncodedSlash::Refuse if self.has_encoded_slash() => Err(Ambiguous::EncodedSlash),
            EncodedSlash::Refuse | EncodedSlash::Keep => Ok(self),
        }
    }
}

impl AsRef<str> for NormalPath<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NormalPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gives the path of a request its one spelling, or says why it has none.
///
/// `raw` is the path as it was sent, without scheme, authority and query. Nothing is allocated when it is
/// already normal. It takes one pass then, and a fixed number of passes otherwise.
///
/// # Errors
/// The first reason found; see the table of this module.
pub fn normalise(raw: &str, slashes: EncodedSlash) -> Result<NormalPath<'_>, Ambiguous> {
    if PATH_LEN_MAX < raw.len() {
        return Err(Ambiguous::TooLong);
    }
    if !raw.starts_with('/') {
        return Err(if raw == "*" { Ambiguous::Asterisk } else { Ambiguous::NotAbsolute });
    }
    if is_plain(raw.as_bytes()) {
        return Ok(NormalPath(Cow::Borrowed(raw)));
    }
    let text = escapes::rewrite(raw, slashes)?;
    let shape = segments::inspect(&text)?;
    if text.contains("%25") {
        refuse_double(&text)?;
    }
    let normal = match shape {
        segments::Shape::Normal => text,
        segments::Shape::Unresolved => Cow::Owned(segments::resolve(&text)?),
    };
    if PATH_LEN_MAX < normal.len() {
        return Err(Ambiguous::TooLong);
    }
    Ok(NormalPath(normal))
}

/// [`normalise`] for a path that may be any bytes.
///
/// # Errors
/// As there; bytes that are no UTF-8 are [`Ambiguous::NonAscii`].
pub fn normalise_bytes(raw: &[u8], slashes: EncodedSlash) -> Result<NormalPath<'_>, Ambiguous> {
    match std::str::from_utf8(raw) {
        Ok(text) => normalise(text, slashes),
        Err(_not_ascii_either) => Err(Ambiguous::NonAscii),
    }
}

/// Whether there is nothing to decide: only harmless bytes, no empty segment, no segment with a dot first.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        let slash = byte == b'/';
        let harmless = slash || (escapes::may_stay_raw(byte) && byte != b';');
        if !harmless || (after_slash && (slash || byte == b'.')) {
            return false;
        }
        after_slash = slash;
    }
    true
}

/// Refuses a path that would be refused or rewritten if it were decoded once or several times more.
fn refuse_double(text: &str) -> Result<(), Ambiguous> {
    let Some(deeper) = escapes::unwrap_percent(text) else { return Ok(()) };
    let survives = match escapes::rewrite(&deeper, EncodedSlash::Refuse) {
        Ok(rewritten) => {
            rewritten.eq_ignore_ascii_case(&deeper) && segments::inspect(&rewritten).is_ok()
        }
        Err(_which_no_matter) => false,
    };
    if survives { Ok(()) } else { Err(Ambiguous::DoubleEncoded) }
}
