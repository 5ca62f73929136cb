//! What must hold whatever happened, judged by arrivals upstream and the instants of charging.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::time::BootNs;

use crate::clients::{Clients, Ended, Told};
use crate::fleet::{Fleet, Key, PATIENCE, Usage, until};

/// A gateway refuses for good when it has refused so many requests in a row.
const REFUSALS: u64 = 20;

/// One admitted request: when it was charged, and when it arrived, in microseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admitted {
    pub charged_us: u64,
    pub number: u64,
}

/// Goes on until `least` requests have arrived, and then until all gateways but `without` have
/// refused many times over; nothing more may arrive than `most`.
#[track_caller]
pub fn drain(fleet: &Fleet, clients: &Clients, without: &[usize], least: u64, most: u64) -> u64 {
    until(&format!("{least} of {most} admitted"), PATIENCE, || least <= fleet.judge.count());
    let since = SystemClock.boot();
    until("all gateways refuse", PATIENCE, || {
        let tally = clients.tally(since);
        let refused = |n: usize| *tally.get(&(n, Ended::Status(429))).unwrap_or(&0);
        (0..fleet.gateways()).filter(|n| !without.contains(n)).all(|n| REFUSALS <= refused(n))
    });
    let count = fleet.judge.count();
    assert!(count <= most, "{count} arrived, {most} are allowed");
    count
}

/// Every request arrived at most once; the refused ones never; those answered with 200 did.
#[track_caller]
pub fn requests(fleet: &Fleet, told: &[Told]) {
    let mut arrived = BTreeMap::new();
    for arrival in fleet.judge.arrivals() {
        *arrived.entry(arrival.number).or_insert(0) += 1;
    }
    let twice: Vec<_> = arrived.iter().filter(|(_, times)| 1 < **times).collect();
    assert!(twice.is_empty(), "arrived more than once: {twice:?}");
    for told in told {
        let arrived = arrived.contains_key(&told.number);
        match told.ended {
            Ended::Status(200) => assert!(arrived, "{told:?} did not arrive"),
            Ended::Status(429 | 503) => assert!(!arrived, "{told:?} arrived"),
            // With a broken connection either is possible.
            Ended::Broken => {}
            Ended::Status(_) => panic!("{told:?}"),
        }
    }
}

/// Requests whose connection broke and that arrived all the same.
pub fn broken_and_arrived(fleet: &Fleet, told: &[Told]) -> usize {
    let arrived: BTreeSet<u64> = fleet.judge.arrivals().iter().map(|a| a.number).collect();
    let broken = told.iter().filter(|told| told.ended == Ended::Broken);
    broken.filter(|told| arrived.contains(&told.number)).count()
}

