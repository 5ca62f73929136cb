//! What the gateway itself answers: refusals and preflights.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_TYPE, ORIGIN,
    VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::config::PoliciesConfig;
use crate::domain::api::Cors;
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

/// Whether a request is a CORS preflight.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight. An origin that is not allowed gets no permission, and the browser
/// refuses.
pub(super) fn preflight(cors: &Cors, request: &HeaderMap) -> Answer {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    let origin = request.get(ORIGIN);
    let any = cors.origins.iter().any(|allowed| allowed.as_ref() == "*");
    let listed = |origin: &&HeaderValue| {
        cors.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    };
    let allowed = match any {
        true => Some(HeaderValue::from_static("*")),
        false => origin.filter(listed).cloned(),
    };
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        list(&mut headers, ACCESS_CONTROL_ALLOW_METHODS, &cors.methods);
        list(&mut headers, ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age_s));
    }
    (StatusCode::NO_CONTENT, headers, Bytes::new())
}

fn list(headers: &mut HeaderMap, name: HeaderName, items: &[std::sync::Arc<str>]) {
    if let Ok(value) = HeaderValue::try_from(items.join(", "))
        && !items.is_empty()
    {
        headers.insert(name, value);
    }
}
