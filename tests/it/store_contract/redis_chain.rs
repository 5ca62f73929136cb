//! Commits that go to Redis as transactions.

use turnpike::store::redis::RedisOptions;
use turnpike::store::{AnyStore, Committed, Expect, Generation, RecordStore, Write};

use super::chain::{app, listed, many, members, pass};
use super::{at, put};
use crate::redis_server::RedisServer;

/// The transactions that the server ran, by the two scripts of each.
fn transactions(server: &RedisServer) -> usize {
    let stats = server.command(&["INFO", "commandstats"]);
    let line = stats.lines().find(|line| line.starts_with("cmdstat_eval:"));
    line.map_or(0, |line| {
        let calls = line.split_once("calls=").unwrap().1.split(',').next().unwrap();
        calls.parse::<usize>().unwrap() / 2
    })
}

/// Commits right after a commit of the same gateway, though not in the same millisecond.
async fn next(store: &AnyStore, writes: Vec<Write>, last: Generation) -> Committed {
    pass().await;
    store.commit_after(writes, Some(last)).await.unwrap()
}

#[tokio::test]
async fn a_transaction_leaves_no_guard_and_is_one_entry_of_the_feed() {
    let server = RedisServer::start();
    let store = AnyStore::Redis(server.connect().await);
    let first = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
    let second = at(next(&store, many(0, b"1"), first).await);
    assert_eq!(transactions(&server), 1);
    let third = at(next(&store, many(1_000, b"2"), second).await);
    assert_eq!(transactions(&server), 2);
    // Not after a commit that was not the last.
    let conflict = next(&store, many(2_000, b"3"), second).await;
    assert!(matches!(conflict, Committed::Conflict(_)), "{conflict:?}");
    assert_eq!(transactions(&server), 2);
    // Another gateway does not know of these commits, and comes after them all the same.
    let other = AnyStore::Redis(server.connect().await);
    at(next(&other, many(2_000, b"4"), third).await);
    assert_eq!(transactions(&server), 2);
    // That it was there, the server notices. Then transactions are not tried for a while.
    let conflict = next(&store, many(3_000, b"5"), third).await;
    assert!(matches!(conflict, Committed::Conflict(_)), "{conflict:?}");
    let mut last = at(store.commit(vec![put(&app(), Expect::Anything, b"6")]).await.unwrap());
    for n in 0..17 {
        assert_eq!(transactions(&server), 3, "{n}");
        last = at(next(&store, many(10_000 + 1_000 * n, b"7"), last).await);
    }
    assert_eq!((transactions(&server), listed(&store).await.len()), (4, 20 * 150));
    assert_eq!(server.command(&["EXISTS", "tp:{tp}guard"]), "0");
    assert_eq!(server.command(&["XLEN", "tp:{tp}feed"]), "22");
}

#[tokio::test]
async fn nothing_comes_right_after_a_commit_before_a_restart() {
    let mut server = RedisServer::durable();
    let store = AnyStore::Redis(server.connect().await);
    let first = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
    let second = at(next(&store, many(0, b"1"), first).await);
    assert_eq!(transactions(&server), 1);
    server.kill();
    server.restart();
    while store.generation().await.is_err() {
        pass().await;
    }
    assert_eq!(store.generation().await.unwrap(), second);
    let third = at(next(&store, many(1_000, b"2"), second).await);
    assert_eq!((transactions(&server), listed(&store).await.len()), (0, 300));
    at(next(&store, many(2_000, b"3"), third).await);
    assert_eq!((transactions(&server), listed(&store).await.len()), (1, 450));
}

#[tokio::test]
async fn a_user_who_may_not_use_transactions_does_without() {
    for less in ["-multi", "-exec", "-@transaction", "-eval"] {
        let server = RedisServer::start();
        let rules = ["ACL", "SETUSER", "gate", "on", ">hunter2", "~*", "&*", "+@all", less];
        assert_eq!(server.command(&rules), "OK");
        let urls = vec![format!("redis://gate:hunter2@127.0.0.1:{}", server.port())];
        let options = RedisOptions { urls, ..RedisOptions::default() };
        let store = AnyStore::Redis(server.try_connect(options).await.unwrap());
        let mut last = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
        for n in 1..4 {
            last = at(next(&store, many(1_000 * n, b"1"), last).await);
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
    pass().await;
    let error = store.commit_after(many(0, b"1"), Some(last)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!((listed(&store).await, members(&store).await), (Vec::new(), 0));
    assert_eq!(store.generation().await.unwrap(), last);
    assert_eq!(server.command(&["EXISTS", "tp:{tp}guard"]), "0");
    at(store.commit_after(many(0, b"1"), Some(last)).await.unwrap());
    assert_eq!(listed(&store).await.len(), 150);
}

#[tokio::test]
async fn a_server_without_transactions_does_without() {
    for gone in ["EXEC", "MULTI"] {
        let server = RedisServer::start_with(&["--rename-command", gone, ""]);
        let store = AnyStore::Redis(server.connect().await);
        let first = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
        at(next(&store, many(0, b"1"), first).await);
        assert_eq!(listed(&store).await.len(), 150);
    }
}

#[tokio::test]
async fn rights_that_are_taken_away_meanwhile_break_nothing() {
    let server = RedisServer::start();
    let rules = ["ACL", "SETUSER", "gate", "on", ">hunter2", "~*", "&*", "+@all"];
    assert_eq!(server.command(&rules), "OK");
    let urls = vec![format!("redis://gate:hunter2@127.0.0.1:{}", server.port())];
    let options = RedisOptions { urls, ..RedisOptions::default() };
    let store = AnyStore::Redis(server.try_connect(options).await.unwrap());
    let first = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
    let second = at(next(&store, many(0, b"1"), first).await);
    assert_eq!(server.command(&["ACL", "SETUSER", "gate", "-eval"]), "OK");
    let third = at(next(&store, many(1_000, b"2"), second).await);
    let fourth = at(next(&store, many(2_000, b"3"), third).await);
    assert_eq!(transactions(&server), 1, "it is not tried again");
    assert_eq!(listed(&store).await.len(), 450);
    assert!(first < second && second < third && third < fourth);
}
