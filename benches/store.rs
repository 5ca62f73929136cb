//! What a call on the embedded store costs, beside the bare arithmetic and a bare write.
//!
//! The folder is made under `TURNPIKE_BENCH_DIR`, or the system's temporary folder.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panic")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use turnpike::clock::SystemClock;
use turnpike::domain::counter::{CounterKey, ProcessId, Subject, Window};
use turnpike::domain::id::CredentialId;
use turnpike::domain::lease::{Cell, QuotaCall, QuotaCounter};
use turnpike::domain::ratelog::{Close, RateCall, rate};
use turnpike::domain::time::UnixMs;
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedStore};
use turnpike::store::{
    CounterStore, Expect, Kind, QuotaReserve, RateReserve, RecordKey, RecordStore, Write,
};

/// Counters the calls go round.
const COUNTERS: u64 = 10_000;

fn folder() -> tempfile::TempDir {
    let base =
        std::env::var_os("TURNPIKE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::TempDir::new_in(base).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn quota_call(q: u64) -> QuotaCall {
    let cell = Cell { first_call: 1, last_call: q, ..Cell::default() };
    let process = ProcessId(1);
    QuotaCall { process, cell, limit: 1 << 60, generation: 1, want: 0, need: 1, least: 1, live: 1 }
}

fn quota_reserve(q: u64) -> QuotaReserve {
    let subject = Subject::Credential(CredentialId(q % COUNTERS));
    let key = CounterKey { subject, definition: "q//e86400000".into() };
    let window = Window { start: UnixMs(0), end: None, reset: 0 };
    QuotaReserve { key, window, call: quota_call(q) }
}

fn rate_reserve(q: u64) -> RateReserve {
    let subject = Subject::Credential(CredentialId(q % COUNTERS));
    let key = CounterKey { subject, definition: "r/5f0c/1000".into() };
    let closes = vec![Close { q: q.saturating_sub(COUNTERS), spent: 1, age_ms: 0 }];
    let rate = rate(1_000_000, 1_000).unwrap();
    let process = ProcessId(1);
    let call = RateCall { process, q, rate, closes, want: 0, need: 1, least: 1, validity_ms: 20 };
    RateReserve { key, call }
}

fn reserves(c: &mut Criterion) {
    let mut group = c.benchmark_group("reserve");
    group.throughput(Throughput::Elements(1));
    let mut q = 0;
    let mut counter = QuotaCounter::default();
    group.bench_function("baseline: arithmetic alone", |b| {
        b.iter(|| {
            q += 1;
            counter.reserve(&quota_call(q))
        });
    });
    let place = folder();
    let (file, mut len) = (File::create(place.path().join("bare")).unwrap(), 0);
    group.bench_function("baseline: a bare write of 160 bytes", |b| {
        b.iter(|| {
            file.write_all_at(&[7; 160], len).unwrap();
            len += 160;
        });
    });
    let (rt, clock) = (runtime(), Arc::new(SystemClock));
    let path = place.path().join("store");
    let store = EmbeddedStore::open(&path, EmbeddedOptions::default(), clock.clone()).unwrap();
    group.bench_function("quota, fsync_ms = 100", |b| {
        b.iter(|| {
            q += 1;
            rt.block_on(store.quota(&quota_reserve(q))).unwrap()
        });
    });
    group.bench_function("rate, fsync_ms = 100", |b| {
        b.iter(|| {
            q += 1;
            rt.block_on(store.rate(&rate_reserve(q))).unwrap()
        });
    });
    drop(store);
    let each = EmbeddedOptions { fsync_ms: 0, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::open(&path, each, clock).unwrap();
    group.sample_size(10);
    group.bench_function("quota, fsync_ms = 0", |b| {
        b.iter(|| {
            q += 1;
            rt.block_on(store.quota(&quota_reserve(q))).unwrap()
        });
    });
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    let (rt, place) = (runtime(), folder());
    let clock = Arc::new(SystemClock);
    let store = EmbeddedStore::open(place.path(), EmbeddedOptions::default(), clock).unwrap();
    let mut id = 0;
    let mut write = || {
        id += 1;
        let (key, value) = (RecordKey::number(Kind::Credential, id), vec![7; 500].into());
        vec![Write { key, expect: Expect::Absent, value: Some(value) }]
    };
    group.sample_size(20);
    group.bench_function("commit of one", |b| {
        b.iter(|| rt.block_on(store.commit(write())).unwrap());
    });
    group.bench_function("64 commits of one at once", |b| {
        b.iter(|| {
            let writes: Vec<_> = (0..64).map(|_| write()).collect();
            rt.block_on(async {
                let commits = writes.into_iter().map(|writes| store.commit(writes));
                for committed in futures_util::future::join_all(commits).await {
                    committed.unwrap();
                }
            });
        });
    });
    let key = RecordKey::number(Kind::Credential, 1);
    group.bench_function("get", |b| b.iter(|| rt.block_on(store.get(&key)).unwrap().unwrap()));
}

criterion_group!(benches, reserves, records);
criterion_main!(benches);
