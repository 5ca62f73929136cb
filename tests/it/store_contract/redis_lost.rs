//! A store that loses writes: its shards begin new lives and learn what was, on a real server.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use turnpike::domain::counter::{CounterKey, ProcessId, Window};
use turnpike::domain::lease::{Cell, QuotaCall};
use turnpike::domain::ratelog::{RateCall, rate};
use turnpike::domain::shard::{Assertion, At, Held, Kept, QuotaReply, RunId, Shard, Stage};
use turnpike::store::shards::{AssertBatch, Remembered, RememberedRate, ShardId};
use turnpike::store::{
    AnyStore, CounterStore, QuotaReserve, QuotaReserved, RateReserve, StoreError,
};

use super::redis_random::{Bench, runner};
use super::{call, key, lease, window};
use crate::redis_server::RedisServer;

/// One gateway, as far as counters go.
struct Gateway {
    store: AnyStore,
    process: ProcessId,
    held: Held,
    q: u64,
}

impl Gateway {
    async fn new(server: &RedisServer, process: u64) -> Self {
        let store = AnyStore::Redis(server.connect().await);
        Self { store, process: ProcessId(process), held: Held::default(), q: 0 }
    }

    /// Asks for units; whether the store answered.
    async fn ask(&mut self, key: &CounterKey, window: Window, limit: u64, need: u64) -> bool {
        self.q += 1;
        let call = call(self.process.0, self.held.hand.next_call(self.q), limit, need);
        let reserve = QuotaReserve { key: key.clone(), window, call };
        match self.store.quota(&reserve).await.unwrap() {
            QuotaReserved::Answer { answer, incarnation, copy, .. } => {
                let member = self.store.member(self.store.shard(key));
                let reply = QuotaReply { incarnation, q: self.q, answer, copy };
                self.held.accept(&member, &reply);
                true
            }
            QuotaReserved::Learn => false,
            other @ QuotaReserved::OtherWindow { .. } => panic!("{other:?}"),
        }
    }

    async fn poll_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.store.poll().await.is_err() {
            assert!(Instant::now() < deadline, "the store does not come back");
            tokio::task::yield_now().await;
        }
    }

    /// What a gateway does about once a second.
    async fn keep_up(&mut self, key: &CounterKey, window: Window, live: &[u64]) {
        self.poll_until_up().await;
        let live = live.iter().copied().map(ProcessId).collect();
        for shard in self.store.unasserted() {
            let mut counters = Vec::new();
            if shard == self.store.shard(key) {
                self.q += 1;
                let assertion = self.held.assertion(self.q);
                counters.push(Remembered { key: key.clone(), window, anchor: None, assertion });
            }
            let (process, counters) = (self.process, &counters[..]);
            let batch = AssertBatch { process, live: &live, counters, rates: &[], last: true };
            self.store.assert(shard, &batch).await.unwrap();
        }
    }
}

/// Two gateways hold units; then `lose` happens. What is granted afterwards is what is left.
async fn lost_and_told(server: &mut RedisServer, lose: impl FnOnce(&mut RedisServer)) {
    let (a, b) = (&mut Gateway::new(server, 1).await, &mut Gateway::new(server, 2).await);
    let AnyStore::Redis(store) = &a.store else { panic!() };
    let (key, window) = (key(1, "q//day"), window(store).await);
    assert!(a.ask(&key, window, 100, 30).await && b.ask(&key, window, 100, 20).await);
    assert!(a.ask(&key, window, 100, 10).await);
    assert!(a.held.hand.spend(35));
    lose(server);
    a.keep_up(&key, window, &[1, 2]).await;
    assert!(!a.ask(&key, window, 100, 1).await, "the other is awaited");
    b.keep_up(&key, window, &[1, 2]).await;
    // Learning lasts a second at least; both have told by then.
    let begun = Instant::now();
    while !b.ask(&key, window, 100, 60).await {
        assert!(begun.elapsed() < Duration::from_secs(4), "all have told");
        tokio::task::yield_now().await;
    }
    assert_eq!(b.held.hand.units(), 60, "of the 100, 40 are gone: the rest is given, no more");
    assert!(a.ask(&key, window, 100, 10).await);
    assert_eq!(a.held.hand.units(), 5, "nothing is left");
}

