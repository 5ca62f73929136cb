//! Windows that end under load, and gateways whose wall clock is wrong: the store's clock counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use turnpike::clock::{Clock, SystemClock};

use crate::clients::Load;
use crate::fleet::{Fleet, Key, PATIENCE, lasting, quota, rate, until};
use crate::verdict;

const LIMIT: u64 = 300;
const PERIOD_S: u64 = 2;

/// A gateway's wall clock that a test moves.
struct Skew {
    file: PathBuf,
}

impl Skew {
    /// From its next start on, the gateway's clock is wrong by what [`Self::set`] says.
    fn of(fleet: &mut Fleet, gateway: usize) -> Self {
        let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten();
        let library = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = library.filter(|path| path.exists()).last();
        let library = library.expect("libfaketime is there: `make setup` installs it");
        let file = fleet.folder(gateway).join("faketime");
        let pairs = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_CACHE_DURATION", "1"),
            // Deadlines and pauses are not what is wrong with a skewed machine.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        fleet.set_environment(gateway, pairs.to_vec());
        Self { file }
    }

    fn set(&self, offset: &str) {
        // Moved into place: the file is never seen half written.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }
}

/// What the wall clock of this machine, by which the store counts, is ahead of the time since boot,
/// in microseconds.
fn unix_ahead_us() -> u64 {
    let start = SystemClock.unix();
    loop {
        let now = SystemClock.unix();
        if start < now {
            return now.0 * 1_000 - verdict::micros(SystemClock.boot());
        }
    }
}

/// Requests charged in each window, by the instants of charging.
fn per_window(fleet: &Fleet, key: &Key) -> BTreeMap<u64, u64> {
    let usage = verdict::settled_usage(fleet, 0, key);
    let period_us = PERIOD_S * 1_000_000;
    // Windows tile the time: any of them says where the others lie.
    let phase_us = usage.window_start_ms * 1_000 % period_us;
    let ahead_us = unix_ahead_us();
    let mut windows = BTreeMap::new();
    for admitted in verdict::admitted(fleet, key) {
        let window = (admitted.charged_us + ahead_us - phase_us) / period_us;
        *windows.entry(window).or_insert(0) += 1;
    }
    windows
}

/// No window has more than the limit, and those with all their time under load have all of it.
fn every_window_is_used_up(windows: &BTreeMap<u64, u64>) {
    println!("per window: {windows:?}");
    assert!(windows.values().all(|count| *count <= LIMIT), "{windows:?}");
    let (first, last) = (windows.keys().next().unwrap(), windows.keys().next_back().unwrap());
    let whole = windows.iter().filter(|(n, _)| *n != first && *n != last);
    let short: Vec<_> = whole.clone().filter(|(_, count)| **count < LIMIT).collect();
    assert!(2 <= whole.count() && short.is_empty(), "{windows:?}");
}

#[test]
fn windows_that_end_under_load_are_used_to_the_unit_and_not_beyond() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, PERIOD_S));
    let clients = fleet.load(&Load::of("tok"));
    until("four windows are used", PATIENCE, || 4 * LIMIT <= fleet.judge.count());
    verdict::requests(&fleet, &clients.stop());
    every_window_is_used_up(&per_window(&fleet, &key));
}

#[test]
fn gateways_whose_clocks_are_wrong_and_step_count_by_the_stores() {
    let mut fleet = Fleet::start();
    let skews = [1, 2].map(|n| (n, Skew::of(&mut fleet, n)));
    for ((n, skew), offset) in skews.iter().zip(["+2", "-75"]) {
        skew.set(offset);
        fleet.stop_gateway(*n);
        fleet.start_gateway(*n);
    }
    let ahead = fleet.gateway_clock_ms(1).abs_diff(SystemClock.unix().0);
    assert!(1_000 < ahead, "the clock is wrong by {ahead} ms: the skew is in force");
    let key = fleet.import("tok", quota(LIMIT, PERIOD_S));
    let other = fleet.import("rated", rate(300, 1));
    let clients = fleet.load(&Load::of("tok"));
    let rated = fleet.load(&Load { connections: 2, ..Load::of("rated") });
    for offsets in [["-3", "+1"], ["+3600", "+0"], ["-1", "-86400"]] {
        lasting(Duration::from_millis(1_700));
        for ((_, skew), offset) in skews.iter().zip(offsets) {
            skew.set(offset);
        }
    }
    until("windows are used", PATIENCE, || 4 * LIMIT <= fleet.judge.count_of(key.credential));
    let mut told = clients.stop();
    told.extend(rated.stop());
    verdict::requests(&fleet, &told);
    every_window_is_used_up(&per_window(&fleet, &key));
    verdict::rate_holds(&fleet, &other, 300, Duration::from_secs(1));
}
