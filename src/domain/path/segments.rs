//! Segments: dot segments and empty ones removed, whatever only resembles a dot segment refused.

use crate::domain::path::Ambiguous;

/// What is left to do with the segments of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing.
    Normal,
    /// It has dot segments, or empty ones that are not the last.
    Unresolved,
}

enum Segment<'a> {
    Empty,
    Dot,
    Parent,
    Name(&'a str),
}

impl<'a> Segment<'a> {
    fn of(text: &'a str) -> Self {
        match text {
            "" => Self::Empty,
            "." => Self::Dot,
            ".." => Self::Parent,
            name => Self::Name(name),
        }
    }
}

/// Looks at every segment of a path whose escapes are in their one spelling.
///
/// # Errors
/// [`Ambiguous::DisguisedDot`], [`Ambiguous::Nameless`].
pub(super) fn inspect(path: &str) -> Result<Shape, Ambiguous> {
    let mut shape = Shape::Normal;
    let kept_slash = path.contains("%2F");
    let mut segments = split(path).peekable();
    while let Some(text) = segments.next() {
        let last = segments.peek().is_none();
        match Segment::of(text) {
            Segment::Empty if last => {}
            Segment::Empty | Segment::Dot | Segment::Parent => shape = Shape::Unresolved,
            Segment::Name(name) => {
                if is_disguised(name) || (kept_slash && name.split("%2F").any(is_disguised)) {
                    return Err(Ambiguous::DisguisedDot);
                }
                if !last && name.starts_with([';', '%']) && bare(name).is_empty() {
                    return Err(Ambiguous::Nameless);
                }
            }
        }
    }
    Ok(shape)
}

/// Removes dot segments (RFC 3986, 5.2.4) and empty ones but the last.
///
/// # Errors
/// [`Ambiguous::AboveRoot`]; [`Ambiguous::ParentOfEmpty`] where the order of both would matter;
/// [`Ambiguous::EncodedSlash`] where a parent segment would remove two segments of who decodes first.
pub(super) fn resolve(path: &str) -> Result<String, Ambiguous> {
    let mut out = String::with_capacity(path.len());
    // Where the last empty segment was dropped. A parent segment may not reach it: with the empty
    // segment in place it would remove that one, without it the one before.
    let mut empty_at: Option<usize> = None;
    let mut segments = split(path).peekable();
    while let Some(text) = segments.next() {
        let last = segments.peek().is_none();
        match Segment::of(text) {
            Segment::Name(name) => {
                out.push('/');
                out.push_str(name);
                continue;
            }
            Segment::Empty if last => {}
            Segment::Empty => empty_at = Some(out.len()),
            Segment::Dot => {}
            Segment::Parent => {
                if empty_at.is_some_and(|at| out.len() <= at) {
                    return Err(Ambiguous::ParentOfEmpty);
                }
                let (before, removed) = out.rsplit_once('/').ok_or(Ambiguous::AboveRoot)?;
                if removed.contains("%2F") {
                    return Err(Ambiguous::EncodedSlash);
                }
                out.truncate(before.len());
            }
        }
        if last {
            out.push('/');
        }
    }
    Ok(out)
}

fn split(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// Whether a lenient parser makes a dot segment of a name that is none: it takes the bare name, or decodes
/// the slash that cut this part off.
fn is_disguised(part: &str) -> bool {
    part.starts_with('.') && matches!(bare(part), "." | "..")
}

/// What servlet containers, which strip path parameters (RFC 3986, 3.3; the semicolon may be escaped), and
/// Windows, which strips trailing spaces, leave of a name.
fn bare(name: &str) -> &str {
    let raw = name.split(';').next().unwrap_or_default();
    raw.split("%3B").next().unwrap_or_default().trim_end_matches("%20")
}
