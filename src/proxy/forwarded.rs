//! What a trusted proxy in front says of its client.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::config::Networks;
use crate::proxy::connection::told;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// One request's client, as proxies in front tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// The nearest address that is no trusted proxy.
    pub(super) client: IpAddr,
    /// The addresses told, and the one that told them.
    pub(super) chain: HeaderValue,
    /// What the client spoke with the first of them.
    pub(super) proto: Option<HeaderValue>,
}

/// Reads what `peer`, a trusted proxy, says.
///
/// The list grows at its end, so it is read from there: what stands before the first address that
/// is not trusted is that client's own word.
pub(super) fn read(headers: &HeaderMap, peer: IpAddr, trusted: &Networks) -> Forwarded {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().trim().to_owned();
    let told_before: Vec<String> =
        headers.get_all(FORWARDED_FOR).iter().map(text).filter(|text| !text.is_empty()).collect();
    let told_before = told_before.join(", ");
    let mut client = peer;
    for item in told_before.rsplit(',').map(str::trim) {
        if !trusted.contains(client) {
            break;
        }
        let Some(address) = address(item) else { break };
        client = address.to_canonical();
    }
    let chain = match told_before.as_str() {
        "" => told(peer),
        before => HeaderValue::from_maybe_shared(Bytes::from(format!("{before}, {peer}")))
            .unwrap_or_else(|_never| told(peer)),
    };
    let mut protos = headers.get_all(FORWARDED_PROTO).iter();
    let proto = match (protos.next(), protos.next()) {
        (Some(one), None) if one == "http" || one == "https" => Some(one.clone()),
        _ => None,
    };
    Forwarded { client, chain, proto }
}

/// Some proxies add the port.
fn address(item: &str) -> Option<IpAddr> {
    let bare = item.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(item);
    let with_port = || Some(item.parse::<SocketAddr>().ok()?.ip());
    bare.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::api::Network;

    fn check(told: &[&str], client: &str, chain: &str) {
        let trusted = ["10.0.0.0/8", "::1"].map(|text| text.parse::<Network>().unwrap());
        let mut headers = HeaderMap::new();
        for value in told {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let peer = "10.0.0.1".parse().unwrap();
        let read = read(&headers, peer, &trusted.into_iter().collect());
        assert_eq!(read.client, client.parse::<IpAddr>().unwrap(), "{told:?}");
        assert_eq!(read.chain, chain, "{told:?}");
    }

    #[test]
    fn the_nearest_address_that_is_not_trusted_is_the_client() {
        check(&[], "10.0.0.1", "10.0.0.1");
        check(&[""], "10.0.0.1", "10.0.0.1");
        check(&["192.0.2.7"], "192.0.2.7", "192.0.2.7, 10.0.0.1");
        check(&["6.6.6.6, 192.0.2.7"], "192.0.2.7", "6.6.6.6, 192.0.2.7, 10.0.0.1");
        check(
            &["6.6.6.6", "192.0.2.7,10.2.2.2"],
            "192.0.2.7",
            "6.6.6.6, 192.0.2.7,10.2.2.2, 10.0.0.1",
        );
        check(&["10.9.9.9"], "10.9.9.9", "10.9.9.9, 10.0.0.1");
        check(&["192.0.2.7:4711"], "192.0.2.7", "192.0.2.7:4711, 10.0.0.1");
        check(&["[2001:db8::7]"], "2001:db8::7", "[2001:db8::7], 10.0.0.1");
        check(&["2001:db8::7, ::1"], "2001:db8::7", "2001:db8::7, ::1, 10.0.0.1");
        check(&["192.0.2.7, nonsense"], "10.0.0.1", "192.0.2.7, nonsense, 10.0.0.1");
        check(&["::ffff:192.0.2.7"], "192.0.2.7", "::ffff:192.0.2.7, 10.0.0.1");
    }
}
