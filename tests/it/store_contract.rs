//! What every store promises, held against every store there is.
use std::sync::Arc;

use sha2::Digest;
use turnpike::domain::counter::{CounterKey, ProcessId, Subject, Window};
use turnpike::domain::id::CredentialId;
use turnpike::domain::lease::{Cell, Hand, QuotaAnswer, QuotaCall, QuotaState};
use turnpike::domain::ratelog::{Close, RateCall, rate};
use turnpike::domain::time::UnixMs;
use turnpike::store::{
    AnyStore, Committed, CounterStore, Expect, Generation, Kind, QuotaReserve, QuotaReserved,
    QuotaUsage, RateReserve, RecordKey, RecordStore, Write,
};

mod chain;
mod crash;
mod embedded;
mod many;
mod random;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redis_chain;
#[cfg(feature = "redis")]
mod redis_durability;
#[cfg(feature = "redis")]
mod redis_feed;
#[cfg(feature = "redis")]
mod redis_lost;
#[cfg(feature = "redis")]
mod redis_random;
#[cfg(feature = "redis")]
mod redis_steps;

use chain::large_commits_in_a_row_are_there_or_not;
use many::{
    a_report_in_another_window_is_told_the_time, reports_count_once_each,
    reports_on_one_counter_add_up, the_first_says_when_periods_began,
};

/// Runs each case on each store: a new store is one more line.
macro_rules! on_every_store {
    ($($case:ident)*) => {
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let place = super::embedded::Place::new();
                super::$case(super::Arc::new(super::AnyStore::Embedded(place.open()))).await;
            })*
        }

        #[cfg(feature = "redis")]
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let server = crate::redis_server::RedisServer::start();
                super::$case(super::Arc::new(super::AnyStore::Redis(server.connect().await))).await;
            })*
        }
    };
}

on_every_store! {
    a_commit_is_read_back
    a_conflict_leaves_nothing
    many_new_records_are_there_or_none
    conditions_are_those_before_the_commit
    what_was_made_ready_comes_after_the_commit_that_is_named
    large_commits_in_a_row_are_there_or_not
    generations_rise
    racing_commits_lose_no_update
    lists_ascend_within_kind_and_prefix_and_page
    numbers_start_at_one_and_never_repeat
    bare_records_are_there_or_not
    a_grant_counts_until_it_is_returned
    a_repeated_call_changes_nothing
    reading_changes_nothing
    racing_processes_never_get_more_than_the_limit
    the_limit_of_the_highest_generation_holds
    another_window_is_told_the_time
    a_window_and_its_reset_count_apart
    a_quota_that_never_renews_never_ends
    what_was_never_granted_is_gone
    a_rate_grants_no_more_than_itself
    a_closed_lease_frees_what_was_not_spent
    racing_leases_never_hold_more_than_the_rate
    reports_count_once_each
    reports_on_one_counter_add_up
    a_report_in_another_window_is_told_the_time
    the_first_says_when_periods_began
}

fn put(key: &RecordKey, expect: Expect, value: &[u8]) -> Write {
    Write { key: key.clone(), expect, value: Some(value.into()) }
}

fn at(committed: Committed) -> Generation {
    match committed {
        Committed::At(generation) => generation,
        Committed::Conflict(index) => panic!("write {index} conflicts"),
    }
}

async fn value(store: &AnyStore, key: &RecordKey) -> Option<Vec<u8>> {
    store.get(key).await.unwrap().map(|record| record.value.to_vec())
}

