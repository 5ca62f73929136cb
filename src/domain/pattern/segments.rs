//! Our patterns: segments, literal or wildcards.

use crate::domain::path::{EncodedSlash, normalise};
use crate::domain::pattern::InvalidPattern;

/// A pattern of ours, as its segments.
#[derive(Debug)]
pub(super) struct Segments(Box<[Segment]>);

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// This text, in the spelling of normal paths; empty only as the last segment.
    Literal(Box<str>),
    /// `*` or `{x}`: one segment that is not empty.
    One,
    /// `**`: any number of segments, also none.
    Any,
}

impl Segments {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let text = text.strip_prefix('/').ok_or(InvalidPattern::NotAbsolute)?;
        let mut segments = Vec::new();
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            let segment = match part {
                "" if parts.peek().is_none() => Segment::Literal("".into()),
                "" | "." | ".." => {
                    return Err(InvalidPattern::NeverMatches { segment: part.to_owned() });
                }
                part => Segment::parse(part)?,
            };
            // `**/**` means the same as `**`, and would only take longer to match.
            if segment != Segment::Any || segments.last() != Some(&Segment::Any) {
                segments.push(segment);
            }
        }
        Ok(Self(segments.into()))
    }

    /// Greedy with one point to go back to, the last `**`: a later one makes going back to an earlier one
    /// useless, since it can take whatever the earlier one would have.
    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let (mut pattern, mut rest) = (&*self.0, Some(path));
        // The pattern after the last `**`, and the path from where that one may take another segment.
        let mut retry: Option<(&[Segment], &str)> = None;
        loop {
            match (pattern, rest) {
                ([], None) | ([Segment::Any], _) => return true,
                ([Segment::Any, after @ ..], _) => {
                    retry = rest.map(|rest| (after, rest));
                    pattern = after;
                    continue;
                }
                ([segment, after @ ..], Some(path)) => {
                    let (head, tail) = cut(path);
                    if segment.matches_one(head) {
                        (pattern, rest) = (after, tail);
                        continue;
                    }
                }
                ([], Some(_)) | ([_, ..], None) => {}
            }
            let Some((after, from)) = retry else { return false };
            let (_, tail) = cut(from);
            (pattern, rest) = (after, tail);
            retry = tail.map(|tail| (after, tail));
        }
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Self, InvalidPattern> {
        let named = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let is_name = |name: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
            !name.is_empty() && name.bytes().all(allowed)
        };
        match part {
            "**" => Ok(Self::Any),
            "*" => Ok(Self::One),
            _ if named.is_some_and(is_name) => Ok(Self::One),
            _ if part.contains(['*', '{', '}']) => {
                Err(InvalidPattern::Wildcard { segment: part.to_owned() })
            }
            _ => literal(part).map(|text| Self::Literal(text.into())),
        }
    }

    fn matches_one(&self, segment: &str) -> bool {
        match self {
            Self::Literal(text) => **text == *segment,
            Self::One | Self::Any => !segment.is_empty(),
        }
    }
}

/// A segment in the spelling it has in normal paths, with `%2F` (an API may keep it). People write
/// patterns, so blanks and letters outside ASCII are escaped for them.
fn literal(part: &str) -> Result<String, InvalidPattern> {
    let fault = |reason| InvalidPattern::Literal { segment: part.to_owned(), reason };
    let mut path = String::from("/");
    for c in part.chars() {
        let mut utf8 = [0; 4];
        match c {
            ' ' => path.push_str("%20"),
            c if c.is_ascii() => path.push(c),
            c => {
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    path.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    let normal = normalise(&path, EncodedSlash::Keep).map_err(fault)?.into_cow();
    match normal.strip_prefix('/') {
        // What `%2e` leaves: a dot segment, removed.
        None | Some("") => Err(InvalidPattern::NeverMatches { segment: part.to_owned() }),
        Some(text) => Ok(text.to_owned()),
    }
}

/// The first segment, and what follows its slash.
fn cut(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((head, tail)) => (head, Some(tail)),
        None => (path, None),
    }
}
