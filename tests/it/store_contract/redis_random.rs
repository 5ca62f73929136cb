//! Random histories: the scripts on a real server, against the pure arithmetic.

use proptest::prelude::*;
use tokio::runtime::Runtime;

use turnpike::domain::counter::{CounterKey, ProcessId};
use turnpike::domain::lease::{Hand, QuotaAnswer, QuotaCall, QuotaCounter};
use turnpike::domain::ratelog::{Close, RateCall, RateLog, rate};
use turnpike::domain::time::UnixMs;
use turnpike::store::redis::RedisStore;
use turnpike::store::{AnyStore, CounterStore, QuotaReserve, QuotaReserved, RateReserve};

use super::{key, window};
use crate::redis_server::RedisServer;

/// One server for the histories of a property; each history has a counter of its own.
pub(super) struct Bench {
    pub(super) runtime: Runtime,
    pub(super) store: AnyStore,
    pub(super) server: RedisServer,
    counters: std::cell::Cell<u64>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = RedisServer::start();
        let store = AnyStore::Redis(runtime.block_on(server.connect()));
        Self { runtime, store, server, counters: std::cell::Cell::new(0) }
    }

    fn redis(&self) -> &RedisStore {
        match &self.store {
            AnyStore::Redis(store) => store,
            AnyStore::Embedded(_) => panic!("made above"),
        }
    }

    pub(super) fn fresh(&self, definition: &str) -> CounterKey {
        self.counters.set(self.counters.get() + 1);
        key(self.counters.get(), definition)
    }
}

/// One step: whose turn it is, what it does, with how many units, and an odd number.
type Step = (usize, u8, u64, u64);

fn steps(units: u64) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0_usize..4, 0_u8..16, 0..units, 0_u64..10_000), 1..60)
}

/// Small limits, where rounding shows, and large ones, where doubles might.
fn limits() -> impl Strategy<Value = u64> {
    prop_oneof![1_u64..40, 1_u64..5_000, 1_u64..(1 << 53)]
}

pub(super) fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
}

/// Every answer of `quota.lua` is that of `QuotaCounter::reserve`: through lost answers, repeats,
/// calls out of order, processes that forget a counter or believe in units nobody granted, and
/// limits that change.
#[test]
fn quota_script_and_arithmetic_agree() {
    let bench = Bench::new();
    let strategy = (steps(60), limits(), 0_u64..6);
    let run = runner(300).run(&strategy, |(steps, limit, live)| {
        let key = bench.fresh("q//day");
        bench.runtime.block_on(quota_history(bench.redis(), key, steps, limit, live))
    });
    run.unwrap();
}

async fn quota_history(
    store: &RedisStore,
    key: CounterKey,
    steps: Vec<Step>,
    limit: u64,
    live: u64,
) -> Result<(), TestCaseError> {
    let window = window(store).await;
    let (mut model, mut hands) = (QuotaCounter::default(), [Hand::default(); 4]);
    let mut sent: Vec<QuotaCall> = Vec::new();
    for (n, (who, what, units, odd)) in steps.into_iter().enumerate() {
        let (q, hand) = (n as u64 + 1, &mut hands[who]);
        hand.spend((odd % 50).min(hand.units()));
        match what {
            0 => hand.give_back(units),
            1 => *hand = Hand::default(), // Forgets the counter.
            _ => {}
        }
        // A limit that changes, and calls that come late with an older one.
        let limit = if odd % 11 == 0 { limit / 2 + 1 } else { limit };
        let mut call = QuotaCall {
            process: ProcessId(u64::MAX - who as u64),
            cell: hand.next_call(q),
            limit,
            generation: if what == 2 { q / 2 } else { q },
            want: if what < 6 { limit / (odd + 1) } else { units },
            need: if what < 8 { 0 } else { units },
            least: if what < 8 { odd % 3 } else { odd % (units + 1) },
            live,
        };
        match what {
            3 => call.cell.granted += odd % 4, // Believes in what nobody granted.
            4 => call.cell.local += odd % 20,
            5 => call = sent.get(odd as usize % (sent.len() + 1)).copied().unwrap_or(call),
            _ => {}
        }
        sent.push(call);
        let expect = model.reserve(&call);
        let reserve = QuotaReserve { key: key.clone(), window, call };
        let got = store.quota(&reserve).await.unwrap();
        let QuotaReserved::Answer { answer, .. } = got else { panic!("{got:?}") };
        prop_assert_eq!(answer, expect, "step {}: {:?}", n, call);
        // Some answers are lost on the way.
        if odd % 7 != 0 || matches!(answer, QuotaAnswer::Gone) {
            hand.merge(&answer);
        }
        let usage = store.quota_usage(&key, &window).await.unwrap();
        prop_assert_eq!(usage.counter, (0 < model.version).then(|| model.clone()));
    }
    Ok(())
}

