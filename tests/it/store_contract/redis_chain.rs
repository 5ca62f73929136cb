//! Commits that go to Redis as transactions.

use turnpike::store::redis::RedisOptions;
use turnpike::store::{AnyStore, Committed, Expect, RecordStore};

use super::chain::{app, listed, many, members};
use super::{at, put};
use crate::redis_server::RedisServer;

/// How often the server was asked for the records of a transaction.
fn transactions(server: &RedisServer) -> usize {
    let stats = server.command(&["INFO", "commandstats"]);
    let line = stats.lines().find(|line| line.starts_with("cmdstat_eval:"));
    line.map_or(0, |line| {
        let calls = line.split_once("calls=").unwrap().1.split(',').next().unwrap();
        calls.parse::<usize>().unwrap() / 2
    })
}

#[tokio::test]
async fn a_transaction_leaves_no_guard_and_is_one_entry_of_the_feed() {
    let server = RedisServer::start();
    let store = AnyStore::Redis(server.connect().await);
    let first = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
    let second = at(store.commit_after(many(0, b"1"), Some(first)).await.unwrap());
    assert_eq!(transactions(&server), 1);
    at(store.commit_after(many(1_000, b"2"), Some(second)).await.unwrap());
    assert_eq!(transactions(&server), 2);
    // Not after another's commit, and not where it fails: then the script alone says why.
    let conflict = store.commit_after(many(1_000, b"3"), Some(first)).await.unwrap();
    assert!(matches!(conflict, Committed::Conflict(_)), "{conflict:?}");
    assert_eq!(transactions(&server), 2);
    let last = store.generation().await.unwrap();
    let conflict = store.commit_after(many(1_000, b"3"), Some(last)).await.unwrap();
    assert!(matches!(conflict, Committed::Conflict(0)), "{conflict:?}");
    assert_eq!(transactions(&server), 3);
    assert_eq!(server.command(&["EXISTS", "tp:{tp}guard"]), "0");
    assert_eq!(server.command(&["XLEN", "tp:{tp}feed"]), "3");
    // Another gateway does not know of these commits, and comes after them all the same.
    let other = AnyStore::Redis(server.connect().await);
    at(other.commit_after(many(2_000, b"4"), Some(last)).await.unwrap());
    assert_eq!(transactions(&server), 3);
    // Nor does one notice that the commit it comes after is not the last: the server does.
    let fourth = store.commit_after(many(3_000, b"5"), Some(last)).await.unwrap();
    assert!(matches!(fourth, Committed::Conflict(_)), "{fourth:?}");
    assert_eq!((transactions(&server), listed(&store).await.len()), (4, 450));
}

#[tokio::test]
async fn a_user_who_may_not_use_transactions_does_without() {
    for less in ["-multi", "-exec", "-@transaction"] {
        let server = RedisServer::start();
        let rules = ["ACL", "SETUSER", "gate", "on", ">hunter2", "~*", "&*", "+@all", less];
        assert_eq!(server.command(&rules), "OK");
        let urls = vec![format!("redis://gate:hunter2@127.0.0.1:{}", server.port())];
        let options = RedisOptions { urls, ..RedisOptions::default() };
        let store = AnyStore::Redis(server.try_connect(options).await.unwrap());
        let mut last = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
        for n in 1..4 {
            last = at(store.commit_after(many(1_000 * n, b"1"), Some(last)).await.unwrap());
        }
        assert_eq!(listed(&store).await.len(), 450);
        assert_eq!(store.generation().await.unwrap(), last);
        assert_eq!(server.command(&["EXISTS", "tp:{tp}guard"]), "0");
    }
}

#[tokio::test]
async fn a_server_without_memory_takes_nothing_of_it() {
    let server = RedisServer::start();
    let store = AnyStore::Redis(server.connect().await);
    let last = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let error = store.commit_after(many(0, b"1"), Some(last)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!((listed(&store).await, members(&store).await), (Vec::new(), 0));
    assert_eq!(store.generation().await.unwrap(), last);
    assert_eq!(server.command(&["EXISTS", "tp:{tp}guard"]), "0");
    at(store.commit_after(many(0, b"1"), Some(last)).await.unwrap());
    assert_eq!(listed(&store).await.len(), 150);
}
