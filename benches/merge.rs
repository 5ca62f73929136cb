//! The merge of policies, beside a naive baseline that clones JSON documents.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark that panics is no benchmark"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use turnpike::domain::credential::Credential;
use turnpike::domain::id::{CredentialId, OrgId};
use turnpike::domain::merge::{Found, Mode, merge};
use turnpike::domain::policy::Policy;
use turnpike::wire::tyk;

fn product_and_plan() -> Vec<Value> {
    vec![
        json!({"id": "product", "partitions": {"acl": true}, "access_rights": rights(3)}),
        json!({"id": "plan", "partitions": {"rate_limit": true, "quota": true},
            "rate": 10, "per": 1, "quota_max": 1_000, "quota_renewal_rate": 3_600}),
    ]
}

fn five_by_twenty() -> Vec<Value> {
    let policy = |n: u64| {
        json!({"id": format!("p{n}"), "rate": 10 + n, "per": 1, "quota_max": 1_000 * n,
            "quota_renewal_rate": 3_600, "tags": [format!("t{n}")], "access_rights": rights(20)})
    };
    (1..=5).map(policy).collect()
}

fn rights(apis: usize) -> Value {
    let right = json!({"versions": ["v1", "v2"], "allowed_urls": [
        {"url": "/orders", "methods": ["GET", "POST"]}, {"url": "/items", "methods": ["GET"]}]});
    (0..apis).map(|n| (format!("api-{n}"), right.clone())).collect::<Map<_, _>>().into()
}

fn bench(c: &mut Criterion) {
    let org: OrgId = "org".parse().unwrap();
    let key = Credential::empty(CredentialId(1), org.clone());
    for (name, documents) in
        [("product+plan", product_and_plan()), ("5 policies x 20 APIs", five_by_twenty())]
    {
        let shape = |value: &Value| serde_json::from_value::<tyk::Policy>(value.clone()).unwrap();
        let policies: Vec<Policy> =
            documents.iter().map(|value| shape(value).to_domain(&org).unwrap()).collect();
        let found: Vec<Found<'_>> = policies.iter().map(Found::Policy).collect();
        let mut group = c.benchmark_group(name);
        for (label, mode) in [("ours", Mode::Ours), ("tyk", Mode::Tyk)] {
            group.bench_function(label, |b| {
                b.iter(|| merge(black_box(&key), black_box(&found), None, mode).unwrap());
            });
        }
        group.bench_function("naive: clone JSON", |b| b.iter(|| naive(black_box(&documents))));
        group.finish();
    }
}

/// Clones every document into one, as a gateway without domain types would: a subset of the rules
/// (versions, paths, the greatest numbers), so a lower bound of what that costs.
fn naive(documents: &[Value]) -> Value {
    let mut session = json!({"access_rights": {}});
    for document in documents.iter().cloned() {
        let limits = ["rate", "per", "quota_max", "quota_renewal_rate"];
        for name in limits {
            if session[name].as_u64().unwrap_or(0) < document[name].as_u64().unwrap_or(0) {
                session[name] = document[name].clone();
            }
        }
        for (api, right) in document["access_rights"].as_object().into_iter().flatten() {
            let mut merged = session["access_rights"][api].clone();
            for list in ["versions", "allowed_urls"] {
                let mut items = merged[list].as_array().cloned().unwrap_or_default();
                for item in right[list].as_array().into_iter().flatten() {
                    if !items.contains(item) {
                        items.push(item.clone());
                    }
                }
                merged[list] = items.into();
            }
            session["access_rights"][api] = merged;
        }
    }
    for name in ["rate", "per", "quota_max", "quota_renewal_rate"] {
        let value = session[name].clone();
        for (_, right) in session["access_rights"].as_object_mut().into_iter().flatten() {
            right["limit"][name] = value.clone();
        }
    }
    session
}

criterion_group!(benches, bench);
criterion_main!(benches);
