//! What an upstream answers, as the client gets it.

use http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::domain::denial::Denial;
use crate::proxy::body::Content;
use crate::proxy::head;
use crate::proxy::tunnel::Switched;
use crate::proxy::upstream::Relay;

/// The upstream's word that it switches to what the client asked for, and to nothing else.
pub(super) fn switched(
    response: Response<Incoming>,
    wanted: Option<&HeaderValue>,
    switched: Option<Switched>,
) -> Result<Response<Content>, Denial> {
    let mut parts = response.into_parts().0;
    let to = parts.headers.get(UPGRADE);
    let same = |wanted: &&HeaderValue| {
        to.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let (Some(to), Some(switched)) = (wanted.filter(same), switched) else {
        return Err(Denial::UpstreamBroken);
    };
    head::remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, to.clone());
    Ok(Response::from_parts(parts, Content::Switched(Box::new(switched))))
}

/// The upstream's answer as a client that spoke this version gets it.
pub(super) fn relayed(
    response: Response<Incoming>,
    is_head: bool,
    version: Version,
    relay: impl FnOnce(Incoming) -> Relay,
) -> Result<Response<Content>, Denial> {
    let (mut parts, incoming) = response.into_parts();
    let mut encodings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let plain = match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    // Of a coding that is taken off with its header, the client would get bytes it cannot read.
    if !plain {
        return Err(Denial::UpstreamBroken);
    }
    head::remove_hop_by_hop(&mut parts.headers);
    let bodiless =
        is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let lengths = parts.headers.get_all(CONTENT_LENGTH).iter().count();
    let endless = !bodiless && incoming.size_hint().exact().is_none();
    if 1 < lengths || endless {
        parts.headers.remove(CONTENT_LENGTH);
    }
    if endless && version == Version::HTTP_10 {
        // There are no chunks: the connection's end is the body's.
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if bodiless || incoming.size_hint().exact().is_some() {
        // Trailers come behind chunks only.
        parts.headers.remove(TRAILER);
    }
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, Content::Upstream(Box::new(relay(incoming)))))
}
