//! The network between gateways and their store: cut, slow, held up, and answers that are lost
//! after their calls ran. By the table: nothing above the limit, and nothing lost.

use std::time::Duration;

use crate::clients::Load;
use crate::fault_proxy::Fault;
use crate::fleet::{Fleet, PATIENCE, lasting, quota, rate, until};
use crate::verdict;

const LIMIT: u64 = 4_000;

/// Slow enough that a quota lasts through a few faults.
fn load() -> Load {
    Load { pace: Duration::from_millis(10), ..Load::of("tok") }
}

/// Lets requests arrive, then a fault come and go, again and again; at the end the quota is used up
/// to its last unit, and the report says so.
fn a_quota_through(faults: &[(Fault, Duration)], who: impl Fn(usize) -> Vec<usize>) {
    let fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    for (n, (fault, span)) in faults.iter().enumerate() {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 20 < fleet.judge.count());
        for gateway in who(n) {
            fleet.proxy(gateway).set(*fault);
        }
        lasting(*span);
        fleet.fault(Fault::None);
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_quota_is_exact_through_cut_connections() {
    let faults = [Fault::Cut; 4].map(|fault| (fault, Duration::from_millis(300)));
    // All of them, then each alone.
    a_quota_through(&faults, |n| if n == 0 { vec![0, 1, 2] } else { vec![n - 1] });
}

#[test]
fn a_quota_is_exact_through_a_slow_network() {
    // Below and above the 100 ms that a call waits.
    let faults = [40, 90, 150, 400]
        .map(|ms| (Fault::Delay(Duration::from_millis(ms)), Duration::from_millis(500)));
    a_quota_through(&faults, |_| vec![0, 1, 2]);
}

#[test]
fn a_quota_is_exact_when_held_up_calls_and_answers_arrive_late() {
    let faults = [150, 500, 1_200].map(|ms| (Fault::Stall, Duration::from_millis(ms)));
    a_quota_through(&faults, |_| vec![0, 1, 2]);
}

/// Connections stay open: what comes after the lost answers must not be taken for them.
#[test]
fn a_quota_is_exact_when_answers_are_lost_after_their_calls_ran() {
    let faults = [20, 50, 100, 300, 1_000].map(|ms| (Fault::Swallow, Duration::from_millis(ms)));
    a_quota_through(&faults, |n| if n % 2 == 0 { vec![0, 1, 2] } else { vec![n % 3] });
}

/// What the lost answers granted comes to light with the answer to a stop's last call.
#[test]
fn gateways_that_stop_after_lost_answers_hand_back_what_they_were_granted() {
    let mut fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    for n in 0..fleet.gateways() {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 20 < fleet.judge.count());
        fleet.proxy(n).set(Fault::Swallow);
        lasting(Duration::from_millis(300));
        fleet.proxy(n).set(Fault::None);
        fleet.stop_gateway(n);
        fleet.start_gateway(n);
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_rate_is_never_exceeded_by_what_the_network_does() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", rate(300, 1));
    let clients = fleet.load(&Load::of("tok"));
    let ms = Duration::from_millis;
    let faults =
        [Fault::Cut, Fault::Delay(ms(40)), Fault::Delay(ms(150)), Fault::Stall, Fault::Swallow];
    for (n, fault) in faults.into_iter().enumerate() {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + 150 < fleet.judge.count());
        fleet.proxy(n % 3).set(fault);
        lasting(ms(300));
        fleet.fault(fault);
        lasting(ms(300));
        fleet.fault(Fault::None);
    }
    let before = fleet.judge.count();
    until("requests arrive again", PATIENCE, || before + 300 < fleet.judge.count());
    verdict::requests(&fleet, &clients.stop());
    verdict::rate_holds(&fleet, &key, 300, ms(1_000));
}
