//! Gateways that die, stand still, stop in order. Nothing is admitted above a limit by any of it.
//! A crash loses at most 5 % of a quota, besides what was charged and had not left the gateway.

use std::time::Duration;

use crate::clients::Load;
use crate::fleet::{Fleet, PATIENCE, lasting, quota, rate, until};
use crate::verdict;

const LIMIT: u64 = 4_000;

#[test]
fn a_killed_gateway_wastes_at_most_a_twentieth_of_a_quota() {
    let mut fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let load = Load::of("tok");
    let clients = fleet.load(&load);
    until("a third arrived", PATIENCE, || LIMIT / 3 <= fleet.judge.count());
    fleet.kill_gateway(1);
    // Charged and not yet sent: one request on each connection at most.
    let lost = LIMIT / 20 + load.connections as u64;
    let admitted = verdict::drain(&fleet, &clients, &[1], LIMIT - lost, LIMIT);
    // A new process in its place finds nothing but what the others left.
    fleet.start_gateway(1);
    verdict::drain(&fleet, &clients, &[], admitted, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_covers(&fleet, 1, &key);
}

#[test]
fn a_gateway_that_stands_still_for_long_loses_nothing_and_adds_nothing() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let clients = fleet.load(&Load::of("tok"));
    until("a third arrived", PATIENCE, || LIMIT / 3 <= fleet.judge.count());
    fleet.gateway(1).signal("-STOP");
    lasting(Duration::from_secs(4));
    fleet.gateway(1).signal("-CONT");
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_rate_holds_while_gateways_stand_still_beyond_their_leases() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", rate(200, 1));
    let clients = fleet.load(&Load::of("tok"));
    for stopped in [0, 1] {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + 200 < fleet.judge.count());
        fleet.gateway(stopped).signal("-STOP");
        lasting(Duration::from_millis(1_500));
        fleet.gateway(stopped).signal("-CONT");
    }
    let before = fleet.judge.count();
    until("requests arrive again", PATIENCE, || before + 300 < fleet.judge.count());
    verdict::requests(&fleet, &clients.stop());
    verdict::rate_holds(&fleet, &key, 200, Duration::from_secs(1));
}

#[test]
fn gateways_restarted_in_turn_hand_back_what_they_hold_and_break_no_request() {
    let mut fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let load = Load { pace: Duration::from_millis(10), ..Load::of("tok") };
    let clients = fleet.load(&load);
    for n in 0..fleet.gateways() {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 20 < fleet.judge.count());
        fleet.stop_gateway(n);
        fleet.start_gateway(n);
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    let told = clients.stop();
    verdict::requests(&fleet, &told);
    assert_eq!(verdict::broken_and_arrived(&fleet, &told), 0, "each was answered");
    verdict::usage_is_exact(&fleet, 0, &key);
}