/// Records 1, 3: what was committed is there for everyone, under its generation, until deleted.
async fn a_commit_is_read_back(store: Arc<AnyStore>) {
    let (a, b) = (RecordKey::number(Kind::App, 1), RecordKey::bytes(Kind::Unique, "b"));
    let writes = vec![put(&a, Expect::Absent, b"one"), put(&b, Expect::Anything, b"")];
    let first = at(store.commit(writes).await.unwrap());
    let record = store.get(&a).await.unwrap().unwrap();
    assert_eq!((record.generation, record.value.as_ref()), (first, b"one".as_ref()));
    assert_eq!(value(&store, &b).await, Some(vec![]), "an empty value is a value");
    let nobodys = RecordKey::number(Kind::Plan, 1);
    assert_eq!(value(&store, &nobodys).await, None);
    // Several at once, as many as there are, in the order they were named.
    let keys: Vec<_> = (0..300).map(|n| [&a, &nobodys, &b][n % 3].clone()).collect();
    let all = store.get_all(&keys).await.unwrap();
    assert_eq!(all.len(), 300);
    for (key, found) in keys.iter().zip(all) {
        assert_eq!(found.map(|record| record.value.to_vec()), value(&store, key).await);
    }
    let gone = Write { value: None, ..put(&a, Expect::Unchanged(first), b"") };
    at(store.commit(vec![gone]).await.unwrap());
    assert_eq!(value(&store, &a).await, None);
}

/// Of what is made ready before the commit that it comes after is through, conditions hold only if
/// that is the last that wrote their records.
async fn what_was_made_ready_comes_after_the_commit_that_is_named(store: Arc<AnyStore>) {
    let (a, b) = (RecordKey::number(Kind::App, 1), RecordKey::number(Kind::App, 2));
    let writes = [put(&b, Expect::Absent, b"two"), put(&a, Expect::Ahead, b"two")];
    let after = |ahead| store.commit_after(writes.to_vec(), ahead);
    let conflict = Committed::Conflict(1);
    assert_eq!(after(None).await.unwrap(), conflict, "there is nothing");
    let first = at(store.commit(vec![put(&a, Expect::Absent, b"one")]).await.unwrap());
    let others = [None, Some(Generation(first.0 - 1)), Some(Generation(first.0 + 1))];
    for ahead in others {
        assert_eq!(after(ahead).await.unwrap(), conflict, "{ahead:?}");
    }
    assert_eq!((value(&store, &b).await, store.generation().await.unwrap()), (None, first));
    let second = at(after(Some(first)).await.unwrap());
    assert_eq!(value(&store, &a).await.unwrap(), b"two");
    // It is in the list once, and gone from it when it is deleted in the same way.
    let gone = Write { value: None, ..put(&a, Expect::Ahead, b"") };
    let gone = |ahead| store.commit_after(vec![gone.clone()], Some(ahead));
    assert_eq!(gone(first).await.unwrap(), Committed::Conflict(0), "it was written since");
    at(gone(second).await.unwrap());
    let left = store.list(Kind::App, b"", None, 9).await.unwrap().records;
    assert_eq!(left.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [b]);
}

/// Records 1: a commit with one condition that does not hold writes nothing at all.
async fn a_conflict_leaves_nothing(store: Arc<AnyStore>) {
    let (a, b) = (RecordKey::number(Kind::App, 1), RecordKey::number(Kind::App, 2));
    let first = at(store.commit(vec![put(&a, Expect::Absent, b"one")]).await.unwrap());
    let wrong = [Expect::Absent, Expect::Unchanged(Generation(first.0 + 1))];
    for expect in wrong {
        let writes = vec![put(&b, Expect::Absent, b"two"), put(&a, expect, b"two")];
        assert_eq!(store.commit(writes).await.unwrap(), Committed::Conflict(1));
        assert_eq!(value(&store, &a).await.unwrap(), b"one");
        assert_eq!(value(&store, &b).await, None);
        assert_eq!(store.generation().await.unwrap(), first);
    }
    let absent = put(&b, Expect::Unchanged(first), b"two");
    assert_eq!(store.commit(vec![absent]).await.unwrap(), Committed::Conflict(0));
}

