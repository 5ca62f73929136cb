//! What the holder of a token is told of its own limits, at `/.well-known/quota`. Asking is charged
//! to nothing.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use crate::domain::api::TokenSources;
use crate::domain::denial::Denial;
use crate::domain::time::UnixMs;
use crate::enforce::{LimitUsage, LimitUsed, Refusal, Usage};
use crate::proxy::body::Content;
use crate::proxy::call::{Call, own, refusal};
use crate::proxy::credentials::Places;

/// The path. It comes before all APIs.
pub(super) const QUOTA_PATH: &str = "/.well-known/quota";

/// A credential's limits. Times are unix seconds.
#[derive(Debug, Serialize)]
struct Told {
    status: &'static str,
    expires_at: Option<u64>,
    limits: Vec<Limit>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct Limit {
    kind: &'static str,
    limit: u64,
    used: u64,
    remaining: u64,
    /// Length of a rate's window, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_ms: Option<u64>,
    /// When units come back; absent: never, or not before the first request.
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<u64>,
    scope: &'static str,
    apis: Vec<String>,
}

impl Call<'_> {
    /// Answers the holder of the token in `Authorization` or `X-API-Key`.
    pub(super) async fn tell_holder(
        &mut self,
        parts: &Parts,
    ) -> Result<Response<Content>, Box<Refusal>> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let mut headers = HeaderMap::with_capacity(1);
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(own((StatusCode::METHOD_NOT_ALLOWED, headers, Bytes::new())));
        }
        let sources = TokenSources {
            authorization: true,
            x_api_key: true,
            header: None,
            query: None,
            cookie: None,
        };
        let places = Places { sources: &sources, header: None };
        let token = places
            .read(&parts.headers, parts.uri.query())
            .map_err(|what| refusal(Denial::BadRequest(what)))?;
        let enforcer = &self.engine.state.enforcer;
        let usage = enforcer.own_usage(token.as_deref(), self.client.ip).await.map_err(Box::new)?;
        let told = told(&usage, self.engine.state.clock.unix());
        // Texts and numbers: there is nothing in it that could fail.
        let body = Bytes::from(serde_json::to_vec(&told).unwrap_or_default());
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let body = if self.record.is_head() { Bytes::new() } else { body };
        Ok(own((StatusCode::OK, headers, body)))
    }
}

fn told(usage: &Usage, now: UnixMs) -> Told {
    Told {
        status: "active",
        expires_at: usage.expires.map(UnixMs::as_secs_up),
        limits: usage.limits.iter().map(|limit| limit_told(limit, now)).collect(),
    }
}

fn limit_told(usage: &LimitUsage, now: UnixMs) -> Limit {
    let (scope, apis) = (usage.scope.noun(), usage.apis.iter().map(ToString::to_string).collect());
    match &usage.used {
        LimitUsed::Rate { rate, remaining, reset_ms, .. } => Limit {
            kind: "rate",
            limit: rate.requests.get(),
            used: rate.requests.get().saturating_sub(*remaining),
            remaining: *remaining,
            per_ms: Some(rate.per_ms.get()),
            resets_at: Some(now.plus_ms(*reset_ms).as_secs_up()),
            scope,
            apis,
        },
        LimitUsed::Quota { limit, spread, window, .. } => Limit {
            kind: "quota",
            limit: *limit,
            used: spread.used,
            remaining: spread.remaining,
            per_ms: None,
            resets_at: window.and_then(|window| window.end).map(UnixMs::as_secs_up),
            scope,
            apis,
        },
    }
}
