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