/// Records 1: of hundreds of new records among old ones, all are there, or none.
async fn many_new_records_are_there_or_none(store: Arc<AnyStore>) {
    let member = |n: u32| RecordKey::bytes(Kind::Audience, n.to_be_bytes());
    let token = |n: u32| RecordKey::bytes(Kind::Token, sha2::Sha256::digest(n.to_be_bytes()));
    let old: Vec<_> = (0..9).map(|n| put(&member(100 * n), Expect::Absent, b"old")).collect();
    let before = at(store.commit(old).await.unwrap());
    let all = |but: Option<u32>| -> Vec<Write> {
        let numbers = (0..900).filter(move |n| n % 100 != 0 || but == Some(*n));
        let both = numbers.flat_map(|n| [member(n), token(n)]);
        both.map(|key| put(&key, Expect::Absent, &key.id)).collect()
    };
    for there in [0, 500, 800] {
        let writes = all(Some(there));
        let conflict = writes.iter().position(|write| write.key == member(there));
        let conflict = Committed::Conflict(conflict.unwrap());
        assert_eq!(store.commit(writes).await.unwrap(), conflict);
        let page = store.list(Kind::Audience, b"", None, 1_000).await.unwrap();
        assert_eq!(page.records.len(), 9);
        assert!(page.records.iter().all(|(_, record)| record.value.as_ref() == b"old"));
        assert_eq!(value(&store, &token(there)).await, None);
        assert_eq!(store.generation().await.unwrap(), before);
    }
    let after = at(store.commit(all(None)).await.unwrap());
    let page = store.list(Kind::Audience, b"", None, 1_000).await.unwrap();
    assert_eq!(page.records.len(), 900);
    for (n, (key, record)) in (0..).zip(page.records) {
        assert_eq!(key, member(n));
        let (at, value) = if n % 100 == 0 { (before, &b"old"[..]) } else { (after, &*key.id) };
        assert_eq!((record.generation, record.value.as_ref()), (at, value));
        assert_eq!(store.get(&token(n)).await.unwrap().is_some(), n % 100 != 0);
    }
}

/// All conditions are checked before anything is written, and the last write of a record wins.
async fn conditions_are_those_before_the_commit(store: Arc<AnyStore>) {
    let a = RecordKey::number(Kind::App, 1);
    let writes = vec![put(&a, Expect::Absent, b"one"), put(&a, Expect::Absent, b"two")];
    at(store.commit(writes).await.unwrap());
    assert_eq!(value(&store, &a).await.unwrap(), b"two");
}

/// Records 2: every commit is above all before it, a deletion too.
async fn generations_rise(store: Arc<AnyStore>) {
    let mut last = store.generation().await.unwrap();
    let key = RecordKey::number(Kind::App, 1);
    for value in [Some(b"one".as_ref()), Some(b"two"), None, Some(b"three")] {
        let write =
            Write { key: key.clone(), expect: Expect::Anything, value: value.map(Into::into) };
        let now = at(store.commit(vec![write]).await.unwrap());
        assert!(last < now);
        assert_eq!(store.generation().await.unwrap(), now);
        last = now;
    }
}

