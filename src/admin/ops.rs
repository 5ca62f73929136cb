//! `/metrics`, `/live`, `/ready`, `/hello`: no secret, and nothing in them that is one.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::Refusal;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::RecordStore;

/// What the operators' endpoints read.
#[derive(Clone, Debug)]
pub struct OpsState {
    catalog: Arc<Catalog>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    started_ms: u64,
    /// Turns true when the gateway takes no more requests.
    leaving: Option<watch::Receiver<bool>>,
}

impl OpsState {
    /// Notes the time of the start.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        let started_ms = clock.unix().0;
        Self { catalog, metrics, clock, started_ms, leaving: None }
    }

    /// Lets `/ready` say no once `leaving` is true.
    #[must_use]
    pub fn until(self, leaving: watch::Receiver<bool>) -> Self {
        Self { leaving: Some(leaving), ..self }
    }
}

/// The operators' endpoints on a listener of their own.
pub fn alone(state: OpsState) -> Router {
    router(state).fallback(async || Refusal::NoPath)
}

/// The operators' endpoints, beside others.
pub fn router(state: OpsState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/hello", get(hello))
        .method_not_allowed_fallback(async || Refusal::NoMethod)
        .with_state(state)
}

async fn metrics(State(state): State<OpsState>) -> Response {
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The process runs. The texts are those that scripts of the portal wait for.
async fn live() -> Json<Value> {
    Json(json!({"status": "ok", "message": "Success"}))
}

/// The process can decide: its catalog is loaded, its store answers or can be done without, and it
/// does not stop.
async fn ready(State(state): State<OpsState>) -> Response {
    if state.leaving.as_ref().is_some_and(|leaving| *leaving.borrow()) {
        return not_ready("the gateway stops");
    }
    match stands(&state).await {
        Stands::Well => Json(json!({"status": "ok", "message": "Success"})).into_response(),
        Stands::Alone => {
            let warnings = ["the store is away: cached credentials only, limits as plans say"];
            Json(json!({"status": "ok", "message": "Success", "warnings": warnings}))
                .into_response()
        }
        Stands::Lame => not_ready("the store does not answer"),
    }
}

fn not_ready(why: &str) -> Response {
    let body = json!({"status": "error", "errors": [why]});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

/// How a gateway stands towards its store.
enum Stands {
    /// It answers.
    Well,
    /// It is away, and this gateway goes on with what it knows: taking it out of service would
    /// only make an outage of it.
    Alone,
    /// It is this gateway's own, and fails.
    Lame,
}

async fn stands(state: &OpsState) -> Stands {
    let store = state.catalog.store();
    match store.generation().await {
        Ok(_) => Stands::Well,
        Err(error) => {
            let alone = store.has_feed() && error.is_away();
            tracing::warn!(%error, alone, "the store does not answer");
            if alone { Stands::Alone } else { Stands::Lame }
        }
    }
}

/// Who is this, and how does it do: always 200, in the shape of Tyk's `/hello`.
async fn hello(State(state): State<OpsState>) -> Json<Value> {
    let snapshot = state.catalog.snapshot();
    let (status, store) = match stands(&state).await {
        Stands::Well => ("pass", "pass"),
        Stands::Alone => ("warn", "fail"),
        Stands::Lame => ("fail", "fail"),
    };
    Json(json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Turnpike",
        "uptime_s": state.clock.unix().0.saturating_sub(state.started_ms) / 1_000,
        "apis": snapshot.apis().count(),
        "policies": snapshot.policy_count(),
        "generation": snapshot.generation.0,
        "details": {"store": {"status": store, "componentType": "datastore"}},
    }))
}
