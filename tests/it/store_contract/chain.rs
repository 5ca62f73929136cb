//! Large commits right after one of the same gateway.

use std::sync::Arc;
use std::time::Duration;

use turnpike::store::{
    AnyStore, Committed, Expect, Generation, Kind, RecordKey, RecordStore, Write,
};

use super::{at, put, value};

pub(super) fn app() -> RecordKey {
    RecordKey::number(Kind::App, 1)
}

fn request(n: u64) -> RecordKey {
    RecordKey::number(Kind::AccessRequest, n)
}

/// New records from `from`, and an app that is as the commit before left it.
pub(super) fn many(from: u64, app_is: &[u8]) -> Vec<Write> {
    let new = (from..from + 150).map(|n| put(&request(n), Expect::Absent, &n.to_be_bytes()));
    let member = (from..from + 150)
        .map(|n| put(&RecordKey::bytes(Kind::Member, n.to_be_bytes()), Expect::Absent, b""));
    new.chain(member).chain([put(&app(), Expect::Ahead, app_is)]).collect()
}

/// Lets two milliseconds pass: a generation is one.
pub(super) async fn pass() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

pub(super) async fn listed(store: &AnyStore) -> Vec<(RecordKey, Generation)> {
    let page = store.list(Kind::AccessRequest, b"", None, 9_999).await.unwrap();
    page.records.into_iter().map(|(key, record)| (key, record.generation)).collect()
}

pub(super) async fn members(store: &AnyStore) -> usize {
    store.list(Kind::Member, b"", None, 9_999).await.unwrap().records.len()
}

/// Commits that come right after one another, whoever else commits in between.
pub(super) async fn large_commits_in_a_row_are_there_or_not(store: Arc<AnyStore>) {
    let mut last = at(store.commit(vec![put(&app(), Expect::Absent, b"0")]).await.unwrap());
    let mut expect = Vec::new();
    for (n, somebody_else) in [false, false, true, false, true, true, false].iter().enumerate() {
        let from = 1_000 * n as u64;
        if *somebody_else {
            last = last
                .max(at(store.commit(vec![put(&app(), Expect::Anything, b"else")]).await.unwrap()));
        }
        let writes = many(from, format!("{n}").as_bytes());
        pass().await;
        let now = at(store.commit_after(writes, Some(last)).await.unwrap());
        assert!(last < now, "{last:?} {now:?}");
        assert_eq!(store.generation().await.unwrap(), now);
        assert_eq!(store.get(&app()).await.unwrap().unwrap().generation, now);
        assert_eq!(value(&store, &request(from + 7)).await.unwrap(), (from + 7).to_be_bytes());
        expect.extend((from..from + 150).map(|n| (request(n), now)));
        assert_eq!(listed(&store).await, expect);
        assert_eq!(members(&store).await, expect.len());
        last = now;
    }
    // Larger, with some that go.
    let (gone, kept): (Vec<_>, Vec<_>) = expect.into_iter().partition(|(key, _)| key.id[7] == 9);
    let mut writes: Vec<_> =
        (20_000..24_500).map(|n| put(&request(n), Expect::Absent, b"")).collect();
    writes.push(put(&app(), Expect::Ahead, b"large"));
    writes.extend(gone.iter().map(|(key, generation)| Write {
        key: key.clone(),
        expect: Expect::Unchanged(*generation),
        value: None,
    }));
    pass().await;
    last = at(store.commit_after(writes, Some(last)).await.unwrap());
    let mut expect = kept;
    expect.extend((20_000..24_500).map(|n| (request(n), last)));
    assert_eq!((gone.is_empty(), listed(&store).await), (false, expect.clone()));
    // One record is there already: it is said which, and nothing is written.
    let there = many(6_100, b"no");
    assert_eq!(
        store.commit_after(there, Some(last)).await.unwrap(),
        Committed::Conflict(0),
        "6100 to 6149 are there"
    );
    // The app was written by somebody else.
    let other = at(store.commit(vec![put(&app(), Expect::Anything, b"other")]).await.unwrap());
    let changed = many(9_000, b"no");
    let which = changed.len() - 1;
    let committed = store.commit_after(changed, Some(last)).await.unwrap();
    assert_eq!(committed, Committed::Conflict(which));
    assert_eq!(store.generation().await.unwrap(), other);
    assert_eq!(value(&store, &app()).await.unwrap(), b"other");
    assert_eq!(listed(&store).await, expect);
    assert_eq!(members(&store).await, 7 * 150);
}