/// Records 1 to 3, with several writers: each increments what it read, and none is lost.
async fn racing_commits_lose_no_update(store: Arc<AnyStore>) {
    let key = RecordKey::number(Kind::App, 1);
    at(store.commit(vec![put(&key, Expect::Absent, &[0])]).await.unwrap());
    let racers = (0..4).map(|_| {
        let (store, key) = (Arc::clone(&store), key.clone());
        tokio::spawn(async move {
            for _ in 0..5 {
                loop {
                    let read = store.get(&key).await.unwrap().unwrap();
                    let next = [read.value[0] + 1];
                    let write = put(&key, Expect::Unchanged(read.generation), &next);
                    if let Committed::At(_) = store.commit(vec![write]).await.unwrap() {
                        break;
                    }
                }
            }
        })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.await.unwrap();
    }
    assert_eq!(value(&store, &key).await.unwrap(), [20]);
}

/// Records 4.
async fn lists_ascend_within_kind_and_prefix_and_page(store: Arc<AnyStore>) {
    let ids = ["a/1", "a/2", "a/3", "a\u{7f}", "b/1", "a"];
    let mut writes: Vec<Write> = Vec::new();
    for id in ids {
        writes.push(put(&RecordKey::bytes(Kind::Audience, id), Expect::Absent, id.as_bytes()));
        writes.push(put(&RecordKey::bytes(Kind::Member, id), Expect::Absent, b""));
        writes.push(put(&RecordKey::bytes(Kind::Unique, id), Expect::Absent, b"other"));
    }
    at(store.commit(writes).await.unwrap());
    let check = async |prefix: &str, after: Option<&str>, limit, expect: &[&str], more| {
        let after = after.map(str::as_bytes);
        for kind in [Kind::Audience, Kind::Member] {
            let page = store.list(kind, prefix.as_bytes(), after, limit).await.unwrap();
            let got: Vec<&[u8]> = page.records.iter().map(|(key, _)| key.id.as_ref()).collect();
            assert_eq!(got, expect.iter().map(|id| id.as_bytes()).collect::<Vec<_>>(), "{prefix}");
            let value =
                |key: &RecordKey| if kind.is_bare() { Arc::from([]) } else { key.id.clone() };
            assert!(page.records.iter().all(|(key, record)| value(key) == record.value));
            assert_eq!(page.more, more, "{prefix} {after:?}");
        }
    };
    check("", None, 9, &["a", "a/1", "a/2", "a/3", "a\u{7f}", "b/1"], false).await;
    check("a/", None, 9, &["a/1", "a/2", "a/3"], false).await;
    check("a/", None, 3, &["a/1", "a/2", "a/3"], false).await;
    check("a/", None, 2, &["a/1", "a/2"], true).await;
    check("a/", Some("a/2"), 2, &["a/3"], false).await;
    check("a/", Some("a/3"), 2, &[], false).await;
    check("a/", Some("a"), 1, &["a/1"], true).await; // Before the prefix: from its start.
    check("a/", Some("z"), 9, &[], false).await;
    check("c", None, 9, &[], false).await;
    check("", None, 0, &[], true).await;
}

/// Records 6: what is bare is there or not, whatever was there before.
async fn bare_records_are_there_or_not(store: Arc<AnyStore>) {
    let member = |n: u8| RecordKey::bytes(Kind::Member, [n]);
    let write = |n: u8, value: Option<&[u8]>| Write {
        key: member(n),
        expect: Expect::Anything,
        value: value.map(Into::into),
    };
    let app = RecordKey::number(Kind::App, 1);
    let there = async || {
        let keys = [member(1), app.clone(), member(2), member(3)];
        let found = store.get_all(&keys).await.unwrap();
        let bare = found.iter().flatten().filter(|record| record.value.is_empty()).count();
        assert_eq!(bare, found.iter().flatten().count());
        let found: Vec<_> = found.iter().map(Option::is_some).collect();
        for (key, found) in keys.iter().zip(&found) {
            assert_eq!(store.get(key).await.unwrap().is_some(), *found, "{key:?}");
        }
        let page = store.list(Kind::Member, &[], None, 9).await.unwrap();
        assert_eq!(page.records.len(), found.iter().filter(|found| **found).count());
        found
    };
    assert_eq!(there().await, [false; 4]);
    let writes = vec![write(1, Some(b"")), write(2, Some(b"")), write(3, None)];
    at(store.commit(writes).await.unwrap());
    assert_eq!(there().await, [true, false, true, false]);
    let writes = vec![write(1, Some(b"")), write(2, None), write(3, Some(b""))];
    at(store.commit(writes).await.unwrap());
    assert_eq!(there().await, [true, false, false, true]);
    // They go with the rest of their commit.
    let wrong = put(&app, Expect::Unchanged(Generation(1)), b"");
    let writes = vec![write(1, None), write(2, Some(b"")), wrong];
    assert_eq!(store.commit(writes).await.unwrap(), Committed::Conflict(2));
    assert_eq!(there().await, [true, false, false, true]);
    assert_eq!(store.get_all(&[member(3)]).await.unwrap().len(), 1);
}

/// Records 5, with several callers; kinds count apart.
async fn numbers_start_at_one_and_never_repeat(store: Arc<AnyStore>) {
    assert_eq!(store.next_id(Kind::App, 3).await.unwrap(), 1);
    assert_eq!(store.next_id(Kind::App, 1).await.unwrap(), 4);
    assert_eq!(store.next_id(Kind::User, 1).await.unwrap(), 1);
    let racers = (1..5).map(|count| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let first = store.next_id(Kind::App, count).await.unwrap();
            first..first + count
        })
    });
    let mut numbers: Vec<u64> = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        numbers.extend(racer.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (5..15).collect::<Vec<u64>>());
}