#[tokio::test]
async fn a_restart_from_its_file_is_learned_through() {
    let mut server = RedisServer::durable();
    lost_and_told(&mut server, RedisServer::restart).await;
}

#[tokio::test]
async fn a_restart_without_a_file_is_learned_through() {
    let mut server = RedisServer::start();
    lost_and_told(&mut server, RedisServer::restart).await;
}

#[tokio::test]
async fn a_flush_is_learned_through() {
    let mut server = RedisServer::start();
    lost_and_told(&mut server, |server| assert_eq!(server.command(&["FLUSHALL"]), "OK")).await;
}

/// The instant that rolling periods are tiled from is lost and told like the counters.
#[tokio::test]
async fn the_first_use_is_told_again() {
    let server = RedisServer::start();
    let mut a = Gateway::new(&server, 1).await;
    let AnyStore::Redis(store) = &a.store else { panic!() };
    let (key, window) = (key(1, "q//e1000"), window(store).await);
    assert_eq!(a.store.first_use(&key.subject).await.unwrap(), None);
    let first = a.store.anchor(&key.subject, window.start).await.unwrap();
    assert_eq!(a.store.anchor(&key.subject, window.start).await.unwrap(), first);
    assert!(a.ask(&key, window, 100, 30).await);
    server.command(&["FLUSHALL"]);
    a.store.poll().await.unwrap();
    let asked = a.store.anchor(&key.subject, window.start).await;
    assert!(matches!(asked, Err(StoreError::Learning)), "nobody begins a period meanwhile");
    // Also where only one of many shards is heard of, and where none is yet.
    let cell = Cell { first_call: 1, last_call: 5, local: 5, ..Cell::default() };
    for polled in [true, false] {
        let store = AnyStore::Redis(server.connect().await);
        if polled {
            store.poll().await.unwrap();
        }
        let reports = [1, 2, 3].map(|n| QuotaReserve {
            key: super::key(n, "q//e1000"),
            window,
            call: call(9, cell, 100, 0),
        });
        let told = store.reports(&reports).await;
        assert!(matches!(told, Err(StoreError::Learning)), "{told:?}");
        let subjects = reports.map(|report| (report.key.subject, None));
        let asked = store.anchors(&subjects, window.start).await;
        assert!(matches!(asked, Err(StoreError::Learning)), "{asked:?}");
    }
    let assertion = a.held.assertion(9);
    let shard = a.store.shard(&key);
    let counters = [Remembered { key: key.clone(), window, anchor: Some(first), assertion }];
    let live = [ProcessId(1)].into();
    let batch = AssertBatch {
        process: ProcessId(1),
        live: &live,
        counters: &counters,
        rates: &[],
        last: true,
    };
    a.store.assert(shard, &batch).await.unwrap();
    assert_eq!(a.store.first_use(&key.subject).await.unwrap(), Some(first));
}

/// Design: learning ends after 5 s though somebody listed says nothing.
#[tokio::test]
async fn who_says_nothing_is_waited_for_five_seconds() {
    let server = RedisServer::start();
    let mut a = Gateway::new(&server, 1).await;
    let AnyStore::Redis(store) = &a.store else { panic!() };
    let (key, window) = (key(1, "q//day"), window(store).await);
    assert!(a.ask(&key, window, 100, 30).await);
    server.command(&["FLUSHALL"]);
    let begun = Instant::now();
    a.keep_up(&key, window, &[1, 2]).await;
    while !a.ask(&key, window, 100, 0).await {
        assert!(begun.elapsed() < Duration::from_secs(15));
        tokio::task::yield_now().await;
    }
    assert!(Duration::from_millis(4_900) < begun.elapsed());
    assert_eq!(a.held.hand.units(), 30);
}

