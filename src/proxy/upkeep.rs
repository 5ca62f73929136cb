//! What goes on beside requests: targets are checked and pardoned, names resolved again, unused
//! connections closed.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::domain::api::Health;
use crate::domain::balance::hash;
use crate::domain::time::BootNs;
use crate::proxy::body::RequestBody;
use crate::proxy::engine::Engine;
use crate::proxy::peer::Peer;
use crate::proxy::published::Published;
use crate::proxy::upstream::{self, Pool};

/// How often is looked at what is due. A target is checked, and pardoned, so much late at most.
const TICK: Duration = Duration::from_millis(100);
/// How often unused upstream connections are looked at, in ticks.
const SWEEP_TICKS: u64 = 50;

/// Goes on until it is dropped.
pub(super) async fn upkeep(engine: Arc<Engine>) {
    let mut jobs = JoinSet::new();
    let mut every = tokio::time::interval(TICK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let resolve_every = Duration::from_millis(engine.state.config.resolve_every_ms);
    let (mut version, mut ticks, mut resolve_at) = (0, 0_u64, BootNs(0));
    loop {
        every.tick().await;
        let state = &engine.state;
        let snapshot = state.catalog.snapshot();
        if snapshot.version != version {
            version = snapshot.version;
            engine.upstreams.follow(snapshot.apis(), &state.metrics);
        }
        let now = state.clock.boot();
        for published in engine.upstreams.all().values() {
            look_after(&engine, published, now, &mut jobs);
        }
        if resolve_at <= now {
            resolve_at = now.plus(resolve_every);
            let named = engine.upstreams.pools().into_iter().filter(|pool| pool.is_named());
            named.for_each(|pool| drop(jobs.spawn(resolve(pool, resolve_every))));
        }
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(SWEEP_TICKS) {
            engine.upstreams.pools().iter().for_each(|pool| pool.sweep());
        }
        // What ended has said what it had to say.
        while jobs.try_join_next().is_some() {}
    }
}

fn look_after(
    engine: &Arc<Engine>,
    published: &Arc<Published>,
    now: BootNs,
    jobs: &mut JoinSet<()>,
) {
    let rules = &published.api.upstream;
    for peer in published.peers() {
        peer.metrics.in_flight.set(i64::from(peer.standing.in_flight()));
        if peer.standing.pardon(&rules.ejection, now) {
            published.changed();
            let upstream: &str = &peer.pool.authority;
            tracing::info!(api = %published.api.id, upstream, "a target gets requests again");
        }
        // With one target there is nothing to choose.
        let checked = rules.health.every_ms != 0 && 1 < published.peers().len();
        if checked && peer.standing.check_is_due(now) {
            let (engine, published) = (Arc::clone(engine), Arc::clone(published));
            jobs.spawn(check(engine, published, Arc::clone(peer)));
        }
    }
}

async fn check(engine: Arc<Engine>, published: Arc<Published>, peer: Arc<Peer>) {
    let health = &published.api.upstream.health;
    let passed = passes(&peer.pool, health).await;
    // Targets that were published together are not checked together for ever.
    let spread = hash(peer.pool.authority.as_bytes()) % (health.every_ms / 8).max(1);
    let next = engine.state.clock.boot().plus_ms(health.every_ms.saturating_add(spread));
    if peer.standing.checked(passed, health, next) {
        published.changed();
        let upstream: &str = &peer.pool.authority;
        if passed {
            tracing::info!(api = %published.api.id, upstream, "a target passes its checks");
        } else {
            tracing::warn!(api = %published.api.id, upstream, "a target fails its checks");
        }
    }
}

async fn passes(pool: &Pool, health: &Health) -> bool {
    let timeout = Duration::from_millis(health.timeout_ms);
    let asked = async {
        let mut link = pool.probe(timeout).await.ok()?;
        let Some(path) = &health.path else { return Some(()) };
        let request = Request::get(path.as_ref())
            .header(http::header::HOST, pool.host.clone())
            .header(http::header::USER_AGENT, "turnpike-health")
            .body(RequestBody::empty())
            .ok()?;
        let transfer = request.body().transfer();
        let answer = upstream::send(&mut link, &mut Some(request), &transfer, timeout).await;
        answer.ok().filter(|answer| answer.status().as_u16() < 400).map(drop)
    };
    tokio::time::timeout(timeout, asked).await.ok().flatten().is_some()
}

async fn resolve(pool: Arc<Pool>, timeout: Duration) {
    // A name that cannot be resolved now keeps the addresses it had.
    match tokio::time::timeout(timeout, pool.resolve()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, upstream = %pool.authority, "a name cannot be resolved");
        }
        Err(_late) => tracing::warn!(upstream = %pool.authority, "a name is not resolved in time"),
    }
}