pub(crate) fn key(id: u64, definition: &str) -> CounterKey {
    CounterKey { subject: Subject::Credential(CredentialId(id)), definition: definition.into() }
}

/// The store's time: no window that is over contains it.
pub(crate) async fn now(store: &impl CounterStore) -> UnixMs {
    let window = Window { start: UnixMs(0), end: Some(UnixMs(1)), reset: 0 };
    let call = call(0, Cell { first_call: 1, last_call: 1, ..Cell::default() }, 1, 0);
    let reserve = QuotaReserve { key: key(0, "time"), window, call };
    match store.quota(&reserve).await.unwrap() {
        QuotaReserved::OtherWindow { now } => now,
        other @ (QuotaReserved::Answer { .. } | QuotaReserved::Learn) => {
            panic!("a store that lives in 1970: {other:?}")
        }
    }
}

/// A window of two hours around now.
pub(crate) async fn window(store: &impl CounterStore) -> Window {
    let start = UnixMs(now(store).await.0 - 3_600_000);
    Window { start, end: Some(start.plus_ms(7_200_000)), reset: 0 }
}

pub(crate) fn call(process: u64, cell: Cell, limit: u64, need: u64) -> QuotaCall {
    let process = ProcessId(process);
    QuotaCall { process, cell, limit, generation: 1, want: 0, need, least: need.min(1), live: 1 }
}

/// Asks in full: the answer's state and the milliseconds left.
pub(crate) async fn ask(
    store: &impl CounterStore,
    key: &CounterKey,
    window: Window,
    call: QuotaCall,
) -> (QuotaState, Option<u64>) {
    let reserve = QuotaReserve { key: key.clone(), window, call };
    let answer = store.quota(&reserve).await.unwrap();
    let QuotaReserved::Answer { answer: QuotaAnswer::State(state), ends_in_ms, .. } = answer else {
        panic!("{answer:?}")
    };
    (state, ends_in_ms)
}

/// Counters 2: granted, spent and returned units show where they should.
async fn a_grant_counts_until_it_is_returned(store: Arc<AnyStore>) {
    let (key, window) = (key(1, "q//day"), window(&*store).await);
    let mut hand = Hand::default();
    let (state, ends_in_ms) = ask(&*store, &key, window, call(7, hand.next_call(1), 10, 6)).await;
    assert_eq!((state.cell.granted, state.remaining, state.limit), (6, 4, 10));
    assert!((3_590_000..=3_600_000).contains(&ends_in_ms.unwrap()));
    hand.merge(&QuotaAnswer::State(state));
    assert!(hand.spend(2));
    hand.give_back(4);
    let (state, _) = ask(&*store, &key, window, call(7, hand.next_call(2), 10, 0)).await;
    assert_eq!((state.cell.unspent(), state.remaining), (0, 8));
    let (state, _) = ask(&*store, &key, window, call(8, Hand::default().next_call(1), 10, 9)).await;
    assert_eq!((state.cell.granted, state.remaining, state.held_by_others), (8, 0, 0));
}

/// Counters 3.
async fn a_repeated_call_changes_nothing(store: Arc<AnyStore>) {
    let (key, window) = (key(2, "q//day"), window(&*store).await);
    let first = call(7, Hand::default().next_call(5), 10, 6);
    let (once, _) = ask(&*store, &key, window, first).await;
    let (twice, _) = ask(&*store, &key, window, first).await;
    assert_eq!(once, twice);
    let rate = RateReserve { key, call: lease(7, 1, 10, 6) };
    assert_eq!(store.rate(&rate).await.unwrap().granted, 6);
    let again = store.rate(&rate).await.unwrap();
    assert_eq!((again.q, again.granted, again.free), (1, 0, 4));
}