/// What counted before a loss may still count: nothing is granted until all of it must have left.
#[tokio::test]
async fn a_rate_is_blind_for_a_window_and_a_quarter() {
    let server = RedisServer::start();
    let store = server.connect().await;
    let reserve = |q| {
        let rate = rate(10, 800).unwrap();
        RateReserve { key: key(1, "r"), call: RateCall { rate, ..lease(1, q, 5, 10) } }
    };
    assert_eq!(store.rate(&reserve(1)).await.unwrap().granted, 10);
    server.command(&["FLUSHALL"]);
    let begun = Instant::now();
    let first = store.rate(&reserve(2)).await.unwrap();
    assert_eq!((first.granted, first.free), (0, 0));
    assert!((1_000..=1_005).contains(&first.wait_ms), "{first:?}");
    let mut q = 3;
    while store.rate(&reserve(q)).await.unwrap().granted == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        q += 1;
    }
    assert!(Duration::from_millis(1_000) <= begun.elapsed());
}

/// A rate of a longer window is told by age: once, whether the store had lost it or not.
async fn a_long_rate_is_told(server: &mut RedisServer, lose: impl FnOnce(&mut RedisServer)) {
    let (a, b) = (Gateway::new(server, 1).await, Gateway::new(server, 2).await);
    let key = key(1, "r");
    let take = |process, q, need| {
        let rate = rate(100, 3_600_000).unwrap();
        RateReserve {
            key: key.clone(),
            call: RateCall { rate, least: 1, ..lease(process, q, 5, need) },
        }
    };
    assert_eq!(a.store.rate(&take(1, 1, 10)).await.unwrap().granted, 10);
    assert_eq!(b.store.rate(&take(2, 1, 20)).await.unwrap().granted, 20);
    lose(server);
    let live = [1, 2].map(ProcessId).into();
    let shard = a.store.shard(&key);
    for (gateway, units) in [(&a, 10), (&b, 20), (&a, 10)] {
        gateway.poll_until_up().await;
        let told = vec![(3_603_500, units - 3), (3_603_900, 3)];
        let rates = [RememberedRate { key: key.clone(), told }];
        let (process, counters) = (gateway.process, &[][..]);
        let batch = AssertBatch { process, live: &live, counters, rates: &rates, last: true };
        gateway.store.assert(shard, &batch).await.unwrap();
        let waits = gateway.store.rate(&take(3, 1, 1)).await.unwrap();
        assert_eq!((waits.granted, waits.free), (0, 0), "it is learning");
        assert!((1..=5_000).contains(&waits.wait_ms), "{waits:?}");
    }
    let begun = Instant::now();
    let mut q = 2;
    let answer = loop {
        let answer = a.store.rate(&take(1, q, 100)).await.unwrap();
        if 0 < answer.granted {
            break answer;
        }
        q += 1;
        assert!(begun.elapsed() < Duration::from_secs(4), "all have told");
    };
    assert_eq!((answer.granted, answer.free), (70, 0));
    assert!((3_600_000..=3_604_000).contains(&answer.wait_ms), "{answer:?}");
    assert_eq!(b.store.rate(&take(2, 2, 100)).await.unwrap().granted, 0);
}

#[tokio::test]
async fn a_long_rate_that_was_lost_is_told() {
    let mut server = RedisServer::start();
    a_long_rate_is_told(&mut server, RedisServer::restart).await;
}

#[tokio::test]
async fn a_long_rate_that_was_not_lost_is_not_counted_twice() {
    let mut server = RedisServer::durable();
    a_long_rate_is_told(&mut server, RedisServer::restart).await;
}

/// One step: whose turn, what happens, a number, and an odd one.
type Step = (usize, u8, u64, u64);

/// Every counter that `assert.lua` leaves is that of `Kept::assert`, through losses of the shard
/// alone and of the counter with it, with reserves between them.
#[test]
fn assert_script_and_arithmetic_agree() {
    let bench = Bench::new();
    let steps = prop::collection::vec((0_usize..4, 0_u8..10, 0_u64..40, 0_u64..1_000), 1..40);
    let run = runner(60).run(&steps, |steps| {
        let key = bench.fresh("q//day");
        bench.runtime.block_on(history(&bench, &key, steps))
    });
    run.unwrap();
}

