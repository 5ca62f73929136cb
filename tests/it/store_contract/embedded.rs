//! What the embedded store promises beyond the contract: crashes, clocks, memory, its folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

use super::random::block_on;
use super::{ask, call, key, lease, now, window};

/// A quarter past midnight, some day in 2026.
const START: UnixMs = UnixMs(1_780_272_900_000);
const HOUR_MS: u64 = 3_600_000;
/// A limit that no test reaches.
const HUGE: u64 = 1 << 40;

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

    fn journal(&self) -> PathBuf {
        self.path().join("journal")
    }

    pub(crate) fn try_open(&self, options: EmbeddedOptions) -> Result<EmbeddedStore, StoreError> {
        EmbeddedStore::open(&self.path(), options, self.clock())
    }

    pub(crate) fn open(&self) -> EmbeddedStore {
        self.try_open(EmbeddedOptions::default()).unwrap()
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

async fn grant(store: &EmbeddedStore, id: u64, process: u64, window: Window, need: u64) -> u64 {
    let next = call(process, Hand::default().next_call(1), 1_000, need);
    ask(store, &key(id, "q//day"), window, next).await.0.cell.granted
}

async fn remaining(store: &EmbeddedStore, id: u64, window: Window) -> Option<u64> {
    store.quota_usage(&key(id, "q//day"), &window).await.unwrap().remaining
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
async fn a_torn_record_is_cut_off_wherever_it_tore() {
    let place = Place::new();
    let store = place.open();
    let window = window(&store).await;
    grant(&store, 1, 1, window, 10).await;
    let before = store.size().journal_bytes;
    grant(&store, 1, 2, window, 10).await;
    let after = store.size().journal_bytes;
    assert!(before < after);
    let whole = fs::read(place.journal()).unwrap();
    for end in before..=after {
        let torn = place.killed();
        fs::write(torn.journal(), &whole[..end as usize]).unwrap();
        let again = torn.open();
        let expect = if end == after { 980 } else { 990 };
        assert_eq!(remaining(&again, 1, window).await, Some(expect), "cut at {end}");
        assert_eq!(grant(&again, 1, 3, window, 10).await, 10);
    }
}

#[tokio::test]
async fn an_unsynced_end_may_be_rubbish_and_a_synced_one_may_not() {
    let place = Place::new();
    let store = place.open();
    let window = window(&store).await;
    for id in 1..20 {
        grant(&store, id, 1, window, 10).await;
    }
    store.close().unwrap();
    let whole = fs::read(place.journal()).unwrap();
    for rubbish in [vec![0; 100], vec![255; 100], whole[64..200].to_vec()] {
        let killed = place.killed();
        fs::write(killed.journal(), [whole.clone(), rubbish].concat()).unwrap();
        assert_eq!(remaining(&killed.open(), 19, window).await, Some(990));
    }
    let damaged = place.killed();
    for at in (0..whole.len()).step_by(97).filter(|at| !(40..48).contains(at)) {
        let mut wrong = whole.clone();
        wrong[at] ^= 16;
        fs::write(damaged.journal(), wrong).unwrap();
        let open = damaged.try_open(EmbeddedOptions::default());
        assert!(matches!(open, Err(StoreError::Damaged { .. })), "byte {at}: {open:?}");
    }
    for end in [0, 30, 64, whole.len() / 2, whole.len() - 1] {
        fs::write(damaged.journal(), &whole[..end]).unwrap();
        let open = damaged.try_open(EmbeddedOptions::default());
        assert!(matches!(open, Err(StoreError::Damaged { .. })), "cut at {end}: {open:?}");
    }
}

/// Calls of one thread, on 32 counters of its own, until told to stop.
fn load(
    thread: u64,
    store: &EmbeddedStore,
    window: Window,
    stop: &AtomicBool,
    granted: &[AtomicU64],
) {
    let mut q = 0;
    while !stop.load(Ordering::SeqCst) {
        q += 1;
        let id = (q % 32) * 2 + thread;
        let cell = Cell { first_call: 1, last_call: q, ..Cell::default() };
        let (day, minute) = (key(id, "q//day"), key(id, "r/t/60000"));
        let state = block_on(ask(store, &day, window, call(thread, cell, HUGE, 1))).0;
        granted[id as usize].store(state.cell.granted, Ordering::SeqCst);
        block_on(store.rate(&RateReserve { key: minute, call: lease(thread, q, HUGE, 1) }))
            .unwrap();
    }
}

fn taken(store: &EmbeddedStore, id: usize, window: Window) -> u64 {
    HUGE - block_on(remaining(store, id as u64, window)).unwrap_or(HUGE)
}

/// Units of a rate that are free, without taking any.
fn free(store: &EmbeddedStore, id: usize) -> u64 {
    let call = RateCall { least: 2 * HUGE, ..lease(9, 1, HUGE, 0) };
    let reserve = RateReserve { key: key(id as u64, "r/t/60000"), call };
    block_on(store.rate(&reserve)).unwrap().free
}

/// Every grant that was answered before the files were copied is in the copy, while two threads
/// go on and the journal is made anew under them.
#[test]
fn compaction_under_load_loses_nothing() {
    let place = Place::new();
    let store = place.open();
    let (window, stop) = (block_on(window(&store)), AtomicBool::new(false));
    let granted: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (store, stop, granted) = (&store, &stop, &granted);
            scope.spawn(move || load(thread, store, window, stop, granted));
        }
        for round in 0..8 {
            store.compact().unwrap();
            let known: Vec<u64> = granted.iter().map(|n| n.load(Ordering::SeqCst)).collect();
            let killed = place.killed();
            let again = killed.open();
            for (id, known) in known.into_iter().enumerate() {
                let taken = taken(&again, id, window);
                assert!(known <= taken, "round {round}, counter {id}: {known}, but {taken} known");
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    store.compact().unwrap();
    let killed = place.killed();
    let again = killed.open();
    for (id, granted) in granted.iter().enumerate() {
        assert_eq!(taken(&again, id, window), granted.load(Ordering::SeqCst), "counter {id}");
        assert_eq!(free(&again, id), free(&store, id), "rate {id}");
    }
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
        let cell = Cell { first_call: 1, last_call: q, ..Cell::default() };
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
    place.clock.step_unix(window.end.unwrap().plus_ms(2 * HOUR_MS));
    store.sweep();
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
    place.clock.step_unix(window.end.unwrap().plus_ms(2 * HOUR_MS - 1));
    store.sweep();
    assert_eq!(store.size().quotas, 500);
    place.clock.step_unix(window.end.unwrap().plus_ms(2 * HOUR_MS));
    store.sweep();
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
        assert_eq!(usage.remaining, Some(1_000 - run * 10));
        assert_eq!(usage.held, 10 * run.min(16));
        assert_eq!(usage.used, 10 * run.saturating_sub(16));
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
