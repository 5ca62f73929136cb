//! What the store in Redis promises beyond the contract, on a real server.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use turnpike::domain::counter::{ProcessId, Window};
use turnpike::domain::lease::{Cell, QuotaCall};
use turnpike::domain::ratelog::{RateCall, rate};
use turnpike::domain::time::UnixMs;
use turnpike::store::feed::Changes;
use turnpike::store::hint::{Hint, HintKind};
use turnpike::store::redis::{RedisFault, RedisOptions, RedisStore};
use turnpike::store::{
    AnyStore, CounterStore, Expect, Generation, Kind, RateReserve, RecordKey, RecordStore,
    StoreError, Write,
};

use super::{ask, at, call, key, lease, put, spread, window};
use crate::redis_server::RedisServer;

fn fault(error: &StoreError) -> &RedisFault {
    let source = std::error::Error::source(error).expect("a fault is the source");
    source.downcast_ref::<RedisFault>().expect("of this kind")
}

/// Everything an error says, down to its last cause, for people and for programmers.
fn all_words(error: &StoreError) -> String {
    let mut words = format!("{error:?}");
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        words += &format!(" / {error}");
        next = error.source();
    }
    words
}

async fn refused(server: &RedisServer, options: RedisOptions, expect: &str) {
    let error = server.try_connect(options).await.unwrap_err();
    let words = all_words(&error);
    assert!(words.contains(expect), "{words}");
    assert!(!words.contains("hunter2"), "{words}");
}

#[tokio::test]
async fn a_server_that_may_evict_counters_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    refused(&server, RedisOptions::default(), "it must be noeviction").await;
}

#[tokio::test]
async fn a_replica_is_passed_over_for_the_primary() {
    let primary = RedisServer::start();
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    refused(&replica, RedisOptions::default(), "is a replica").await;
    let urls = vec![replica.url(), primary.url()];
    let store = primary.try_connect(RedisOptions { urls, ..RedisOptions::default() }).await;
    assert_eq!(store.unwrap().next_id(Kind::App, 1).await.unwrap(), 1);
}

