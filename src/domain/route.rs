//! Routing: which API a host and a normal path belong to, among thousands.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use foldhash::fast::RandomState;

use crate::domain::path::{Ambiguous, EncodedSlash, PATH_LEN_MAX, normalise};

#[cfg(test)]
mod tests;

/// The longest host name, in bytes (RFC 1035, 2.3.4).
pub const HOST_LEN_MAX: usize = 253;

/// The longest listen path, in bytes: it is repeated in every request, so nobody wants more.
pub const LISTEN_PATH_LEN_MAX: usize = 1024;

/// The most routes of one router: ten times the largest installation we know of.
pub const ROUTES_MAX: usize = 100_000;

/// The path under which an API is published, in the spelling of normal paths, without its last slash.
///
/// `/inv` and `/inv/` are the same: both match `/inv` and `/inv/...`, and not `/invoices`. `/` is the
/// root, which matches every path. Case matters (RFC 3986, 6.2.2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenPath(Box<str>);

/// A host name to match exactly, in lower case, without port and without last dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Box<str>);

/// Finds the value of a host and path. Reads allocate nothing.
///
/// A route for the request's host wins over one for any host; of those for the same host, the longest
/// listen path wins. A host whose routes do not match the path falls back to those for any host.
#[derive(Clone, Debug)]
pub struct Router<T> {
    any_host: Node<T>,
    hosts: HashMap<Box<str>, Node<T>, RandomState>,
    count: usize,
}

/// What a router found.
#[derive(Debug, PartialEq, Eq)]
pub struct Match<'r, 'p, T> {
    /// The value.
    pub value: &'r T,
    /// The path after the listen path; starts with `/`, and is `/` if nothing is left.
    pub rest: &'p str,
    /// The part of the path that was matched, without a slash at its end: empty for the root.
    pub matched: &'p str,
}

/// Why a route cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoute {
    /// There is one already; a message must name the two APIs.
    #[error("listen path {listen_path} on {} is taken", host.as_ref().map_or("any host", Host::as_str))]
    Duplicate {
        /// The host, or any.
        host: Option<Host>,
        /// The listen path.
        listen_path: ListenPath,
    },
    /// More than [`ROUTES_MAX`].
    #[error("must be at most {ROUTES_MAX} routes")]
    TooMany,
}

/// Why a text is not a listen path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidListenPath {
    /// Longer than [`LISTEN_PATH_LEN_MAX`].
    #[error("must be at most {LISTEN_PATH_LEN_MAX} bytes long, is {len}")]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// Has `{`, `}` or `*`: listen paths are literal.
    #[error("must be literal: no wildcards or parameters")]
    Wildcard,
    /// No request could have it.
    #[error("{0}")]
    Path(Ambiguous),
}

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a host name or address of 1 to {HOST_LEN_MAX} characters, without port or wildcard"
)]
pub struct InvalidHost;

/// A segment of listen paths, and the segments that may follow.
#[derive(Clone, Debug)]
struct Node<T> {
    value: Option<T>,
    next: HashMap<Box<str>, Node<T>, RandomState>,
}

impl<T> Router<T> {
    /// A router that finds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { any_host: Node::new(), hosts: HashMap::default(), count: 0 }
    }

    /// Adds a route; `None` is any host.
    ///
    /// # Errors
    /// [`InvalidRoute`]; the router is then as before.
    pub fn insert(
        &mut self,
        host: Option<&Host>,
        listen_path: &ListenPath,
        value: T,
    ) -> Result<(), InvalidRoute> {
        if ROUTES_MAX <= self.count {
            return Err(InvalidRoute::TooMany);
        }
        let mut node = match host {
            None => &mut self.any_host,
            Some(host) => self.hosts.entry(host.0.clone()).or_insert_with(Node::new),
        };
        for segment in listen_path.segments() {
            node = node.next.entry(segment.into()).or_insert_with(Node::new);
        }
        if node.value.is_some() {
            let (host, listen_path) = (host.cloned(), listen_path.clone());
            return Err(InvalidRoute::Duplicate { host, listen_path });
        }
        node.value = Some(value);
        self.count += 1;
        Ok(())
    }

    /// The route of a normal path. `host` is the authority of the request; a port, the case of letters and
    /// a last dot do not matter. It takes a look-up for each segment of the path that listen paths have too.
    #[must_use]
    pub fn find<'r, 'p>(&'r self, host: Option<&str>, path: &'p str) -> Option<Match<'r, 'p, T>> {
        if PATH_LEN_MAX < path.len() || !path.starts_with('/') {
            return None;
        }
        host.and_then(|host| self.of_host(host))
            .and_then(|node| node.longest(path))
            .or_else(|| self.any_host.longest(path))
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn of_host(&self, authority: &str) -> Option<&Node<T>> {
        if self.hosts.is_empty() {
            return None;
        }
        let name = host_name(authority);
        if !name.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.hosts.get(name);
        }
        let mut buffer = [0; HOST_LEN_MAX];
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        self.hosts.get(std::str::from_utf8(lower).ok()?)
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Node<T> {
    fn new() -> Self {
        Self { value: None, next: HashMap::default() }
    }

    /// Walks down the segments of a path, and remembers the last value on the way.
    fn longest<'r, 'p>(&'r self, path: &'p str) -> Option<Match<'r, 'p, T>> {
        let (mut node, mut at) = (self, 0);
        let mut found = self.value.as_ref().map(|value| (value, at));
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        while !node.next.is_empty() {
            let Some(segment) = segments.next() else { break };
            let Some(child) = node.next.get(segment) else { break };
            node = child;
            at += 1 + segment.len();
            found = child.value.as_ref().map(|value| (value, at)).or(found);
        }
        let (value, at) = found?;
        let (matched, rest) = path.split_at_checked(at)?;
        Some(Match { value, rest: if rest.is_empty() { "/" } else { rest }, matched })
    }
}

impl ListenPath {
    /// The listen path, without its last slash unless it is `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }
}

impl FromStr for ListenPath {
    type Err = InvalidListenPath;

    fn from_str(text: &str) -> Result<Self, InvalidListenPath> {
        if LISTEN_PATH_LEN_MAX < text.len() {
            return Err(InvalidListenPath::Length { len: text.len() });
        }
        if text.contains(['{', '}', '*']) {
            return Err(InvalidListenPath::Wildcard);
        }
        let normal = normalise(text, EncodedSlash::Keep).map_err(InvalidListenPath::Path)?;
        let path = normal.as_str();
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        Ok(Self(path.into()))
    }
}

impl fmt::Display for ListenPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Host {
    /// The host, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let valid = match inside {
            Some(address) => address.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b)),
            None => name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        };
        if !valid || inside.unwrap_or(name).is_empty() || HOST_LEN_MAX < name.len() {
            return Err(InvalidHost);
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host of an authority: without port (RFC 3986, 3.2.3) and last dot.
fn host_name(authority: &str) -> &str {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => authority,
    };
    name.strip_suffix('.').unwrap_or(name)
}
