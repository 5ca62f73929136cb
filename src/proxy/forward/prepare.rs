//! What a client's headers become on their way upstream.

use http::HeaderValue;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http_body::Body;

use crate::enforce::Permit;
use crate::proxy::body::RequestBody;
use crate::proxy::call::Call;
use crate::proxy::forward::{ADDED_MAX, Outgoing};
use crate::proxy::forwarded::{FORWARDED_FOR, FORWARDED_PROTO};
use crate::proxy::head;
use crate::proxy::limits::number;
use crate::proxy::respond::X_REQUEST_ID;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const CREDENTIAL: HeaderName = HeaderName::from_static("x-turnpike-credential");
const APP: HeaderName = HeaderName::from_static("x-turnpike-app");
const USER: HeaderName = HeaderName::from_static("x-turnpike-user");
const ORGANISATION: HeaderName = HeaderName::from_static("x-turnpike-organisation");

/// Makes a client's headers those that go upstream with this body.
pub(super) fn prepare(
    headers: &mut HeaderMap,
    call: &Call<'_>,
    outgoing: &Outgoing<'_>,
    permit: Option<&Permit>,
    body: &RequestBody,
) {
    let Outgoing { published, host, .. } = *outgoing;
    head::remove_spoofable(headers);
    introduce(headers, call, host);
    if let Some(permit) = permit.filter(|_| published.api.identity_headers) {
        identify(headers, permit);
    }
    published.rules.introduce(headers, permit.and_then(Permit::metadata));
    published.rules.request.apply(headers);
    frame(headers, body, call.rare);
}

/// Says who asks, and through whom. The client's own word on that was removed before; what a
/// trusted proxy said of its client goes on.
fn introduce(headers: &mut HeaderMap, call: &Call<'_>, host: &HeaderValue) {
    let scheme = HeaderValue::from_static(if call.client.https { "https" } else { "http" });
    let (chain, proto) = match &call.forwarded {
        Some(told) => (told.chain.clone(), told.proto.clone().unwrap_or(scheme)),
        None => (call.client.forwarded_for.clone(), scheme),
    };
    // All at once: what grows is copied.
    headers.reserve(ADDED_MAX);
    headers.insert(FORWARDED_FOR, chain);
    headers.insert(FORWARDED_PROTO, proto);
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(X_REQUEST_ID, call.record.id.clone());
    if let Some(via) = call.engine.via(call.version) {
        headers.append(VIA, via.clone());
    }
    // What was said of the client's connection was removed; this is said of ours.
    if let Some(wanted) = &call.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, wanted.clone());
    } else if call.takes_trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Says whose request it is.
fn identify(headers: &mut HeaderMap, permit: &Permit) {
    let owner = permit.owner();
    headers.insert(CREDENTIAL, number(permit.credential().0));
    let named = [
        (APP, owner.app.map(|id| id.0)),
        (USER, owner.user.map(|id| id.0)),
        (ORGANISATION, owner.consumer_org.map(|id| id.0)),
    ];
    for (name, id) in named {
        if let Some(id) = id {
            headers.insert(name, number(id));
        }
    }
}

/// One framing, whatever the client's was: a length that is known, or chunks.
fn frame(headers: &mut HeaderMap, body: &RequestBody, rare: bool) {
    let waits = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if rare && headers.get(EXPECT).is_some_and(waits) {
        // The gateway tells the client to go on once it sends the body upstream.
        headers.remove(EXPECT);
    }
    if body.size_hint().exact().is_none() {
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else if rare {
        // Trailers come behind chunks only.
        headers.remove(TRAILER);
    }
}
