//! What the embedded store promises beyond the contract: clocks, memory, its folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use turnpike::clock::ManualClock;
use turnpike::domain::counter::Window;
use turnpike::domain::lease::{Cell, Hand};
use turnpike::domain::ratelog::{Close, RateAnswer, RateCall};
use turnpike::domain::time::UnixMs;
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedSize, EmbeddedStore};
use turnpike::store::{
    Committed, CounterStore, Expect, Kind, QuotaReserve, QuotaReserved, RateReserve, RecordKey,
    RecordStore, StoreError, Write,
};

use super::{ask, call, key, lease, now, spread, window};

/// A quarter past midnight, some day in 2026.
const START: UnixMs = UnixMs(1_780_272_900_000);
const HOUR_MS: u64 = 3_600_000;
/// A limit that no test reaches.
pub(crate) const HUGE: u64 = 1 << 40;

/// A folder for a store, and the clock it goes by.
pub(crate) struct Place {
    folder: TempDir,
    clock: Arc<ManualClock>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), clock: Arc::new(ManualClock::at(START)) }
    }

    pub(crate) fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path().join("journal")
    }

    pub(crate) fn try_open(&self, options: EmbeddedOptions) -> Result<EmbeddedStore, StoreError> {
        EmbeddedStore::open(&self.path(), options, self.clock())
    }

    pub(crate) fn open(&self) -> EmbeddedStore {
        self.try_open(EmbeddedOptions::default()).unwrap()
    }

    /// A store that syncs nothing by itself while a test runs.
    pub(crate) fn open_unsynced(&self) -> EmbeddedStore {
        self.try_open(EmbeddedOptions { fsync_ms: 3_600_000, ..EmbeddedOptions::default() })
            .unwrap()
    }

    /// What a kill would leave: the files as they are now, while the store is open.
    pub(crate) fn killed(&self) -> Self {
        let copy = Self { folder: TempDir::new().unwrap(), clock: self.clock() };
        fs::create_dir(copy.path()).unwrap();
        for name in ["records.redb", "journal"] {
            fs::copy(self.path().join(name), copy.path().join(name)).unwrap();
        }
        copy
    }
}

pub(crate) async fn grant(
    store: &EmbeddedStore,
    id: u64,
    process: u64,
    window: Window,
    need: u64,
) -> u64 {
    let next = call(process, Hand::default().next_call(1), 1_000, need);
    ask(store, &key(id, "q//day"), window, next).await.0.cell.granted
}

pub(crate) async fn remaining(store: &EmbeddedStore, id: u64, window: Window) -> Option<u64> {
    let usage = store.quota_usage(&key(id, "q//day"), &window).await.unwrap();
    usage.counter.map(|counter| counter.remaining())
}

async fn take(store: &EmbeddedStore, call: RateCall) -> RateAnswer {
    store.rate(&RateReserve { key: key(1, "r/t/60000"), call }).await.unwrap()
}

#[tokio::test]
async fn a_second_open_is_refused_and_the_folder_is_private() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(place.journal()).unwrap().permissions().mode() & 0o777, 0o600);
    let second = place.try_open(EmbeddedOptions::default());
    assert!(matches!(second, Err(StoreError::InUse)), "{second:?}");
    drop(store);
    place.open();
}

#[tokio::test]
async fn records_and_numbers_survive_a_kill() {
    let place = Place::new();
    let store = place.open();
    let first = store.next_id(Kind::App, 10).await.unwrap();
    let name = RecordKey::number(Kind::App, first);
    let write = Write { key: name.clone(), expect: Expect::Absent, value: Some([7].into()) };
    let Committed::At(generation) = store.commit(vec![write]).await.unwrap() else { panic!() };
    let killed = place.killed();
    let again = killed.open();
    assert_eq!(again.generation().await.unwrap(), generation);
    assert_eq!(again.get(&name).await.unwrap().unwrap().value.as_ref(), [7]);
    assert_eq!(again.next_id(Kind::App, 1).await.unwrap(), first + 10);
}

