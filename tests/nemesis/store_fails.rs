//! The store itself: stopped, restarted. What kept all writes loses and adds nothing.

use std::time::Duration;

use crate::clients::Load;
use crate::fleet::{Fleet, PATIENCE, lasting, quota, rate, until};
use crate::verdict;

const LIMIT: u64 = 4_000;

fn load() -> Load {
    Load { pace: Duration::from_millis(10), ..Load::of("tok") }
}

#[test]
fn a_quota_is_exact_through_restarts_of_a_store_that_keeps_every_write() {
    let mut fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    for _ in 0..2 {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 10 < fleet.judge.count());
        fleet.redis.restart();
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

/// One is told to stop when it has told the store what it held, and that does not take anything back
/// yet; the other while it is not connected again.
#[test]
fn gateways_that_stop_while_the_store_comes_back_hand_over_what_they_hold() {
    let mut fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    for n in 0..2 {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 10 < fleet.judge.count());
        fleet.redis.restart();
        if n == 0 {
            let told = || fleet.gateway(n).log().contains("telling the store");
            until("the store is told", PATIENCE, told);
        }
        fleet.stop_gateway(n);
        fleet.start_gateway(n);
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_quota_is_exact_when_the_store_stands_still() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    for ms in [150, 2_000] {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 10 < fleet.judge.count());
        fleet.redis.signal("-STOP");
        lasting(Duration::from_millis(ms));
        fleet.redis.signal("-CONT");
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_rate_is_never_exceeded_by_a_store_that_stands_still_or_restarts() {
    let mut fleet = Fleet::start();
    let key = fleet.import("tok", rate(300, 1));
    let clients = fleet.load(&Load::of("tok"));
    for ms in [150, 1_200] {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + 300 < fleet.judge.count());
        fleet.redis.signal("-STOP");
        lasting(Duration::from_millis(ms));
        fleet.redis.signal("-CONT");
    }
    for _ in 0..2 {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + 300 < fleet.judge.count());
        fleet.redis.restart();
    }
    let before = fleet.judge.count();
    until("requests arrive again", PATIENCE, || before + 300 < fleet.judge.count());
    verdict::requests(&fleet, &clients.stop());
    verdict::rate_holds(&fleet, &key, 300, Duration::from_secs(1));
}
