//! Tyk's patterns: regular expressions with a few short forms (Tyk Gateway, `internal/httputil/mux.go`).

use regex::bytes::{Regex, RegexBuilder};

use crate::domain::pattern::{InvalidPattern, REGEX_BYTES_MAX};

/// Which ends of a path a Tyk pattern is anchored at; both off is Tyk's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TykMatching {
    /// `enable_path_prefix_matching`: a pattern that starts with `/` matches at the start only. Tyk then
    /// tries the path after the listen path and the full path: ask for both.
    pub prefix: bool,
    /// `enable_path_suffix_matching`: a pattern matches at the end only.
    pub suffix: bool,
}

/// A Tyk pattern. Most need no automaton, which would take some 10 KB each.
#[derive(Debug)]
pub(super) enum TykMatcher {
    Literal { text: Box<str>, ends: TykMatching },
    Regex { regex: Regex, written: Box<str> },
}

impl TykMatcher {
    pub(super) fn parse(text: &str, matching: TykMatching) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::NotAbsolute);
        }
        let written = prepare(text, matching);
        let (prefix, inner) = match written.strip_prefix('^') {
            Some(inner) => (true, inner),
            None => (false, &*written),
        };
        let (suffix, inner) = match inner.strip_suffix('$') {
            Some(inner) => (true, inner),
            None => (false, inner),
        };
        if inner.bytes().all(is_literal) {
            return Ok(Self::Literal { text: inner.into(), ends: TykMatching { prefix, suffix } });
        }
        let regex = RegexBuilder::new(&written)
            .unicode(false)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|error| fault(&error))?;
        Ok(Self::Regex { regex, written: written.into() })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Literal { text, ends } => match (ends.prefix, ends.suffix) {
                (true, true) => *path == **text,
                (true, false) => path.starts_with(&**text),
                (false, true) => path.ends_with(&**text),
                (false, false) => path.contains(&**text),
            },
            Self::Regex { regex, written } => *path == **written || regex.is_match(path.as_bytes()),
        }
    }
}

/// The regular expression that Tyk makes of a pattern.
///
/// Its quirks are kept, since rules were written against them: with as many `{` as `}`, every `{...}` is
/// one segment, also a repetition such as `\d{2}`.
fn prepare(text: &str, matching: TykMatching) -> String {
    let mut out = text.to_owned();
    if out.contains('{') && out.matches('{').count() == out.matches('}').count() {
        out = name_segments(&out);
    }
    out = out.replace("/*/", "/[^/]+/").replace("/*", "/.*");
    if matching.prefix && out.starts_with('/') {
        out.insert(0, '^');
    }
    if matching.suffix && !out.ends_with('$') {
        out.push('$');
    }
    out
}

/// Replaces `{x}`, x not empty, by one segment.
fn name_segments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('{') {
        out.push_str(before);
        match inside.split_once('}') {
            Some((name, after)) if !name.is_empty() => {
                out.push_str("([^/]+)");
                rest = after;
            }
            Some(_) | None => {
                out.push('{');
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether a byte stands for itself in a regular expression and can be in a normal path.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-_~%!&',;=:@".contains(&byte)
}

fn fault(error: &regex::Error) -> InvalidPattern {
    if matches!(error, regex::Error::CompiledTooBig(_)) {
        return InvalidPattern::RegexSize;
    }
    // The last line says what is wrong; those before show where, with a caret.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    InvalidPattern::Regex { reason: last.trim_start_matches("error: ").to_owned() }
}