#[tokio::test]
async fn an_acl_user_needs_only_what_the_store_does() {
    let server = RedisServer::start();
    let rules = "~tp:* &tp:hints -@all +@read +@write +@scripting +@connection +multi +exec +info \
                 +time +publish +subscribe";
    let mut words = vec!["ACL", "SETUSER", "gate", "on", ">hunter2"];
    words.extend(rules.split(' '));
    assert_eq!(server.command(&words), "OK");
    assert_eq!(server.command(&["ACL", "SETUSER", "default", "off"]), "OK");
    let with = |user: &str| RedisOptions {
        urls: vec![format!("redis://{user}@127.0.0.1:{}", server.port())],
        ..RedisOptions::default()
    };
    let store = server.try_connect(with("gate:hunter2")).await.unwrap();
    let write = put(&RecordKey::number(Kind::App, 1), Expect::Absent, b"one");
    let first = at(store.commit(vec![write]).await.unwrap());
    let (key, window) = (key(1, "q//day"), window(&store).await);
    ask(&store, &key, window, call(1, cell(1), 10, 5)).await;
    store.rate(&RateReserve { key: key.clone(), call: lease(1, 1, 5, 5) }).await.unwrap();
    assert!(matches!(store.changes(Generation(0)).await.unwrap(), Changes::Next(list)
        if list.len() == 1 && list[0].generation == first));
    let store = AnyStore::Redis(store);
    let hint = Hint { from: ProcessId(1), kind: HintKind::Short, key };
    let heard = async {
        loop {
            // Until the channel is listened to, what is given is lost.
            store.give_hint(hint.clone());
            if let Ok(heard) = timeout(Duration::from_millis(50), store.next_hint()).await {
                return heard;
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(20), heard).await.unwrap(), hint);
    refused(&server, with("gate:hunter22"), "authentication failed").await;
    refused(&server, RedisOptions::default(), "NOAUTH").await;
}

#[tokio::test]
async fn wrong_options_are_told_without_the_password() {
    let server = RedisServer::start();
    let urls = vec![server.url(), "redis://:hunter2@host:port".into()];
    refused(&server, RedisOptions { urls, ..RedisOptions::default() }, "redis url 2").await;
    let prefix = "{}".into();
    refused(&server, RedisOptions { prefix, ..RedisOptions::default() }, "prefix").await;
    let urls = vec!["redis://:hunter2@127.0.0.1:1".into()];
    refused(&server, RedisOptions { urls, ..RedisOptions::default() }, "127.0.0.1:1").await;
}

fn cell(q: u64) -> Cell {
    Cell { first_call: q, last_call: q, ..Cell::default() }
}

/// Calls until the store answers; what a gateway does with the calls after a failure.
async fn until_up(store: &RedisStore) {
    let start = Instant::now();
    while store.generation().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_durable_server_that_is_killed_goes_on_where_it_was() {
    let mut server = RedisServer::durable();
    let store = server.connect().await;
    let write = put(&RecordKey::number(Kind::App, 1), Expect::Absent, b"one");
    let first = at(store.commit(vec![write]).await.unwrap());
    server.kill();
    let down = store.generation().await.unwrap_err();
    assert!(down.is_transient(), "{down:?}");
    server.restart();
    until_up(&store).await;
    assert_eq!(store.generation().await.unwrap(), first);
}

/// The link finds out with its next ping, or with a call, that the server is gone or back.
async fn until_up_counters(store: &RedisStore) {
    let start = Instant::now();
    while store.quota_usage(&key(0, "q//never"), &forever()).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_costs_three_calls_and_then_nothing() {
    let server = RedisServer::start();
    let options = RedisOptions { timeout_ms: 200, ..RedisOptions::default() };
    let store = server.try_connect(options).await.unwrap();
    let read = async || store.quota_usage(&key(1, "q//day"), &forever()).await;
    read().await.unwrap();
    server.signal("-STOP");
    let mut timeouts = 0;
    let error = loop {
        match read().await.unwrap_err() {
            StoreError::Timeout { deadline_ms } => timeouts += u64::from(deadline_ms == 200),
            error @ (StoreError::Io { .. }
            | StoreError::Damaged { .. }
            | StoreError::Learning
            | StoreError::InUse) => {
                break error;
            }
        }
    };
    assert!(timeouts <= 3, "{timeouts}");
    assert!(matches!(fault(&error), RedisFault::Away), "{error:?}");
    let start = Instant::now();
    assert!(read().await.is_err());
    assert!(start.elapsed() < Duration::from_millis(100), "no call waits any more");
    server.signal("-CONT");
    until_up_counters(&store).await;
    read().await.unwrap();
}

fn forever() -> Window {
    Window { start: UnixMs(0), end: None, reset: 0 }
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_shown_again() {
    let server = RedisServer::start();
    let store = server.connect().await;
    for q in 1..4 {
        assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "OK");
        let next = Cell { first_call: 1, last_call: q, granted: q - 1, ..Cell::default() };
        let state = ask(&store, &key(1, "q//never"), forever(), call(1, next, 10, 1)).await.0;
        assert_eq!(state.cell.granted, q);
    }
}

#[tokio::test]
async fn counters_are_forgotten_in_time() {
    let server = RedisServer::start();
    let store = server.connect().await;
    let day = window(&store).await;
    ask(&store, &key(1, "q//day"), day, call(1, cell(1), 10, 5)).await;
    ask(&store, &key(1, "q//never"), forever(), call(1, cell(1), 10, 5)).await;
    store.rate(&RateReserve { key: key(1, "r"), call: lease(1, 1, 5, 5) }).await.unwrap();
    let ttl = |pattern: &str| -> i64 {
        let name = server.command(&["KEYS", pattern]);
        server.command(&["PTTL", &name]).parse().unwrap()
    };
    // An hour is left of the window, and it is kept for its own two hours more.
    assert!((10_790_000..=10_800_000).contains(&ttl("*q//day*")));
    assert_eq!(ttl("*q//never*"), -1);
    // 60 s, their guard, 100 ms of validity, and 10 s for calls on their way.
    assert!((65_000..=70_160).contains(&ttl("*r:c1/r")));
}

/// 2^53 is where doubles end; 1e14 is where Lua's own way of writing numbers does.
#[tokio::test]
async fn large_numbers_stay_exact() {
    let server = RedisServer::start();
    let store = server.connect().await;
    for (n, limit) in
        [99_999_999_999_999, 100_000_000_000_001, (1 << 53) - 1].into_iter().enumerate()
    {
        let key = key(n as u64, "q//never");
        let first = QuotaCall { want: limit, live: 1, ..call(1, cell(1), limit, 0) };
        let state = ask(&store, &key, forever(), first).await.0;
        assert_eq!((state.limit, state.cell.granted), (limit, limit / 20));
        let rest = Cell { last_call: 2, ..state.cell };
        let state = ask(&store, &key, forever(), call(1, rest, limit, limit - limit / 20)).await.0;
        assert_eq!((state.cell.granted, state.remaining), (limit, 0));
        let usage = store.quota_usage(&key, &forever()).await.unwrap();
        assert_eq!(spread(usage, limit), Some((0, limit, 0)));
        let rate = rate(limit, 3_600_000).unwrap();
        let taken = RateCall { rate, ..lease(1, 1, 5, limit - 1) };
        let taken = store.rate(&RateReserve { key, call: taken }).await.unwrap();
        assert_eq!((taken.granted, taken.free), (limit - 1, 1));
    }
    let above = call(1, cell(1), u64::MAX, 1);
    let state = ask(&store, &key(9, "q//never"), forever(), above).await.0;
    assert_eq!(state.limit, (1 << 53) - 1, "a larger limit counts as the largest exact number");
}

#[tokio::test]
async fn installations_share_a_server_by_their_prefix() {
    let server = RedisServer::start();
    let a = server.connect().await;
    let prefix = "other".to_owned();
    let b = server.try_connect(RedisOptions { prefix, ..RedisOptions::default() }).await.unwrap();
    let one = RecordKey::number(Kind::App, 1);
    at(a.commit(vec![put(&one, Expect::Absent, b"a")]).await.unwrap());
    assert_eq!(b.get(&one).await.unwrap(), None);
    assert_eq!(b.generation().await.unwrap(), Generation(0));
    for store in [&a, &b] {
        let state = ask(store, &key(1, "q//never"), forever(), call(1, cell(1), 10, 6)).await.0;
        assert_eq!(state.cell.granted, 6);
    }
}

#[tokio::test]
async fn a_long_list_comes_in_pieces_and_whole() {
    let server = RedisServer::start();
    let store = server.connect().await;
    let keys: Vec<RecordKey> = (0..700).map(|id| RecordKey::number(Kind::App, id)).collect();
    let writes: Vec<Write> = keys.iter().map(|key| put(key, Expect::Absent, b"x")).collect();
    at(store.commit(writes).await.unwrap());
    for (limit, len, more) in
        [(1_000, 700, false), (700, 700, false), (699, 699, true), (256, 256, true)]
    {
        let page = store.list(Kind::App, &[], None, limit).await.unwrap();
        assert_eq!((page.records.len(), page.more), (len, more), "{limit}");
        assert!(page.records.iter().map(|(key, _)| key).eq(&keys[..len]));
    }
}

#[tokio::test]
async fn a_server_without_memory_refuses_a_commit_and_keeps_all_of_what_was() {
    let server = RedisServer::start();
    let store = server.connect().await;
    let one = RecordKey::number(Kind::App, 1);
    let first = at(store.commit(vec![put(&one, Expect::Absent, b"one")]).await.unwrap());
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let error = store.commit(vec![put(&one, Expect::Anything, b"two")]).await.unwrap_err();
    assert!(
        matches!(fault(&error), RedisFault::Refused { code, .. } if code == "OOM"),
        "{error:?}"
    );
    assert_eq!(store.generation().await.unwrap(), first);
    assert_eq!(store.get(&one).await.unwrap().unwrap().value.as_ref(), b"one");
    assert_eq!(server.command(&["XLEN", "tp:{tp}feed"]), "1");
}

#[tokio::test]
async fn two_processes_are_told_apart_by_all_their_bits() {
    let server = RedisServer::start();
    let store = server.connect().await;
    for (n, process) in [0, 1, 1 << 63, u64::MAX - 1, u64::MAX].into_iter().enumerate() {
        let call = QuotaCall { process: ProcessId(process), ..call(0, cell(1), 100, 3) };
        let state = ask(&store, &key(1, "q//never"), forever(), call).await.0;
        assert_eq!((state.cell.granted, state.held_by_others), (3, 3 * n as u64));
    }
}

/// A server of a cluster takes keys of one slot in a script: what is many in one elsewhere is many scripts.
#[tokio::test]
async fn a_server_that_has_slots_takes_many_calls_too() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    assert_eq!(server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    let up = || server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    crate::process::until("all slots are served", up);
    let store = Arc::new(AnyStore::Redis(server.connect().await));
    super::reports_count_once_each(Arc::clone(&store)).await;
    super::the_first_says_when_periods_began(store).await;
}