/// Counters 4.
async fn reading_changes_nothing(store: Arc<AnyStore>) {
    let (key, window) = (key(3, "q//day"), window(&*store).await);
    for _ in 0..2 {
        assert_eq!(store.quota_usage(&key, &window).await.unwrap().counter, None);
    }
    let cell =
        ask(&*store, &key, window, call(7, Hand::default().next_call(1), 10, 6)).await.0.cell;
    let report = Cell { spent: 4, returned: 1, last_call: 2, ..cell };
    ask(&*store, &key, window, call(7, report, 10, 0)).await;
    for _ in 0..2 {
        let usage = store.quota_usage(&key, &window).await.unwrap();
        assert!(window.contains(usage.now));
        assert_eq!(spread(usage, 10), Some((4, 1, 5)));
    }
    let taken = RateReserve { key: key.clone(), call: lease(7, 1, 10, 6) };
    store.rate(&taken).await.unwrap();
    for _ in 0..2 {
        let answer = store.rate_usage(&key, taken.call.rate).await.unwrap();
        assert_eq!((answer.granted, answer.free), (0, 4));
        assert!((1..=60_160).contains(&answer.reset_ms), "{answer:?}");
    }
    let other = store.rate_usage(&self::key(30, "r/t/60000"), taken.call.rate).await.unwrap();
    assert_eq!((other.free, other.reset_ms), (10, 0));
}

/// Units used, held and left, of a counter that was used.
pub(crate) fn spread(usage: QuotaUsage, limit: u64) -> Option<(u64, u64, u64)> {
    let spread = usage.counter?.spread(limit, None, |_| true);
    Some((spread.used, spread.held, spread.remaining - spread.held))
}

/// Counters 1.
async fn racing_processes_never_get_more_than_the_limit(store: Arc<AnyStore>) {
    let window = window(&*store).await;
    let racers = (1..=4).map(|process| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let (key, mut hand) = (key(4, "q//day"), Hand::default());
            for q in 1..=100 {
                let next = call(process, hand.next_call(q), 1_000, 4);
                hand.merge(&QuotaAnswer::State(ask(&*store, &key, window, next).await.0));
            }
            hand.units()
        })
    });
    let mut granted = 0;
    for racer in racers.collect::<Vec<_>>() {
        granted += racer.await.unwrap();
    }
    assert_eq!(granted, 1_000, "400 calls of 4 units use up a limit of 1,000, and no more");
}

/// Counters 2: a late call with an old limit does not bring it back.
async fn the_limit_of_the_highest_generation_holds(store: Arc<AnyStore>) {
    let (key, window) = (key(5, "q//day"), window(&*store).await);
    let newer = QuotaCall { generation: 9, ..call(1, Hand::default().next_call(1), 20, 5) };
    assert_eq!(ask(&*store, &key, window, newer).await.0.remaining, 15);
    let older = QuotaCall { generation: 8, ..call(2, Hand::default().next_call(1), 900, 5) };
    let state = ask(&*store, &key, window, older).await.0;
    assert_eq!((state.limit, state.remaining), (20, 10));
}

async fn another_window_is_told_the_time(store: Arc<AnyStore>) {
    let (key, current) = (key(6, "q//day"), window(&*store).await);
    let Window { start, end: Some(end), .. } = current else { panic!() };
    let past = Window { start: UnixMs(start.0 - 1), end: Some(start), reset: 0 };
    let future = Window { start: end, end: Some(end.plus_ms(1)), reset: 0 };
    for window in [past, future] {
        let call = call(1, Hand::default().next_call(1), 10, 5);
        let reserve = QuotaReserve { key: key.clone(), window, call };
        let answer = store.quota(&reserve).await.unwrap();
        let QuotaReserved::OtherWindow { now } = answer else { panic!("{answer:?}") };
        assert!(current.contains(now));
        assert_eq!(store.quota_usage(&key, &window).await.unwrap().counter, None);
    }
}