/// Every answer of `rate.lua` is that of `RateLog::reserve`.
#[test]
fn rate_script_and_arithmetic_agree() {
    let bench = Bench::new();
    let requests = prop_oneof![1_u64..65, 65_u64..2_000, 1_u64..(1 << 53)];
    let strategy = (steps(80), requests, prop_oneof![1_u64..200, 1_u64..100_000]);
    let run = runner(300).run(&strategy, |(steps, requests, per_ms)| {
        let key = bench.fresh("r/t");
        bench.runtime.block_on(rate_history(bench.redis(), key, steps, (requests, per_ms)))
    });
    run.unwrap();
}

async fn rate_history(
    store: &RedisStore,
    key: CounterKey,
    steps: Vec<Step>,
    (requests, per_ms): (u64, u64),
) -> Result<(), TestCaseError> {
    let (mut model, mut at) = (RateLog::default(), 1_800_000_000_000_u64);
    let mut opened: Vec<(u64, u64, u64)> = Vec::new();
    let mut sent: Vec<RateCall> = Vec::new();
    for (n, (who, what, units, odd)) in steps.into_iter().enumerate() {
        match what {
            0 => at += per_ms + odd,
            _ => at += odd % (per_ms / 4 + 2),
        }
        // The rate of a plan that was edited counts for what is already in the log, too.
        let requests = if odd % 13 == 0 { requests / 2 + 1 } else { requests };
        let process = u64::MAX - who as u64;
        // Closes its own leases, and now and then one that is not there or not its own.
        let closes = opened.iter().enumerate().filter(|(i, (_, owner, _))| {
            (*owner == process && (odd + *i as u64).is_multiple_of(3)) || odd % 29 == 0
        });
        let close = |(i, (q, _, granted)): (usize, &(u64, u64, u64))| Close {
            q: *q,
            spent: (odd + i as u64) % (granted + 2),
            age_ms: if what == 3 { odd * 20 } else { odd % 40 },
        };
        let closes: Vec<Close> = closes.map(close).take(6).collect();
        let mut call = RateCall {
            process: ProcessId(process),
            q: n as u64 + 1,
            rate: rate(requests, per_ms).unwrap(),
            closes,
            want: if what < 6 { requests / (odd % 9 + 1) } else { 0 },
            need: if what < 8 { units / 8 } else { units },
            least: odd % (units + 1),
            validity_ms: 1 + odd % 300,
        };
        if what == 4 {
            call = sent.get(odd as usize % (sent.len() + 1)).cloned().unwrap_or(call);
        }
        sent.push(call.clone());
        let expect = model.reserve(&call, at);
        let reserve = RateReserve { key: key.clone(), call: call.clone() };
        let (answer, now) = store.rate_at(&reserve, Some(UnixMs(at))).await.unwrap();
        prop_assert_eq!(now, UnixMs(at));
        prop_assert_eq!(answer, expect, "step {} at {}: {:?}", n, at, call);
        if 0 < answer.granted {
            opened.push((call.q, call.process.0, answer.granted));
        }
    }
    Ok(())
}
