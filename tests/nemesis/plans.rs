//! Plans edited while requests are decided. A lowered limit holds once every gateway has
//! acknowledged it, within a second; until then they may spend what is in their hands.

use std::time::Duration;

use serde_json::json;

use crate::clients::{Ended, Load};
use crate::fleet::{Fleet, PATIENCE, quota, until};
use crate::verdict;

const LIMIT: u64 = 4_000;

fn load() -> Load {
    Load { pace: Duration::from_millis(10), ..Load::of("tok") }
}

#[test]
fn a_quota_raised_and_lowered_in_its_window_ends_at_the_last_limit_to_the_unit() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", quota(500, 3_600));
    let clients = fleet.load(&load());
    verdict::drain(&fleet, &clients, &[], 500, 500);
    fleet.edit_plan(1, &key, &json!({"Quota": LIMIT}));
    until("the raise is used", PATIENCE, || 1_000 < fleet.judge.count());
    for (through, limit) in [(2, LIMIT / 2), (0, LIMIT), (1, 3 * LIMIT / 4)] {
        let before = fleet.judge.count();
        fleet.edit_plan(through, &key, &json!({"Quota": limit}));
        until("requests arrive", PATIENCE, || before + 100 < fleet.judge.count());
    }
    verdict::drain(&fleet, &clients, &[], 3 * LIMIT / 4, 3 * LIMIT / 4);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}

#[test]
fn a_quota_lowered_below_what_was_used_admits_nothing_more_once_it_is_known() {
    let fleet = Fleet::start();
    let key = fleet.import("tok", quota(LIMIT, 3_600));
    let clients = fleet.load(&load());
    until("requests arrive", PATIENCE, || LIMIT / 4 < fleet.judge.count());
    fleet.edit_plan(1, &key, &json!({"Quota": LIMIT / 10}));
    let at_edit = fleet.judge.count();
    let since = clients.now();
    // Each gateway acknowledges by refusing; nothing but the hands of that moment, a twentieth of
    // the old limit each, may be spent before.
    until("every gateway refuses", Duration::from_secs(5), || {
        let tally = clients.tally(since);
        (0..fleet.gateways()).all(|n| tally.contains_key(&(n, Ended::Status(429))))
    });
    let known = fleet.judge.count();
    assert!(known <= at_edit + 3 * LIMIT / 20, "{at_edit} at the edit, {known} in the end");
    // In flight when the last of them refused.
    let most = known + 12;
    verdict::drain(&fleet, &clients, &[], known, most);
    verdict::requests(&fleet, &clients.stop());
    verdict::usage_is_exact(&fleet, 0, &key);
}