struct History<'a> {
    bench: &'a Bench,
    key: &'a CounterKey,
    window: Window,
    shard: ShardId,
    model: (Shard, Kept),
    held: [Held; 4],
}

const RUN: RunId = RunId([1; 20]);
const NOW: At = At { now_ms: 1, run: RUN };

async fn history(bench: &Bench, key: &CounterKey, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let window = window(&bench.store).await;
    let shard = bench.store.shard(key);
    let mut history = History {
        bench,
        key,
        window,
        shard,
        model: (Shard { run: Some(RUN), ..Shard::default() }, Kept::default()),
        held: <[Held; 4]>::default(),
    };
    history.model.0.incarnation = bench.store.member(shard).incarnation();
    for (n, (who, what, units, odd)) in steps.into_iter().enumerate() {
        let q = n as u64 + 1;
        match what {
            0 => history.lose(odd % 2 == 0).await,
            1 => {
                let _kept_if_needed = history.held[who].forget_hand();
            }
            2 => history.held[who].hand.give_back(units),
            _ => history.reserve(who, q, units, odd).await?,
        }
        let usage = bench.store.quota_usage(key, &window).await.unwrap();
        let expect = &history.model.1.counter;
        prop_assert_eq!(&usage.counter.unwrap_or_default(), expect, "step {}", n);
    }
    Ok(())
}

impl History<'_> {
    async fn reserve(
        &mut self,
        who: usize,
        q: u64,
        need: u64,
        odd: u64,
    ) -> Result<(), TestCaseError> {
        let held = &mut self.held[who];
        held.hand.spend((odd % 9).min(held.hand.units()));
        let cell = held.hand.next_call(q);
        let call = QuotaCall { generation: q, ..call(who as u64, cell, 100 + odd % 3, need) };
        let (shard, kept) = &mut self.model;
        let (answer, copy) = kept.reserve(shard, shard.incarnation, &call, &NOW).unwrap();
        let reserve = QuotaReserve { key: self.key.clone(), window: self.window, call };
        let got = self.bench.store.quota(&reserve).await.unwrap();
        let QuotaReserved::Answer { answer: told, incarnation, copy: shown, .. } = got else {
            panic!("{got:?}")
        };
        prop_assert_eq!((told, incarnation), (answer, shard.incarnation));
        prop_assert_eq!(shown.as_deref(), Some(&copy));
        let member = self.bench.store.member(self.shard);
        // Some answers are lost on the way.
        if !odd.is_multiple_of(5) {
            self.held[who].accept(&member, &QuotaReply { incarnation, q, answer, copy: shown });
        }
        Ok(())
    }

    /// The shard is lost, and some gateways tell what they remember: some in time, some late, some
    /// never.
    async fn lose(&mut self, whole: bool) {
        let server = &self.bench.server;
        let name = format!("tp:{{s{:03}}}", self.shard.0);
        server.command(&["DEL", &name]);
        if whole {
            let found = server.command(&["KEYS", &format!("{name}q:{}:*", self.key)]);
            server.command(&["DEL", &found]);
            self.model.1 = Kept::default();
        }
        self.bench.store.poll().await.unwrap();
        let (shard, kept) = &mut self.model;
        shard.incarnation = self.bench.store.member(self.shard).incarnation();
        for who in 0..4_u64 {
            let held = &mut self.held[who as usize];
            let stage = if who < 3 { Stage::Learning } else { Stage::After };
            if who == 3 {
                server.command(&["HDEL", &name, "l"]);
            }
            let q = held.hand.newest_call() + 1;
            let assertion = held.assertion(q);
            let Assertion { cell, copy } = &assertion;
            kept.assert(shard, stage, ProcessId(who), cell.as_ref(), copy.as_deref());
            let (key, window) = (self.key.clone(), self.window);
            let known = Remembered { key, window, anchor: None, assertion };
            let batch = AssertBatch {
                process: ProcessId(who),
                live: &[ProcessId(9)].into(),
                counters: &[known],
                rates: &[],
                last: true,
            };
            self.bench.store.assert(self.shard, &batch).await.unwrap();
        }
        // What is asserted is dropped with the first call after learning.
        kept.asserted.clear();
    }
}
