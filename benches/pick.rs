//! Picking a target by a plan, beside pingora-load-balancing's selection: what ARCHITECTURE.md's
//! decision rests on.
#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(missing_docs, reason = "nobody imports a bench")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{Consistent, RoundRobin};
use turnpike::domain::balance::{Member, Plan, hash};

fn picks(c: &mut Criterion) {
    for count in [3_u16, 64] {
        let names: Vec<String> = (1..=count).map(|n| format!("127.0.0.1:{n}")).collect();
        let member = |(at, name): (u16, &'static str)| Member { at, weight: 1, name };
        let leaked = names.iter().map(|name| &*Box::leak(name.clone().into_boxed_str()));
        let members: Vec<Member<'static>> = (0..).zip(leaked).map(member).collect();
        let (turns, ring) = (Plan::turns(&members), Plan::ring(&members));
        let (turns, ring) = (ArcSwap::from_pointee(turns), ArcSwap::from_pointee(ring));
        let next = AtomicU64::new(0);
        let mut group = c.benchmark_group(format!("{count} targets"));
        group.bench_function("plan, in turn", |b| {
            b.iter(|| turns.load().pick(next.fetch_add(1, Ordering::Relaxed), |_| false));
        });
        group.bench_function("plan, by hash", |b| {
            b.iter(|| ring.load().pick(hash(black_box(b"credential-77")), |_| false));
        });
        let robin = LoadBalancer::<RoundRobin>::try_from_iter(&names).unwrap();
        group.bench_function("pingora-load-balancing, in turn", |b| {
            b.iter(|| robin.select(b"", 4));
        });
        let ketama = LoadBalancer::<Consistent>::try_from_iter(&names).unwrap();
        group.bench_function("pingora-load-balancing, by hash", |b| {
            b.iter(|| ketama.select(black_box(b"credential-77"), 4));
        });
        group.finish();
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