/// The usage report comes to say that all who live have reported, and returned what they held.
#[track_caller]
pub fn settled_usage(fleet: &Fleet, through: usize, key: &Key) -> Usage {
    let began = SystemClock.boot();
    loop {
        let said = fleet.usage(through, key);
        if let Some(usage) = said.filter(|usage| usage.held == 0 && usage.reported == usage.used) {
            return usage;
        }
        let waited = Duration::from_nanos(SystemClock.boot().since_ns(began));
        assert!(waited < PATIENCE, "gateways do not report what they spent: {said:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Nobody crashed: the usage report says what arrived, and nothing is lost.
#[track_caller]
pub fn usage_is_exact(fleet: &Fleet, through: usize, key: &Key) {
    let usage = settled_usage(fleet, through, key);
    let arrived = fleet.judge.count_of(key.credential);
    assert_eq!((usage.reported, usage.lost), (arrived, 0), "{usage:?}, {arrived} arrived");
}

/// Somebody crashed: what arrived lies between what is reported and that plus what is lost.
#[track_caller]
pub fn usage_covers(fleet: &Fleet, through: usize, key: &Key) {
    let usage = settled_usage(fleet, through, key);
    let arrived = fleet.judge.count_of(key.credential);
    let covered = usage.reported <= arrived && arrived <= usage.reported + usage.lost;
    assert!(covered, "{usage:?}, {arrived} arrived");
}

/// When each admitted request of a credential was charged, by the access logs. Everything that
/// arrived is in them, once they are written: a gateway that was killed must not have been used.
#[track_caller]
pub fn admitted(fleet: &Fleet, key: &Key) -> Vec<Admitted> {
    let arrived = fleet.judge.count_of(key.credential);
    let mut all = Vec::new();
    until("the access logs are written", PATIENCE, || {
        all = logged(fleet, key);
        arrived <= all.len() as u64
    });
    all.sort_unstable();
    all
}

fn logged(fleet: &Fleet, key: &Key) -> Vec<Admitted> {
    let lines = fleet.access_lines().into_iter();
    let lines = lines.filter(|line| line["credential"].as_u64() == Some(key.credential));
    let admitted = lines.filter_map(|line| {
        let number = line["path"].as_str()?.rsplit('/').next()?.parse().ok()?;
        Some(Admitted { charged_us: line["charged_us"].as_u64()?, number })
    });
    admitted.collect()
}

/// When requests of a credential were charged, as far as access logs tell: also where a gateway was
/// killed, whose last lines are lost.
pub fn charged(fleet: &Fleet, key: &Key) -> Vec<u64> {
    let mut charged: Vec<u64> = logged(fleet, key).iter().map(|one| one.charged_us).collect();
    charged.sort_unstable();
    charged
}

/// The most requests in any window of `per`: half-open windows that begin with a request are enough.
pub fn most_in_any(times_us: &[u64], per: Duration) -> usize {
    debug_assert!(times_us.is_sorted());
    let per_us = per.as_micros() as u64;
    let end = |from: u64| times_us.partition_point(|at| *at < from + per_us);
    times_us.iter().enumerate().map(|(n, from)| end(*from) - n).max().unwrap_or(0)
}

/// In any window of `per` at most `rate` requests are charged, over all gateways and to the
/// microsecond; and by arrival, of those that were on the way for less than the guard. Says the
/// share of those.
#[track_caller]
pub fn rate_holds(fleet: &Fleet, key: &Key, rate: usize, per: Duration) -> f64 {
    let admitted = admitted(fleet, key);
    let charged: Vec<u64> = admitted.iter().map(|one| one.charged_us).collect();
    let most = most_in_any(&charged, per);
    assert!(most <= rate, "{most} charged within {per:?}, the rate is {rate}");
    // design.md: guard is max(5 ms, per / 1000); a millisecond of it covers rounding.
    let guard_us = (per.as_micros() as u64 / 1_000).max(5_000) - 1_000;
    let charged_of: BTreeMap<u64, u64> =
        admitted.iter().map(|one| (one.number, one.charged_us)).collect();
    let arrivals = fleet.judge.arrivals();
    let arrivals = arrivals.iter().filter(|arrival| arrival.credential == key.credential);
    let mut in_time = Vec::new();
    let mut all = 0;
    for arrival in arrivals {
        let at_us = micros(arrival.at);
        let charged_us = charged_of.get(&arrival.number).copied();
        let charged_us = charged_us.expect("what arrived was charged and logged");
        all += 1;
        if at_us < charged_us + guard_us {
            in_time.push(at_us);
        }
    }
    in_time.sort_unstable();
    let most = most_in_any(&in_time, per);
    assert!(most <= rate, "{most} arrived within {per:?}, the rate is {rate}");
    in_time.len() as f64 / f64::from(all.max(1))
}

/// Microseconds since boot.
pub fn micros(at: BootNs) -> u64 {
    at.0 / 1_000
}

#[test]
fn a_sliding_window_is_half_open() {
    assert_eq!(most_in_any(&[], Duration::from_micros(10)), 0);
    assert_eq!(most_in_any(&[0, 5, 9, 10, 15], Duration::from_micros(10)), 3);
    assert_eq!(most_in_any(&[0, 10, 20], Duration::from_micros(10)), 1);
    assert_eq!(most_in_any(&[7, 7, 7], Duration::from_micros(1)), 3);
}
