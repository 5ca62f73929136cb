//! Our patterns: segments, literal or wildcards.

use crate::domain::path::{EncodedSlash, normalise};
use crate::domain::pattern::InvalidPattern;

/// A pattern of ours.
#[derive(Debug)]
pub(super) struct Segments {
    /// The segments before the first wildcard, each after its slash: one comparison tells most patterns
    /// of a list apart.
    lead: Box<str>,
    /// Those from the first wildcard on.
    rest: Box<[Segment]>,
}

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
        let (mut lead, mut segments) = (String::new(), Vec::new());
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            let segment = match part {
                "" if parts.peek().is_none() => Segment::Literal("".into()),
                "" | "." | ".." => {
                    return Err(InvalidPattern::NeverMatches { segment: part.to_owned() });
                }
                part => Segment::parse(part)?,
            };
            match segment {
                Segment::Literal(text) if segments.is_empty() => {
                    lead.push('/');
                    lead.push_str(&text);
                }
                // `**/**` means the same as `**`, and would only take longer to match.
                Segment::Any if segments.last() == Some(&Segment::Any) => {}
                Segment::Literal(_) | Segment::One | Segment::Any => segments.push(segment),
            }
        }
        Ok(Self { lead: lead.into(), rest: segments.into() })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&*self.lead) else { return false };
        match (rest.is_empty(), rest.strip_prefix('/')) {
            (true, _) => follows(&self.rest, None),
            (false, Some(rest)) => follows(&self.rest, Some(rest)),
            (false, None) => false,
        }
    }
}

/// Whether the segments of `rest` (`None`: there are none) follow the pattern.
///
/// Greedy with one point to go back to, the last `**`: a later one makes going back to an earlier one
/// useless, since it can take whatever the earlier one would have.
fn follows(mut pattern: &[Segment], mut rest: Option<&str>) -> bool {
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
    // Segments are short, and this is faster there than `split_once`.
    let slash = path.bytes().position(|b| b == b'/').unwrap_or(path.len());
    match path.split_at_checked(slash) {
        Some((head, tail)) => (head, tail.strip_prefix('/')),
        None => (path, None),
    }
}
