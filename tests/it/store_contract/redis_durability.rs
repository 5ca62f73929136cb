//! What counts as done: on the server, on its disk, on its replicas.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use turnpike::domain::counter::Window;
use turnpike::domain::lease::{Hand, QuotaAnswer};
use turnpike::domain::time::UnixMs;
use turnpike::store::redis::{Durability, RedisFault, RedisOptions, RedisStore};
use turnpike::store::{
    CounterStore, Expect, Kind, QuotaReserve, QuotaReserved, RateReserve, RecordKey, RecordStore,
    StoreError,
};

use super::{at, call, key, lease, put, spread};
use crate::redis_server::RedisServer;

const LONG: Duration = Duration::from_secs(20);

fn forever() -> Window {
    Window { start: UnixMs(0), end: None, reset: 0 }
}

fn fault(error: &StoreError) -> &RedisFault {
    std::error::Error::source(error).expect("a fault is the source").downcast_ref().unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A primary and its replica, in step.
fn pair() -> (RedisServer, RedisServer) {
    let primary = RedisServer::start();
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    until("the replica follows", || {
        primary.command(&["INFO", "replication"]).contains("state=online")
    });
    (primary, replica)
}

async fn replicated(primary: &RedisServer, timeout_ms: u64) -> RedisStore {
    let durability = Durability::Replica { confirm: NonZeroU32::MIN };
    let options = RedisOptions { timeout_ms, durability, ..RedisOptions::default() };
    primary.try_connect(options).await.unwrap()
}

/// Asks for `need` units on top of what is in hand.
async fn ask(store: &RedisStore, hand: &mut Hand, q: u64, need: u64) -> Result<(), StoreError> {
    let call = call(1, hand.next_call(q), 1_000, need);
    let reserve = QuotaReserve { key: key(1, "q//never"), window: forever(), call };
    let QuotaReserved::Answer { answer, .. } = store.quota(&reserve).await? else { panic!() };
    assert!(matches!(answer, QuotaAnswer::State(_)));
    hand.merge(&answer);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_confirmed_is_there_when_it_takes_over() {
    let (mut primary, replica) = pair();
    let store = replicated(&primary, 5_000).await;
    let mut hand = Hand::default();
    // Many at once on one connection: each waits for its own confirmation.
    let rates = (2..30).map(|id| {
        let reserve = RateReserve { key: key(id, "r/t/60000"), call: lease(1, 1, 5, 5) };
        let store = &store;
        async move { store.rate(&reserve).await.unwrap().granted }
    });
    let granted: u64 = futures_util::future::join_all(rates).await.into_iter().sum();
    assert_eq!(granted, 28 * 5);
    ask(&store, &mut hand, 1, 30).await.unwrap();
    let record = RecordKey::number(Kind::App, 1);
    let stored = at(store.commit(vec![put(&record, Expect::Absent, b"one")]).await.unwrap());
    // From here on the primary says nothing more to anybody.
    primary.kill();
    assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    let store = replica.connect().await;
    let usage = store.quota_usage(&key(1, "q//never"), &forever()).await.unwrap();
    assert_eq!(spread(usage, 1_000), Some((0, 30, 970)));
    assert_eq!(store.get(&record).await.unwrap().unwrap().generation, stored);
    for id in 2..30 {
        let free = store.rate_usage(&key(id, "r/t/60000"), lease(1, 1, 5, 5).rate).await.unwrap();
        assert_eq!(free.free, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_confirms_is_not_spendable_and_not_lost() {
    let (primary, replica) = pair();
    let store = replicated(&primary, 2_000).await;
    let mut hand = Hand::default();
    ask(&store, &mut hand, 1, 10).await.unwrap();
    replica.signal("-STOP");
    let error = ask(&store, &mut hand, 2, 20).await.unwrap_err();
    assert!(
        matches!(fault(&error), RedisFault::Unconfirmed { confirmed: 0, wanted: 1 }),
        "{error:?}"
    );
    assert!(error.is_transient());
    assert_eq!(hand.units(), 10);
    // The connection is as good as before: reads are answered.
    assert!(store.is_up());
    let usage = store.quota_usage(&key(1, "q//never"), &forever()).await.unwrap();
    assert_eq!(spread(usage, 1_000), Some((0, 30, 970)));
    replica.signal("-CONT");
    let start = Instant::now();
    let mut q = 3;
    while ask(&store, &mut hand, q, 0).await.is_err() {
        assert!(start.elapsed() < LONG);
        q += 1;
    }
    assert_eq!(hand.units(), 30, "a later answer brings what the lost one granted");
}

#[tokio::test]
async fn a_server_that_does_not_sync_every_write_is_refused_where_it_should() {
    let fsync = || RedisOptions { durability: Durability::Fsync, ..RedisOptions::default() };
    let cases: [(&[&str], &str); 4] = [
        (&[], "appendonly no"),
        (&["--appendonly", "yes"], "appendfsync everysec"),
        (
            &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--no-appendfsync-on-rewrite",
                "yes",
            ],
            "no-appendfsync-on-rewrite yes",
        ),
        (&["--appendonly", "yes", "--appendfsync", "always"], ""),
    ];
    for (arguments, expect) in cases {
        let server = RedisServer::start_with(arguments);
        match server.try_connect(fsync()).await {
            Ok(store) => {
                assert_eq!(expect, "", "{arguments:?}");
                ask(&store, &mut Hand::default(), 1, 5).await.unwrap();
            }
            Err(error) => {
                let text = fault(&error).to_string();
                assert!(!expect.is_empty() && text.contains(expect), "{arguments:?}: {text}");
            }
        }
        // Nobody is refused who did not ask for it.
        server.connect().await;
    }
}

#[tokio::test]
async fn a_user_who_may_not_see_whether_writes_are_synced_is_told() {
    let server = RedisServer::durable();
    let rules = ["ACL", "SETUSER", "gate", "on", ">hunter2", "~*", "&*", "+@all", "-config"];
    assert_eq!(server.command(&rules), "OK");
    let options = RedisOptions {
        urls: vec![format!("redis://gate:hunter2@127.0.0.1:{}", server.port())],
        durability: Durability::Fsync,
        ..RedisOptions::default()
    };
    let error = server.try_connect(options).await.unwrap_err();
    let text = fault(&error).to_string();
    assert!(text.contains("+config|get") && !text.contains("hunter2"), "{text}");
}
