//! The head of a request: what can be read in one way only, and what may not go on.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use http_body::Body;
use hyper::body::Incoming;

use crate::config::ProxyConfig;
use crate::domain::denial::{Denial, Malformed};
use crate::domain::route::HOST_LEN_MAX;

/// Headers that concern one connection only (RFC 9110, 7.6.1, and older ones), and those that
/// belong to a proxy.
const HOP_BY_HOP: Names<'_> = Names::new(&[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
]);

/// Headers that only a gateway may set: a client's own are taken off.
const SPOOFABLE: Names<'_> = Names::new(&[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-real-ip",
    // Becomes the environment's HTTP_PROXY in CGI programs.
    "proxy",
    "x-turnpike-credential",
    "x-turnpike-app",
    "x-turnpike-user",
    "x-turnpike-organisation",
    // `Content-Length` to those who read `_` as `-`.
    "content_length",
]);

/// Further headers that have no business in trailers.
const NOT_IN_TRAILERS: Names<'_> = Names::new(&[
    "trailer",
    "host",
    "content-length",
    "content-encoding",
    "content-type",
    "content-range",
    "authorization",
    "x-api-key",
    "cookie",
    "set-cookie",
    "www-authenticate",
    "cache-control",
    "expect",
    "max-forwards",
    "range",
    "location",
    "via",
]);

/// Headers that every request is asked for, and that few have.
const RARE: Names<'_> =
    Names::new(&["te", "upgrade", "expect", "trailer", "transfer-encoding", "x-request-id"]);

/// What was read from the head before anything was removed from it.
#[derive(Debug)]
pub(super) struct Framing {
    /// The one `Host`.
    pub(super) host: HeaderValue,
    /// The body's length, where it is told.
    pub(super) length: Option<u64>,
}

/// Whether a head has any of the headers that few have: one look at its names is cheaper than a
/// look-up of each.
pub(super) fn has_rare(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| RARE.has(name.as_str()))
}

/// Refuses whatever two parsers might read in two ways. hyper has refused the rest.
///
/// # Errors
/// The denial.
pub(super) fn check(
    parts: &http::request::Parts,
    config: &ProxyConfig,
    https: bool,
    rare: bool,
) -> Result<Framing, Denial> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Denial::MethodNotAllowed);
    }
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    if config.target_bytes_max < target.saturating_add(authority) {
        return Err(Denial::TargetTooLong);
    }
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len().saturating_add(value.len()).saturating_add(4)
    };
    let bytes = parts.headers.iter().map(field).sum::<usize>();
    // On HTTP/2 nobody has counted them before.
    if config.header_bytes_max < bytes || config.headers_max < parts.headers.len() {
        return Err(Denial::HeadTooLarge);
    }
    if rare {
        check_encoding(&parts.headers, parts.version)?;
    }
    let host = one_host(&parts.headers)?.clone();
    let schemes: &[(&str, &[u8])] = match (parts.version, https) {
        // Whatever it says was spoken in front of the last hop.
        (Version::HTTP_2, _) => &[("http", b":80"), ("https", b":443")],
        (_, false) => &[("http", b":80")],
        (_, true) => &[("https", b":443")],
    };
    check_target(&parts.uri, &host, schemes)?;
    let length =
        parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Framing { host, length })
}

fn check_encoding(headers: &HeaderMap, version: Version) -> Result<(), Denial> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else { return Ok(()) };
    let chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !chunked || encodings.next().is_some() || version != Version::HTTP_11 {
        return Err(Denial::BadRequest(Malformed::TransferEncoding));
    }
    Ok(())
}

fn one_host(headers: &HeaderMap) -> Result<&HeaderValue, Denial> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(host.as_bytes()) => Ok(host),
        _ => Err(Denial::BadRequest(Malformed::Host)),
    }
}

/// Whether a value is a host name or address with or without a port, and nothing else.
fn is_authority(value: &[u8]) -> bool {
    let closing = value.iter().position(|b| *b == b']');
    let (name, port) = match closing {
        Some(at) => value.split_at_checked(at.saturating_add(1)).unwrap_or((value, &[])),
        None => {
            let at = value.iter().position(|b| *b == b':').unwrap_or(value.len());
            value.split_at_checked(at).unwrap_or((value, &[]))
        }
    };
    let name_ok = match name {
        [b'[', inside @ .., b']'] => {
            !inside.is_empty() && inside.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b))
        }
        [] => false,
        name => name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b)),
    };
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            let digit = |b: u8| b.is_ascii_digit().then(|| u16::from(b - b'0'));
            let add = |port: u16, b: &u8| port.checked_mul(10)?.checked_add(digit(*b)?);
            !digits.is_empty() && digits.iter().try_fold(0, add).is_some()
        }
        _ => false,
    };
    name_ok && port_ok && name.len() <= HOST_LEN_MAX
}

