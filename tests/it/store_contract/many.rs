//! Calls about many subjects at once: as many, each by itself.

use std::sync::Arc;

use turnpike::domain::counter::{CounterKey, Subject, Window};
use turnpike::domain::id::CredentialId;
use turnpike::domain::lease::Cell;
use turnpike::domain::time::UnixMs;
use turnpike::store::{AnyStore, CounterStore, QuotaReserve};

use super::{call, key, now, spread, window};

/// More than any store takes in one step.
const MANY: u64 = 150;

/// The report of a process on units that it admitted by itself.
fn report(key: &CounterKey, window: Window, units: u64) -> QuotaReserve {
    let cell = Cell { first_call: 1, last_call: units, local: units, ..Cell::default() };
    QuotaReserve { key: key.clone(), window, call: call(9, cell, 1_000, 0) }
}

async fn used(store: &AnyStore, key: &CounterKey, window: Window) -> Option<u64> {
    let usage = store.quota_usage(key, &window).await.unwrap();
    spread(usage, 1_000).map(|(used, _, _)| used)
}

/// Counters 1 to 3, of one report and of many: each counts, and counts once.
pub(super) async fn reports_count_once_each(store: Arc<AnyStore>) {
    let window = window(&*store).await;
    for (first, count) in [(100, 1), (200, MANY)] {
        let keys: Vec<_> = (0..count).map(|n| key(first + n, "q//day")).collect();
        let reports = |more: u64| {
            let one = |(n, key): (u64, &CounterKey)| report(key, window, n + more);
            (1..).zip(&keys).map(one).collect::<Vec<_>>()
        };
        for (more, counted) in [(1, 1), (1, 1), (0, 1), (3, 3)] {
            let told = store.reports(&reports(more)).await.unwrap();
            assert_eq!(told, vec![None; keys.len()]);
            for (n, key) in (1..).zip(&keys) {
                assert_eq!(used(&store, key, window).await, Some(n + counted), "{n} after {more}");
            }
        }
    }
    assert_eq!(store.reports(&[]).await.unwrap(), []);
}

/// Of reports on one counter, by one or by several processes, each counts.
pub(super) async fn reports_on_one_counter_add_up(store: Arc<AnyStore>) {
    let (key, window) = (key(1, "q//day"), window(&*store).await);
    let mut reports: Vec<_> = (1..=MANY).map(|_| report(&key, window, 2)).collect();
    for (process, report) in (1..).zip(&mut reports) {
        report.call.process.0 = process;
    }
    store.reports(&reports).await.unwrap();
    assert_eq!(used(&store, &key, window).await, Some(2 * MANY));
    let more = [report(&key, window, 3), report(&key, window, 5)];
    store.reports(&more).await.unwrap();
    assert_eq!(
        used(&store, &key, window).await,
        Some(2 * MANY + 3),
        "the ninth process has 5, not 2"
    );
}

/// A report in another window is told the time; those beside it count.
pub(super) async fn a_report_in_another_window_is_told_the_time(store: Arc<AnyStore>) {
    let current = window(&*store).await;
    let past = Window { start: UnixMs(1), end: Some(UnixMs(2)), reset: 0 };
    let (one, other) = (key(1, "q//day"), key(2, "q//day"));
    for reports in [
        vec![report(&one, past, 4)],
        vec![report(&one, past, 4), report(&other, current, 4), report(&one, past, 6)],
    ] {
        let told = store.reports(&reports).await.unwrap();
        for (report, told) in reports.iter().zip(told) {
            assert_eq!(told.is_some(), report.window == past);
            assert!(told.is_none_or(|now| current.contains(now)));
        }
    }
    assert_eq!(used(&store, &one, past).await, None);
    assert_eq!(used(&store, &other, current).await, Some(4));
}

/// Who asks first sets when the periods of a subject began: where it says so, at that time, else now.
pub(super) async fn the_first_says_when_periods_began(store: Arc<AnyStore>) {
    let now = now(&*store).await;
    let subject = |n: u64| Subject::Credential(CredentialId(n));
    let begun = |n: u64| (!n.is_multiple_of(3)).then_some(UnixMs(1_000 + n));
    let all: Vec<_> = (1..=MANY).map(|n| (subject(n), begun(n))).collect();
    let first = store.anchors(&all, now).await.unwrap();
    for (n, instant) in (1..).zip(&first) {
        match begun(n) {
            Some(begun) => assert_eq!(*instant, begun),
            None => assert!(now <= *instant && instant.0 < now.0 + 60_000, "{instant:?}"),
        }
        assert_eq!(store.first_use(&subject(n)).await.unwrap(), Some(*instant));
    }
    let others: Vec<_> = (0..=MANY + 1).map(|n| (subject(n), Some(UnixMs(7)))).collect();
    let again = store.anchors(&others, now).await.unwrap();
    assert_eq!((again[0], again[again.len() - 1]), (UnixMs(7), UnixMs(7)));
    assert_eq!(again[1..again.len() - 1], first);
    let twice = [(subject(500), Some(UnixMs(8))), (subject(500), Some(UnixMs(9)))];
    assert_eq!(store.anchors(&twice, now).await.unwrap(), [UnixMs(8); 2]);
    assert_eq!(store.anchor(&subject(500), now).await.unwrap(), UnixMs(8));
    assert_eq!(store.anchors(&[], now).await.unwrap(), []);
}