#[tokio::test]
async fn the_journal_is_made_anew_when_it_has_grown() {
    let place = Place::new();
    let options =
        EmbeddedOptions { fsync_ms: 1, compact_bytes: 4_096, ..EmbeddedOptions::default() };
    let store = place.try_open(options).unwrap();
    let window = window(&store).await;
    let mut longest = 0;
    let mut q = 0;
    // Each call writes 150 bytes or so; the keeper comes by every millisecond.
    while store.size().journal_bytes >= longest {
        longest = store.size().journal_bytes;
        q += 1;
        let cell = Cell { first_call: 1, last_call: q, granted: q - 1, ..Cell::default() };
        ask(&store, &key(1, "q//day"), window, call(1, cell, HUGE, 1)).await;
    }
    let left = HUGE - q;
    assert!(4_096 < longest);
    assert_eq!(remaining(&store, 1, window).await, Some(left));
    assert_eq!(remaining(&place.killed().open(), 1, window).await, Some(left));
}

#[tokio::test]
async fn a_refused_call_writes_nothing() {
    let place = Place::new();
    let store = place.open();
    let window = window(&store).await;
    assert_eq!(grant(&store, 1, 1, window, 1_000).await, 1_000);
    assert_eq!(take(&store, lease(1, 1, 5, 5)).await.granted, 5);
    let before = store.size().journal_bytes;
    for process in 2..9 {
        assert_eq!(grant(&store, 1, process, window, 5).await, 0);
        assert_eq!(take(&store, lease(process, 1, 5, 5)).await.granted, 0);
    }
    assert_eq!(store.size().journal_bytes, before);
}

#[tokio::test]
async fn every_change_can_be_synced_before_its_answer() {
    let place = Place::new();
    let options = EmbeddedOptions { fsync_ms: 0, ..EmbeddedOptions::default() };
    let store = Arc::new(place.try_open(options).unwrap());
    let window = window(&*store).await;
    let callers = (1..=8).map(|process| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { grant(&store, 1, process, window, 3).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap(), 3);
    }
    store.compact().unwrap();
    assert_eq!(take(&store, lease(1, 1, 5, 5)).await.granted, 5);
    assert_eq!(remaining(&place.killed().open(), 1, window).await, Some(976));
}

