//! The change feed of the store in Redis.

use turnpike::store::feed::{Change, Changes};
use turnpike::store::redis::{RedisOptions, RedisStore};
use turnpike::store::{Expect, Generation, Kind, RecordKey, RecordStore, Write};

use super::{at, put};
use crate::redis_server::RedisServer;

async fn commit(store: &RedisStore, keys: &[RecordKey]) -> Generation {
    let writes = keys.iter().map(|key| put(key, Expect::Anything, b"x")).collect();
    at(store.commit(writes).await.unwrap())
}

fn plan(id: u64) -> RecordKey {
    RecordKey::number(Kind::Plan, id)
}

#[tokio::test]
async fn a_follower_sees_every_commit_in_order_with_the_keys_it_follows() {
    let server = RedisServer::start();
    let (store, other) = (server.connect().await, server.connect().await);
    let idle = other.changes(Generation(0)).await.unwrap();
    assert_eq!(idle, Changes::Next(vec![]), "nothing yet, and that is sure");
    let token = RecordKey::bytes(Kind::Token, [0, 255, b'/']);
    let unfollowed = RecordKey::number(Kind::App, 1);
    let first = commit(&store, &[unfollowed.clone(), plan(1), token.clone()]).await;
    let gone = Write { key: token.clone(), expect: Expect::Unchanged(first), value: None };
    let second = at(store.commit(vec![gone]).await.unwrap());
    let third = commit(&store, &[unfollowed]).await;
    let changes = [
        Change { generation: first, keys: vec![plan(1), token.clone()] },
        Change { generation: second, keys: vec![token] },
        Change { generation: third, keys: vec![] },
    ];
    assert_eq!(other.changes(Generation(0)).await.unwrap(), Changes::Next(changes.to_vec()));
    assert_eq!(other.changes(first).await.unwrap(), Changes::Next(changes[1..].to_vec()));
    assert_eq!(other.changes(third).await.unwrap(), Changes::Next(vec![]));
}

#[tokio::test]
async fn a_waiting_follower_is_woken_and_holds_nobody_up() {
    let server = RedisServer::start();
    let (store, start) = (server.connect().await, tokio::time::Instant::now());
    let first = commit(&store, &[plan(1)]).await;
    let (changes, second) = tokio::join!(store.changes(first), async {
        tokio::task::yield_now().await;
        commit(&store, &[plan(2)]).await
    });
    let change = Change { generation: second, keys: vec![plan(2)] };
    assert_eq!(changes.unwrap(), Changes::Next(vec![change]));
    assert!(start.elapsed().as_millis() < 900, "it was woken, and did not look by itself");
}

#[tokio::test]
async fn a_conflict_is_no_change() {
    let server = RedisServer::start();
    let store = server.connect().await;
    let first = commit(&store, &[plan(1)]).await;
    store.commit(vec![put(&plan(1), Expect::Absent, b"y")]).await.unwrap();
    assert_eq!(store.changes(first).await.unwrap(), Changes::Next(vec![]));
}

#[tokio::test]
async fn a_follower_too_far_behind_is_told() {
    let server = RedisServer::start();
    let options = RedisOptions { feed_len: 10, ..RedisOptions::default() };
    let store = server.try_connect(options).await.unwrap();
    let first = commit(&store, &[plan(0)]).await;
    let mut last = first;
    // The server trims whole blocks of a hundred entries.
    for id in 1..400 {
        last = commit(&store, &[plan(id)]).await;
    }
    assert_eq!(store.changes(first).await.unwrap(), Changes::Gap(last));
    assert_eq!(store.changes(Generation(0)).await.unwrap(), Changes::Gap(last));
    assert_eq!(store.changes(last).await.unwrap(), Changes::Next(vec![]));
}

/// Lost writes look like a gap whatever is written afterwards: generations never come again.
#[tokio::test]
async fn a_server_that_lost_everything_shows_as_a_gap() {
    let server = RedisServer::start();
    let store = server.connect().await;
    let mut last = Generation(0);
    for id in 0..50 {
        last = commit(&store, &[plan(id)]).await;
    }
    assert_eq!(server.command(&["FLUSHALL"]), "OK");
    assert_eq!(store.changes(last).await.unwrap(), Changes::Gap(Generation(0)));
    let fresh = commit(&store, &[plan(7)]).await;
    assert!(last < fresh);
    assert_eq!(store.changes(last).await.unwrap(), Changes::Gap(fresh));
    let change = Change { generation: fresh, keys: vec![plan(7)] };
    assert_eq!(store.changes(Generation(0)).await.unwrap(), Changes::Next(vec![change]));
}

#[tokio::test]
async fn a_feed_deleted_by_hand_shows_as_a_gap_and_goes_on() {
    let server = RedisServer::start();
    let store = server.connect().await;
    let first = commit(&store, &[plan(1)]).await;
    let second = commit(&store, &[plan(2)]).await;
    assert_eq!(server.command(&["DEL", "tp:{tp}feed"]), "1");
    assert_eq!(store.changes(first).await.unwrap(), Changes::Gap(second));
    let third = commit(&store, &[plan(3)]).await;
    let change = Change { generation: third, keys: vec![plan(3)] };
    assert_eq!(store.changes(second).await.unwrap(), Changes::Next(vec![change]));
    assert_eq!(server.command(&["DEL", "tp:{tp}generation"]), "1");
    let fourth = commit(&store, &[plan(4)]).await;
    assert!(third < fourth);
    assert_eq!(store.changes(third).await.unwrap(), Changes::Gap(fourth));
}
