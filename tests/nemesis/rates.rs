//! Rates over several gateways when nothing fails: never above, and not far below.

use std::time::Duration;

use crate::clients::Load;
use crate::fleet::{Fleet, Key, PATIENCE, rate, until};
use crate::verdict;

/// Keeps a rate saturated for some windows; how much of it was admitted, in per cent: the time that
/// so many windows' requests should take, over the time they took. The first window, which begins
/// with an empty log, is left out.
pub fn saturated(fleet: &Fleet, key: &Key, requests: usize, per_s: u64, windows: usize) -> f64 {
    let per = Duration::from_secs(per_s);
    // Refused clients come back every 5 ms: several times as many as can be admitted.
    let clients = fleet.load(&Load { connections: 6, ..Load::of(&key.token) });
    let (first, last) = (requests, requests * (windows + 1));
    let patience = per * windows as u32 * 2 + PATIENCE;
    until("so many windows pass", patience, || last < fleet.judge.count() as usize);
    verdict::requests(fleet, &clients.stop());
    let in_time = verdict::rate_holds(fleet, key, requests, per);
    let admitted = verdict::admitted(fleet, key);
    let took_us = admitted[last].charged_us - admitted[first].charged_us;
    let share = 100.0 * (per.as_micros() as f64) * windows as f64 / took_us as f64;
    println!(
        "rate {requests} per {per_s} s, {} gateways: {share:.2} % of it over {windows} windows, \
         {:.1} % arrived within the guard",
        fleet.gateways(),
        100.0 * in_time
    );
    share
}

#[test]
fn three_gateways_get_most_of_a_saturated_rate_and_never_more() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", rate(500, 2));
    let share = saturated(&fleet, &key, 500, 2, 3);
    // What it is on a quiet machine is asserted by the soak; this one may be shared.
    assert!(90.0 <= share, "{share} %");
}

#[test]
fn a_low_rate_is_exact_over_gateways() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", rate(10, 1));
    let share = saturated(&fleet, &key, 10, 1, 4);
    assert!(80.0 <= share, "{share} %");
}
