//! A whole decision, beside what a naive gateway would do: parse the stored JSON and count under
//! one lock, per request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench may panic")]
#![allow(clippy::indexing_slicing, clippy::as_conversions, reason = "a bench knows its numbers")]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a part of the helpers is used")]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dashmap::DashMap;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde_json::json;
use sha2::{Digest, Sha256};
use turnpike::domain::decision::Request;
use turnpike::domain::token::{Pepper, TokenHash};
use turnpike::enforce::Facts;

#[path = "../tests/it/gate.rs"]
mod gate;

const TOKEN: &str = "LEG-00fa-91c2-77aa-4410-9a1c-2200-71";

fn decisions(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gate = runtime.block_on(async {
        let gate = gate::Gate::new().await;
        let plan = gate
            .plan(json!({"Name": "p", "RateLimit": 1_000_000_000_u64, "Per": 60,
                         "Quota": 100_000_000_000_u64, "QuotaRenewalRate": 86_400}))
            .await;
        let tight = gate
            .plan(json!({"Name": "t", "UnlimitedRateLimit": true, "Quota": 1,
                         "QuotaRenewalRate": 86_400}))
            .await;
        let product = gate.product("a", &["a"]).await;
        gate.import(TOKEN, plan, &[product]).await;
        gate.import("used-up", tight, &[product]).await;
        gate
    });
    let snapshot = gate.catalog.snapshot();
    let hit = snapshot.route(None, "/a/users/7").unwrap();
    let request = Request {
        api: hit.value,
        method: "GET",
        path: "/a/users/7",
        rest: hit.rest,
        version: None,
    };
    let other = snapshot.route(None, "/b/users/7").unwrap();
    let outside = Request { api: other.value, path: "/b/users/7", ..request };
    let client = "192.0.2.1".parse().unwrap();
    let facts =
        |request, token: &'static str| Facts { request, token: Some(token.as_bytes()), client };
    let mut group = c.benchmark_group("decide");
    let mut bench = |name: &str, facts: Facts<'_>| {
        group.bench_function(name, |b| {
            b.iter(|| {
                // Time stands still unless it is moved; it moves as it would in the product.
                gate.pass(Duration::from_nanos(500));
                runtime.block_on(gate.enforcer.decide(black_box(&facts)))
            });
        });
    };
    bench("hit: rate and quota charged", facts(request, TOKEN));
    bench("denied: API not granted", facts(outside, TOKEN));
    bench("denied: quota used up", facts(request, "used-up"));
    bench("unknown token", facts(request, "nobody-knows-this-token"));
    group.bench_function("baseline: parse JSON, count under one lock", |b| {
        let naive = Naive::new();
        b.iter(|| naive.decide(black_box(TOKEN), "a"));
    });
    group.bench_function("runtime alone", |b| b.iter(|| runtime.block_on(async { black_box(1) })));
    group.finish();
}

/// What is easy to write: a record parsed per request, counters by text under one lock.
struct Naive {
    records: Mutex<HashMap<String, String>>,
    counters: Mutex<HashMap<String, u64>>,
}

impl Naive {
    fn new() -> Self {
        let record = json!({"apis": ["a"], "plan": {"rate": 1_000_000_000_u64, "quota": 100_000_000_000_u64},
                            "expires": null, "active": true});
        let hash = format!("{:x?}", Sha256::digest(TOKEN.as_bytes()));
        Self {
            records: Mutex::new(HashMap::from([(hash, record.to_string())])),
            counters: Mutex::default(),
        }
    }

    fn decide(&self, token: &str, api: &str) -> bool {
        let hash = format!("{:x?}", Sha256::digest(token.as_bytes()));
        let text = self.records.lock().get(&hash).cloned();
        let Some(text) = text else { return false };
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        if !record["apis"].as_array().unwrap().iter().any(|id| id == api) {
            return false;
        }
        let mut counters = self.counters.lock();
        let limits = [("rate", &record["plan"]["rate"]), ("quota", &record["plan"]["quota"])];
        limits.iter().all(|(kind, limit)| {
            let counter = counters.entry(format!("{kind}-{hash}")).or_insert(0);
            *counter += 1;
            *counter <= limit.as_u64().unwrap()
        })
    }
}

fn hashes(c: &mut Criterion) {
    let pepper = Pepper::new([7; 32]);
    let mut group = c.benchmark_group("token hash");
    group.bench_function("HMAC-SHA-256(pepper, SHA-256(token))", |b| {
        b.iter(|| pepper.hash(black_box(TOKEN.as_bytes())));
    });
    group.bench_function("baseline: SHA-256 to hexadecimal text", |b| {
        b.iter(|| format!("{:x?}", Sha256::digest(black_box(TOKEN.as_bytes()))));
    });
    group.finish();
}

/// The two maps that a credential could be looked up in.
fn maps(c: &mut Criterion) {
    let hashes: Vec<TokenHash> =
        (0..100_000_u32).map(|n| Pepper::new([1; 32]).hash(&n.to_be_bytes())).collect();
    let bounded = Cache::new(200_000);
    let unbounded = DashMap::new();
    for hash in &hashes {
        bounded.insert(*hash, std::sync::Arc::new(1_u64));
        unbounded.insert(*hash, std::sync::Arc::new(1_u64));
    }
    let mut group = c.benchmark_group("look-up among 100,000");
    let mut at = 0;
    let mut next = move || {
        at = (at + 7_919) % 100_000;
        at
    };
    group.bench_function("quick_cache (bounded)", |b| {
        b.iter(|| bounded.get(black_box(&hashes[next()])));
    });
    let mut at = 0;
    let mut next = move || {
        at = (at + 7_919) % 100_000;
        at
    };
    group.bench_function("dashmap (unbounded)", |b| {
        b.iter(|| {
            unbounded.get(black_box(&hashes[next()])).map(|found| std::sync::Arc::clone(&found))
        });
    });
    group.finish();
}

criterion_group!(benches, decisions, hashes, maps);
criterion_main!(benches);
