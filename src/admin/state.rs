//! How this gateway stands towards its store and the other gateways.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::AdminState;
use crate::store::RecordStore;
use crate::store::registry::Peer;

/// `GET /v1/state/status`.
pub(crate) async fn status(State(state): State<AdminState>) -> Json<Value> {
    let catalog = &state.catalog;
    let (applied, peers) = (catalog.applied(), catalog.peers());
    let stored = catalog.store().generation().await.ok();
    let up = stored.is_some() && catalog.store().is_up();
    // Where nobody else commits, what is committed is enforced when it is answered.
    let synced = stored.is_some_and(|stored| stored == applied || !catalog.store().has_feed());
    let gateways: Vec<Value> = peers.iter().map(gateway).collect();
    let refused: Vec<Value> = state
        .enforcer
        .refused()
        .into_iter()
        .map(|(credential, reason)| json!({"credential": credential.0, "reason": reason}))
        .collect();
    Json(json!({
        "generation": applied.0,
        "store": {
            "state": if up { "up" } else { "away" },
            "generation": stored.map(|generation| generation.0),
        },
        "synced": synced,
        "feed": {"lag_ms": catalog.lag_ms(state.clock.boot()), "resyncs": catalog.resyncs()},
        "gateways": gateways,
        "refused_credentials": refused,
    }))
}

fn gateway(peer: &Peer) -> Value {
    json!({
        "process": format!("{:016x}", peer.process.0),
        "name": peer.name,
        "generation": peer.applied.0,
        "silent_ms": peer.silent_ms,
        "live": peer.is_live(),
    })
}