async fn a_window_and_its_reset_count_apart(store: Arc<AnyStore>) {
    let (key, window) = (key(7, "q//day"), window(&*store).await);
    for reset in 0..3 {
        let window = Window { reset, ..window };
        let next = call(1, Hand::default().next_call(reset + 1), 10, 8);
        assert_eq!(ask(&*store, &key, window, next).await.0.cell.granted, 8);
    }
}

async fn a_quota_that_never_renews_never_ends(store: Arc<AnyStore>) {
    let window = Window { start: UnixMs(0), end: None, reset: 0 };
    let next = call(1, Hand::default().next_call(1), 10, 8);
    assert_eq!(ask(&*store, &key(8, "q//never"), window, next).await.1, None);
}

/// Counters 2: a caller that believes in units the store knows nothing of begins anew.
async fn what_was_never_granted_is_gone(store: Arc<AnyStore>) {
    let (key, window) = (key(9, "q//day"), window(&*store).await);
    let cell = Cell { first_call: 1, last_call: 3, granted: 5, ..Cell::default() };
    let reserve = QuotaReserve { key: key.clone(), window, call: call(1, cell, 10, 5) };
    let answer = store.quota(&reserve).await.unwrap();
    assert!(
        matches!(answer, QuotaReserved::Answer { answer: QuotaAnswer::Gone, .. }),
        "{answer:?}"
    );
    assert_eq!(store.quota_usage(&key, &window).await.unwrap().counter, None);
}

pub(crate) fn lease(process: u64, q: u64, requests: u64, need: u64) -> RateCall {
    let (process, rate) = (ProcessId(process), rate(requests, 60_000).unwrap());
    RateCall { process, q, rate, closes: vec![], want: 0, need, least: need, validity_ms: 100 }
}

async fn a_rate_grants_no_more_than_itself(store: Arc<AnyStore>) {
    let key = key(1, "r/t/60000");
    let first = RateReserve { key: key.clone(), call: lease(1, 1, 5, 5) };
    let answer = store.rate(&first).await.unwrap();
    assert_eq!((answer.granted, answer.free), (5, 0));
    let second = RateReserve { key, call: lease(2, 1, 5, 1) };
    let answer = store.rate(&second).await.unwrap();
    assert_eq!((answer.granted, answer.free), (0, 0));
    assert!((50_000..=60_160).contains(&answer.wait_ms), "{answer:?}");
    assert_eq!(answer.wait_ms, answer.reset_ms);
}

async fn a_closed_lease_frees_what_was_not_spent(store: Arc<AnyStore>) {
    let key = key(2, "r/t/60000");
    let first = RateReserve { key: key.clone(), call: lease(1, 1, 10, 8) };
    assert_eq!(store.rate(&first).await.unwrap().granted, 8);
    let closes = vec![Close { q: 1, spent: 3, age_ms: 0 }];
    let second = RateReserve { key, call: RateCall { closes, ..lease(1, 2, 10, 7) } };
    let answer = store.rate(&second).await.unwrap();
    assert_eq!((answer.granted, answer.free), (7, 0));
}

/// Counters 1.
async fn racing_leases_never_hold_more_than_the_rate(store: Arc<AnyStore>) {
    let racers = (1..=4).map(|process| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut granted = 0;
            for q in 1..=60 {
                let call = RateCall { least: 1, ..lease(process, q, 500, 3) };
                let reserve = RateReserve { key: key(3, "r/t/60000"), call };
                granted += store.rate(&reserve).await.unwrap().granted;
            }
            granted
        })
    });
    let mut granted = 0;
    for racer in racers.collect::<Vec<_>>() {
        granted += racer.await.unwrap();
    }
    assert_eq!(granted, 500);
}
