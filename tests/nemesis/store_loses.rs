//! A store that has lost writes. While all holders tell it what they hold: nothing above a limit,
//! nothing lost. What a gateway held that cannot tell any more is the one thing that is admitted
//! again, and only what it was granted after the newest copy that another gateway has seen.

use std::time::Duration;

use crate::clients::{Ended, Load};
use crate::fleet::{Fleet, Key, PATIENCE, lasting, quota, rate, until};
use crate::redis_server::RedisServer;
use crate::verdict;

const LIMIT: u64 = 4_000;

fn load() -> Load {
    Load { pace: Duration::from_millis(10), ..Load::of("tok") }
}

/// A fleet over a store that writes to disk when it is told to, with a token that was not used yet
/// and that the disk has.
fn forgetful(plan: serde_json::Value) -> (Fleet, Key) {
    let fleet = Fleet::over(RedisServer::start(), 3);
    let key = fleet.import("tok", plan);
    assert_eq!(fleet.redis.command(&["SAVE"]), "OK");
    (fleet, key)
}

#[test]
fn a_quota_is_exact_through_restarts_of_a_store_that_keeps_no_counter() {
    let (mut fleet, key) = forgetful(quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    for _ in 0..2 {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 8 < fleet.judge.count());
        fleet.redis.restart();
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_quota_is_exact_when_the_store_comes_back_as_it_was_before() {
    let (mut fleet, key) = forgetful(quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    until("requests arrive", PATIENCE, || LIMIT / 8 < fleet.judge.count());
    assert_eq!(fleet.redis.command(&["SAVE"]), "OK");
    until("more requests arrive", PATIENCE, || LIMIT / 2 < fleet.judge.count());
    fleet.redis.restart();
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

/// The same server goes on, and only the counters are gone: no connection breaks, no run id changes.
#[test]
fn a_quota_is_exact_when_somebody_deletes_all_counters() {
    let (fleet, key) = forgetful(quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    for _ in 0..2 {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + LIMIT / 8 < fleet.judge.count());
        let script = "for _, key in ipairs(redis.call('KEYS', 'tp:{s*')) do \
                      redis.call('DEL', key) end return 1";
        assert_eq!(fleet.redis.command(&["EVAL", script, "0"]), "1");
    }
    verdict::drain(&fleet, &clients, &[], LIMIT, LIMIT);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_used_up_quota_stays_so_when_the_store_forgets_it() {
    let (mut fleet, key) = forgetful(quota(LIMIT / 4, 3_600));
    let clients = fleet.load(&Load::of("tok"));
    verdict::drain(&fleet, &clients, &[], LIMIT / 4, LIMIT / 4);
    verdict::usage_is_exact(&fleet, 0, &key);
    fleet.redis.restart();
    // Longer than a store learns while nobody is missing.
    lasting(Duration::from_secs(3));
    verdict::drain(&fleet, &clients, &[], LIMIT / 4, LIMIT / 4);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_gateway_that_crashed_with_the_store_is_all_that_is_admitted_again() {
    let (mut fleet, key) = forgetful(quota(LIMIT, 3_600));
    let load = load();
    let clients = fleet.load(&load);
    until("a third arrived", PATIENCE, || LIMIT / 3 < fleet.judge.count());
    fleet.kill_gateway(1);
    fleet.redis.restart();
    // Granted to it since the newest copy that another has: those ask many times a second, so
    // this is its last grants, of 5 % each at most. Lost is what a crash loses.
    let lost = LIMIT / 20 + load.connections as u64;
    let admitted = verdict::drain(&fleet, &clients, &[1], LIMIT - lost, LIMIT + LIMIT / 10);
    println!("{admitted} of {LIMIT} admitted");
    fleet.start_gateway(1);
    verdict::drain(&fleet, &clients, &[], admitted, LIMIT + LIMIT / 10);
    verdict::requests(&fleet, &clients.stop());
    verdict::settled_usage(&fleet, 0, &key);
}

#[test]
fn a_rate_is_never_exceeded_by_a_store_that_forgets() {
    let (mut fleet, key) = forgetful(rate(300, 1));
    let clients = fleet.load(&Load::of("tok"));
    for _ in 0..3 {
        let before = fleet.judge.count();
        until("requests arrive", PATIENCE, || before + 400 < fleet.judge.count());
        fleet.redis.restart();
    }
    let before = fleet.judge.count();
    until("requests arrive again", PATIENCE, || before + 300 < fleet.judge.count());
    verdict::requests(&fleet, &clients.stop());
    verdict::rate_holds(&fleet, &key, 300, Duration::from_secs(1));
}

/// A window of minutes is not waited for in blindness: gateways tell what they spent of it.
#[test]
fn a_long_rate_is_exact_and_goes_on_when_the_store_forgets() {
    const RATE: u64 = 900;
    let (mut fleet, key) = forgetful(rate(RATE, 120));
    let clients = fleet.load(&load());
    for part in [3, 2] {
        until("a part is used", PATIENCE, || RATE / part <= fleet.judge.count());
        fleet.redis.restart();
    }
    until("the rate is used up", PATIENCE, || RATE * 97 / 100 <= fleet.judge.count());
    let since = clients.now();
    until("every gateway refuses", PATIENCE, || {
        let tally = clients.tally(since);
        (0..fleet.gateways())
            .all(|n| tally.get(&(n, Ended::Status(429))).is_some_and(|count| 20 < *count))
    });
    verdict::requests(&fleet, &clients.stop());
    verdict::rate_holds(&fleet, &key, RATE as usize, Duration::from_secs(120));
}

/// Records go with the counters: nobody is let in by what is remembered of them.
#[test]
fn a_store_that_was_emptied_opens_nothing() {
    let (fleet, _key) = forgetful(quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    until("requests arrive", PATIENCE, || LIMIT / 8 < fleet.judge.count());
    assert_eq!(fleet.redis.command(&["FLUSHALL"]), "OK");
    let since = clients.now();
    until("every gateway refuses", PATIENCE, || {
        let tally = clients.tally(since);
        let refused = |n, status| tally.get(&(n, Ended::Status(status))).copied().unwrap_or(0);
        (0..fleet.gateways()).all(|n| 20 < refused(n, 403) + refused(n, 429) + refused(n, 503))
    });
    assert!(fleet.judge.count() <= LIMIT);
}
