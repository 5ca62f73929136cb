//! What a crash leaves behind, and that the embedded store goes on from it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use turnpike::domain::counter::Window;
use turnpike::domain::lease::Cell;
use turnpike::domain::ratelog::{Close, RateCall};
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedStore};
use turnpike::store::{CounterStore, RateReserve, StoreError};

use super::embedded::{HUGE, Place, grant, remaining};
use super::random::block_on;
use super::{ask, call, key, lease, window};

#[tokio::test]
async fn a_torn_record_is_cut_off_wherever_it_tore() {
    let place = Place::new();
    let store = place.open_unsynced();
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
async fn nothing_behind_a_gap_is_believed() {
    let place = Place::new();
    let store = place.open_unsynced();
    let (window, first) = (window(&store).await, store.size().journal_bytes as usize);
    grant(&store, 1, 1, window, 10).await;
    let second = store.size().journal_bytes as usize;
    grant(&store, 2, 1, window, 10).await;
    let (gap, whole) = (place.killed(), fs::read(place.journal()).unwrap());
    fs::write(gap.journal(), [&whole[..first], &whole[second..]].concat()).unwrap();
    assert_eq!(remaining(&gap.open(), 2, window).await, None);
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

/// Calls of one thread, on 32 counters of its own, until told to stop. Each closes the lease
/// before.
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
        let id = (q % 32) * 2 + thread % 2;
        let cell = Cell { first_call: 1, last_call: q, ..Cell::default() };
        let (day, minute) = (key(id, "q//day"), key(id, "r/t/60000"));
        let state = block_on(ask(store, &day, window, call(thread, cell, HUGE, 1))).0;
        granted[id as usize].store(state.cell.granted, Ordering::SeqCst);
        let closes = vec![Close { q: q.saturating_sub(32), spent: 1, age_ms: 0 }];
        let call = RateCall { closes, ..lease(thread, q, HUGE, 1) };
        block_on(store.rate(&RateReserve { key: minute, call })).unwrap();
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

/// Tells the threads to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Every grant that was answered before the files were copied is in the copy, while two threads
/// go on and the journal is made anew under them; and what is in the files when they stop is
/// exactly what the store knows.
#[test]
fn compaction_under_load_loses_nothing() {
    let place = Place::new();
    let store = place.open();
    let window = block_on(window(&store));
    for round in 0..8 {
        let stop = AtomicBool::new(false);
        let granted: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            let stop = Stop(&stop);
            for thread in 0..2 {
                let (store, stop, granted) = (&store, stop.0, &granted);
                scope.spawn(move || load(round * 2 + thread, store, window, stop, granted));
            }
            for _ in 0..4 {
                store.compact().unwrap();
            }
            let known: Vec<u64> = granted.iter().map(|n| n.load(Ordering::SeqCst)).collect();
            let killed = place.killed();
            let again = killed.open();
            for (id, known) in known.into_iter().enumerate() {
                let taken = taken(&again, id, window);
                assert!(known <= taken, "round {round}, counter {id}: {known}, but {taken} known");
            }
            for _ in 0..4 {
                store.compact().unwrap();
            }
        });
        let killed = place.killed();
        let again = killed.open();
        for id in 0..64 {
            assert_eq!(taken(&again, id, window), taken(&store, id, window), "counter {id}");
            assert_eq!(free(&again, id), free(&store, id), "rate {id}");
        }
    }
}