/// A path, or the absolute form of one on the host that `Host` names (RFC 9112, 3.2). A query is of ASCII
/// characters (RFC 3986, 2), as the path is: hyper lets others through if they are UTF-8.
fn check_target(uri: &Uri, host: &HeaderValue, schemes: &[(&str, &[u8])]) -> Result<(), Denial> {
    let bad = Err(Denial::BadRequest(Malformed::Target));
    let plain = |query: &str| query.bytes().all(|byte| byte.is_ascii_graphic());
    if !uri.path().starts_with('/') || !uri.query().is_none_or(plain) {
        return bad;
    }
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(()),
        (Some(scheme), Some(authority)) => {
            let Some((_, port)) = schemes.iter().find(|(name, _)| *name == scheme) else {
                return bad;
            };
            let short = |value: &[u8]| value.strip_suffix(*port).unwrap_or(value).to_vec();
            let same =
                short(authority.as_str().as_bytes()).eq_ignore_ascii_case(&short(host.as_bytes()));
            if same { Ok(()) } else { bad }
        }
        _ => bad,
    }
}

/// Makes an HTTP/2 head what everything else here expects: the host in `Host` (RFC 9113, 8.3.1),
/// all cookies in one field (8.2.3).
pub(super) fn unify(parts: &mut http::request::Parts) {
    if !parts.headers.contains_key(HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    let mut cookies = parts.headers.get_all(COOKIE).iter();
    if cookies.next().is_some() && cookies.next().is_some() {
        let all: Vec<&[u8]> =
            parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            parts.headers.insert(COOKIE, joined);
        }
    }
}

/// Takes off what concerns one connection only: first what `Connection` names. It is done before
/// anything else is read, so that no header counts here and is missing upstream.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Mostly it says what is taken off anyway.
    let further = |name: &&[u8]| {
        let said = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        !HOP_BY_HOP.names.iter().any(said)
    };
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter(|value| *value != "keep-alive")
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(further)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    HOP_BY_HOP.remove_from(headers);
}

/// Whether the client takes trailers (RFC 9110, 10.1.4).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| {
        let mut words = value.as_bytes().split(|b| *b == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// The one protocol that an HTTP/1.1 client asks to switch to, in a request without a body.
pub(super) fn upgrade(parts: &http::request::Parts, body: &Incoming) -> Option<HeaderValue> {
    let mut wanted = parts.headers.get_all(UPGRADE).iter();
    let (Some(wanted), None) = (wanted.next(), wanted.next()) else { return None };
    let named = parts.headers.get_all(CONNECTION).iter().any(|value| {
        let mut words = value.as_bytes().split(|b| *b == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let plain = parts.version == Version::HTTP_11 && parts.method == Method::GET;
    (named && plain && body.is_end_stream()).then(|| wanted.clone())
}

/// Trailers that go on: not such as say how a message is framed, routed, authenticated or kept
/// (RFC 9110, 6.5.1), nor any that are taken off a head. `None` where nothing is left.
pub(super) fn trailers(mut trailers: HeaderMap) -> Option<HeaderMap> {
    HOP_BY_HOP.remove_from(&mut trailers);
    SPOOFABLE.remove_from(&mut trailers);
    NOT_IN_TRAILERS.remove_from(&mut trailers);
    (!trailers.is_empty()).then_some(trailers)
}

/// Takes off what a client may not say of itself.
pub(super) fn remove_spoofable(headers: &mut HeaderMap) {
    SPOOFABLE.remove_from(headers);
}

/// Takes off one name, however it is spelled.
pub(super) fn remove_alike(headers: &mut HeaderMap, name: &str) {
    Names::new(&[name]).remove_from(headers);
}

/// Names of headers that are taken off.
struct Names<'a> {
    names: &'a [&'a str],
    /// The lengths that there are: most other names have none of them.
    lengths: u64,
}

impl<'a> Names<'a> {
    const fn new(names: &'a [&'a str]) -> Self {
        let mut lengths = 0;
        let mut rest = names;
        while let [name, after @ ..] = rest {
            lengths |= bit(name.len());
            rest = after;
        }
        Self { names, lengths }
    }

    fn has(&self, name: &str) -> bool {
        self.lengths & bit(name.len()) != 0 && self.names.iter().any(|known| is_alike(known, name))
    }

    /// Mostly there is nothing to remove: one look at the few names that are there is cheaper than
    /// a look-up of each that must not be.
    fn remove_from(&self, headers: &mut HeaderMap) {
        while let Some(name) = headers.keys().find(|name| self.has(name.as_str())).cloned() {
            headers.remove(name);
        }
    }
}

/// A length in a set of lengths; all from 63 on are one.
const fn bit(length: usize) -> u64 {
    1 << if length < 63 { length } else { 63 }
}

/// Whether a name is another to CGI and its heirs (RFC 3875, 4.1.18), which read `-` and `_` alike.
fn is_alike(name: &str, other: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (a == b'-' && b == b'_');
    name.len() == other.len() && name.bytes().zip(other.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for good in
            ["a", "a.example", "A.example:80", "127.0.0.1:1", "[::1]", "[::1]:8080", "a_b", "a:"]
        {
            assert!(is_authority(good.as_bytes()) || good == "a:", "{good}");
        }
        for odd in [
            "", ":80", "a b", "a/b", "a@b", "a,b", "a:b", "a:99999", "a:1:2", "[", "[]", "[::1]x",
            "a%00",
        ] {
            assert!(!is_authority(odd.as_bytes()), "{odd}");
        }
    }

    #[test]
    fn what_connection_names_is_removed() {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_static("close, X-Private"));
        headers.append("connection", HeaderValue::from_static("x-other ,, "));
        for name in ["x-private", "x-other", "x-stays", "upgrade", "te"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        remove_hop_by_hop(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-stays"]);
    }
}
