//! Writes that are answered when every gateway enforces them: `?wait=cluster&timeout=2s`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::AdminState;
use super::answer::Refusal;
use super::call::parameter;
use crate::store::RecordStore;

/// How long is waited for the other gateways where the request does not say: as long as one that
/// has fallen silent counts as live.
const WAIT: Duration = Duration::from_secs(3);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Holds the answer to a write back until all gateways enforce it. If some do not in time, the
/// answer is 202 and names them in `LateGateways`; the write is done all the same.
pub(crate) async fn wait(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || parameter(query, "wait") != Some("cluster") {
        return next.run(request).await;
    }
    let timeout = parameter(query, "timeout").filter(|text| !text.is_empty());
    let Some(timeout) = timeout.map_or(Some(WAIT), span) else {
        let fault = "timeout must be a span such as 2s or 500ms";
        return Refusal::Faults(vec![fault.to_owned()]).into_response();
    };
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let late = match state.catalog.store().generation().await {
        Ok(at) => state.catalog.until_acknowledged(at, timeout.min(WAIT_MAX)).await,
        // Nobody can be asked.
        Err(_) => state.catalog.peers().iter().map(|peer| peer.name.clone()).collect(),
    };
    if late.is_empty() { response } else { told(response, late).await }
}

/// The answer with the names of those that are late.
async fn told(response: Response, late: Vec<String>) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
    parts.status = StatusCode::ACCEPTED;
    let bytes = match serde_json::from_slice(&bytes) {
        Ok(Value::Object(mut members)) => {
            members.insert("LateGateways".to_owned(), late.into());
            Value::from(members).to_string().into()
        }
        Ok(_) | Err(_) => bytes,
    };
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    Response::from_parts(parts, Body::from(bytes))
}

fn span(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit_or_is_in_seconds() {
        for (text, ms) in [("2s", Some(2_000)), ("3", Some(3_000)), ("500ms", Some(500))] {
            assert_eq!(span(text), ms.map(Duration::from_millis), "{text}");
        }
        for text in ["", "s", "soon", "-1s", "1.5s"] {
            assert_eq!(span(text), None, "{text}");
        }
    }
}
