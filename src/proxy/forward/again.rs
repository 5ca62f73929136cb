//! A request that goes upstream once more, or later than it was charged for.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use crate::domain::api::Retry;
use crate::domain::decision;
use crate::domain::denial::Denial;
use crate::enforce::Permit;
use crate::proxy::body::RequestBody;
use crate::proxy::call::Call;
use crate::proxy::forward::Outgoing;
use crate::proxy::forward::prepare::prepare;
use crate::proxy::published::Repeat;

/// What a request can be made from once more: one without a body, or with all of it there.
pub(super) struct Spare {
    /// As its client sent them; a list, since mostly nobody looks into it.
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Spare {
    /// Only of requests that mean the same when they come twice (RFC 9110, 9.2.2).
    pub(super) fn of(
        method: &Method,
        headers: &HeaderMap,
        body: &RequestBody,
        retry: &Retry,
    ) -> Option<Self> {
        let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
        let safe = retry.max != 0 && idempotent.contains(method);
        let body = body.spare().filter(|_| safe)?;
        let copy = |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone());
        Some(Self { headers: headers.iter().map(copy).collect(), body })
    }
}

/// Makes a request that a target may have seen once more, if it may be sent: it costs its units
/// again, and is one of few.
pub(super) async fn repeat<'p>(
    call: &Call<'_>,
    outgoing: &Outgoing<'p>,
    permit: Option<&Permit>,
    method: &Method,
    spare: &Spare,
) -> Option<(Repeat<'p>, Request<RequestBody>)> {
    let published = outgoing.published;
    let (state, id) = (&call.engine.state, &published.api.id);
    let Some(repeat) = published.repeat() else {
        state.metrics.retry(id, "over_budget");
        return None;
    };
    if !charged_again(call, outgoing, permit, method).await {
        state.metrics.retry(id, "over_limit");
        return None;
    }
    state.metrics.retry(id, "repeated");
    let mut headers: HeaderMap = spare.headers.iter().cloned().collect();
    let body = RequestBody::of(spare.body.clone());
    prepare(&mut headers, call, outgoing, permit, &body);
    Some((repeat, super::request(method, headers, body)))
}

/// Charges a request that was not written in time after its charge, or says why it may not go.
pub(super) async fn charge_anew(
    call: &Call<'_>,
    outgoing: &Outgoing<'_>,
    permit: Option<&Permit>,
    request: &Request<RequestBody>,
) -> Result<(), Denial> {
    let id = &outgoing.published.api.id;
    call.engine.state.metrics.retry(id, "late");
    let charged = charged_again(call, outgoing, permit, request.method()).await;
    if charged { Ok(()) } else { Err(Denial::RateExceeded) }
}

/// Charges a request that was admitted once more; says whether it may go.
async fn charged_again(
    call: &Call<'_>,
    outgoing: &Outgoing<'_>,
    permit: Option<&Permit>,
    method: &Method,
) -> bool {
    let Some(permit) = permit else { return true };
    let Outgoing { published, normal, rest, version, .. } = *outgoing;
    let (api, method) = (&published.api, method.as_str());
    let request = decision::Request { api, method, path: normal, rest, version };
    call.engine.state.enforcer.charge_again(permit, &request).await
}