/// Goes on until the window, of two hours, is forgotten.
fn over(place: &Place, store: &EmbeddedStore, window: Window) {
    place.clock.step_unix(window.end.unwrap());
    store.sweep();
    place.clock.advance(Duration::from_millis(2 * HOUR_MS - 1));
    store.sweep();
    assert_ne!(store.size().quotas, 0);
    place.clock.advance(Duration::from_millis(1));
    store.sweep();
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_for_a_while_is_forgiven() {
    let place = Place::new();
    let store = place.open();
    let window = window(&store).await;
    assert_eq!(grant(&store, 1, 1, window, 10).await, 10);
    place.clock.step_unix(START.plus_ms(10_000 * HOUR_MS));
    store.sweep();
    place.clock.advance(Duration::from_millis(HOUR_MS / 2));
    store.sweep();
    place.clock.step_unix(START.plus_ms(HOUR_MS / 2));
    assert_eq!(now(&store).await, START.plus_ms(HOUR_MS / 2));
    assert_eq!(remaining(&store, 1, window).await, Some(990));
    assert_eq!(grant(&store, 1, 2, window, 10).await, 10);
}

#[tokio::test]
async fn a_window_that_is_over_stays_over_when_the_clock_steps_back() {
    let place = Place::new();
    let mut store = place.open();
    let window = window(&store).await;
    assert_eq!(grant(&store, 1, 1, window, 1_000).await, 1_000);
    // Over, but kept: who steps back finds it as it was.
    place.clock.step_unix(window.end.unwrap());
    let late = QuotaReserve {
        key: key(1, "q//day"),
        window,
        call: call(2, Hand::default().next_call(1), 1_000, 1),
    };
    let other = QuotaReserved::OtherWindow { now: window.end.unwrap() };
    assert_eq!(store.quota(&late).await.unwrap(), other);
    place.clock.step_unix(START);
    assert_eq!(grant(&store, 1, 2, window, 1).await, 0);
    // Forgotten: no time before its end is believed, by this run or by later ones.
    over(&place, &store, window);
    assert_eq!(store.size().quotas, 0);
    place.clock.step_unix(START);
    let killed = place.killed().open();
    assert_eq!(grant(&killed, 1, 3, window, 1).await, 0, "the old journal still has the counter");
    store.compact().unwrap();
    for _ in 0..3 {
        let answer = store.quota(&late).await.unwrap();
        assert_eq!(answer, other);
        drop(store);
        store = place.open();
    }
    let next = Window { start: window.end.unwrap(), end: None, reset: 0 };
    assert_eq!(grant(&store, 1, 2, next, 1).await, 1, "the next window is open already");
}

#[tokio::test]
async fn rates_go_by_a_clock_that_never_steps() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(take(&store, lease(1, 1, 5, 5)).await.granted, 5);
    place.clock.step_unix(START.plus_ms(24 * HOUR_MS));
    assert_eq!(take(&store, lease(1, 2, 5, 1)).await.granted, 0, "a step forward frees nothing");
    place.clock.step_unix(UnixMs(START.0 - 24 * HOUR_MS));
    place.clock.advance(Duration::from_millis(60_159));
    assert_eq!(take(&store, lease(1, 3, 5, 1)).await.granted, 0);
    place.clock.advance(Duration::from_millis(1));
    assert_eq!(take(&store, lease(1, 4, 5, 5)).await.granted, 5, "a step back keeps nothing");
    drop(store);
    let store = place.open();
    let answer = take(&store, lease(2, 1, 5, 1)).await;
    assert_eq!((answer.granted, answer.wait_ms), (0, 60_160), "the journal's time holds");
}

#[tokio::test]
async fn what_is_over_is_forgotten() {
    let place = Place::new();
    let store = place.open();
    let window = window(&store).await;
    for id in 0..500 {
        grant(&store, id, 1, window, 1).await;
        let call = lease(1, 1, 5, 5);
        store.rate(&RateReserve { key: key(id, "r/t/60000"), call }).await.unwrap();
    }
    place.clock.advance(Duration::from_millis(60_159));
    store.sweep();
    assert_eq!((store.size().quotas, store.size().rates), (500, 500));
    place.clock.advance(Duration::from_millis(1));
    store.sweep();
    assert_eq!((store.size().quotas, store.size().rates), (500, 0));
    over(&place, &store, window);
    store.compact().unwrap();
    let EmbeddedSize { quotas, rates, journal_bytes } = store.size();
    assert_eq!((quotas, rates), (0, 0));
    assert!(journal_bytes < 100, "nothing but a head and a mark: {journal_bytes} bytes");
}

#[tokio::test]
async fn cells_of_many_runs_are_folded_and_their_units_stay_taken() {
    let place = Place::new();
    let window = window(&place.open()).await;
    for run in 1..=20 {
        let store = place.open();
        assert_eq!(grant(&store, 1, run, window, 10).await, 10);
        let usage = store.quota_usage(&key(1, "q//day"), &window).await.unwrap();
        let (held, used) = (10 * run.min(16), 10 * run.saturating_sub(16));
        assert_eq!(spread(usage, 1_000), Some((used, held, 1_000 - run * 10)));
    }
}

#[tokio::test]
async fn a_lease_of_a_killed_process_counts_to_its_end() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(take(&store, lease(1, 1, 10, 8)).await.granted, 8);
    let again = place.killed().open();
    let closes = vec![Close { q: 1, spent: 0, age_ms: 0 }];
    let late = take(&again, RateCall { closes, ..lease(1, 2, 10, 3) }).await;
    assert_eq!((late.granted, late.free), (0, 2), "nobody can close it any more");
    assert_eq!(now(&again).await, START);
}
