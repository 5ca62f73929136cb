//! What the gateway itself answers when it refuses.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::config::PoliciesConfig;
use crate::domain::denial::Denial;
use crate::domain::time::UnixMs;
use crate::enforce::Refusal;
use crate::proxy::limits;

/// The header of request ids.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A refusal's body (RFC 9457), with Tyk's `error` beside it.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    error: &'a str,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The refusal's code, where there is no body to hold it.
const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");

/// An answer of the gateway's own.
pub(super) type Answer = (StatusCode, HeaderMap, Bytes);

/// The one place where a refusal becomes an answer.
pub(super) fn rescue(
    refusal: &Refusal,
    policies: &PoliciesConfig,
    id: &HeaderValue,
    limit_headers: bool,
    now: UnixMs,
) -> Answer {
    let answer = refusal.denial.answer();
    let status = status(refusal.denial, policies);
    let problem = Problem {
        r#type: format!("urn:turnpike:problem:{}", answer.code),
        title: status.canonical_reason().unwrap_or("Refused"),
        status: status.as_u16(),
        detail: answer.detail,
        code: answer.code,
        request_id: id.to_str().unwrap_or_default(),
        error: answer.tyk_error,
    };
    // Strings and a number: there is nothing in it that could fail.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750, 3.1: no error code for who sent no token.
        let missing = refusal.denial == Denial::TokenMissing;
        let challenge = if missing { "Bearer" } else { "Bearer error=\"invalid_token\"" };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if limit_headers {
        limits::set(&mut headers, &refusal.readings, now);
    }
    if let Some(retry_ms) = refusal.retry_ms {
        limits::set_retry(&mut headers, retry_ms);
    }
    (status, headers, Bytes::from(body))
}

fn status(denial: Denial, policies: &PoliciesConfig) -> StatusCode {
    let code = if denial == Denial::QuotaExceeded {
        policies.quota_exceeded_status
    } else if policies.tyk_parity {
        denial.tyk_status()
    } else {
        denial.answer().status
    };
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The same refusal as a client of gRPC expects it: trailers and nothing else, with a status of
/// gRPC's own in them (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
pub(super) fn as_grpc((_, mut headers, _): Answer, denial: Denial) -> Answer {
    let answer = denial.answer();
    // As its clients read the statuses of proxies, but for 429 and 413: those are limits of ours.
    // (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>)
    let status = match answer.status {
        401 => 16,
        403 => 7,
        404 => 12,
        413 | 429 => 8,
        502..=504 => 14,
        _ => 13,
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    // Every detail is plain ASCII without a per cent sign: nothing is to be escaped.
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(answer.detail));
    headers.insert(X_ERROR_CODE, HeaderValue::from_static(answer.code));
    (StatusCode::OK, headers, Bytes::new())
}

/// Whether a request is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';', ..]))
}
