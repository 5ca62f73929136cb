//! The lease protocol, walked through exhaustively at small sizes.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test target"
)]

/// What may happen, and how often.
#[path = "model/faults.rs"]
mod faults;
/// Random histories of `local` mode, which an exhaustive walk cannot hold.
#[path = "model/settle.rs"]
mod settle;
/// The steps of a run and the properties of its worlds.
#[path = "model/walk.rs"]
mod walk;
/// A store, gateways and a network, on the real rules.
#[path = "model/world.rs"]
mod world;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::faults::Faults;
use crate::walk::{Walk, free, live, never_gone, over, priced, safe, whole};

/// More worlds than this are too many for a test that everybody runs.
const WORLDS_MAX: usize = 600_000;

/// Walks through every run and reports how many worlds there were.
#[track_caller]
fn check(name: &str, faults: Faults, properties: fn() -> Vec<Property<Walk>>) {
    let started = Instant::now();
    let full = std::env::var_os("TURNPIKE_MODEL_FULL").is_some();
    let faults = Faults { calls: faults.calls + u8::from(full), ..faults };
    let worlds_max = if full { usize::MAX } else { WORLDS_MAX };
    let walk = Walk { faults, properties };
    let failed = HasDiscoveries::AnyFailures;
    let checker = walk
        .checker()
        .threads(2)
        .finish_when(failed)
        .target_state_count(worlds_max)
        .spawn_dfs()
        .join();
    let (worlds, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {worlds} worlds, depth {depth}, {:.1?}", started.elapsed());
    assert!(worlds < worlds_max, "{name}: not exhausted");
    checker.assert_properties();
}

const CALM: fn() -> Vec<Property<Walk>> = || vec![safe(), free(), live(), never_gone(), whole()];

#[test]
fn lost_repeated_and_late_messages_cost_nothing() {
    let faults = Faults { calls: 4, repeats: 2, timeouts: 2, returns: 1, ..Faults::NONE };
    check("network", faults, CALM);
}

#[test]
fn three_gateways_share_a_limit() {
    let faults = Faults { gateways: 3, calls: 4, returns: 1, ..Faults::NONE };
    check("three", faults, CALM);
}

#[test]
fn crashed_gateways_and_forgotten_hands_never_admit_twice() {
    let faults = Faults { calls: 4, crashes: 1, forgets: 2, repeats: 1, ..Faults::NONE };
    check("crash", faults, CALM);
}

#[test]
fn a_lowered_limit_holds_but_for_what_was_in_hand() {
    let faults = Faults { limits: (3, Some(1)), calls: 4, repeats: 1, ..Faults::NONE };
    check("lowered", faults, || vec![safe(), live(), never_gone(), whole()]);
}

#[test]
fn a_raised_limit_can_be_used_up() {
    let faults = Faults { limits: (1, Some(3)), calls: 4, repeats: 1, ..Faults::NONE };
    check("raised", faults, || vec![safe(), live(), never_gone(), whole()]);
}

/// A store that loses writes: one unit a request, answers to asserts arrive at once.
const LOSS: Faults =
    Faults { limits: (2, None), need_max: 1, calls: 6, prompt: true, ..Faults::NONE };

const IN_TIME: fn() -> Vec<Property<Walk>> = || vec![safe(), free(), never_gone(), whole()];

const PRICED: fn() -> Vec<Property<Walk>> = || vec![safe(), priced(), never_gone(), over()];

#[test]
fn lost_writes_cost_nothing_when_all_assert_in_time() {
    check("restart", Faults { restarts: 1, syncs: 1, ..LOSS }, IN_TIME);
}

#[test]
fn a_flush_costs_nothing_when_all_assert_in_time() {
    check("flush", Faults { flushes: 1, repeats: 1, calls: 5, ..LOSS }, IN_TIME);
}

#[test]
fn a_forgotten_hand_is_asserted_by_its_copy() {
    check("forgotten", Faults { flushes: 1, forgets: 1, ..LOSS }, IN_TIME);
}

#[test]
fn a_crashed_holder_costs_what_it_was_granted_since_the_newest_copy() {
    check("crashed", Faults { restarts: 1, syncs: 1, crashes: 1, calls: 5, ..LOSS }, PRICED);
}

#[test]
fn a_late_holder_costs_what_it_was_granted_since_the_newest_copy() {
    check("late", Faults { flushes: 1, late: true, ..LOSS }, PRICED);
}

#[test]
fn a_dropped_copy_costs_what_only_it_showed() {
    check("dropped", Faults { flushes: 1, forgets: 1, drops: 1, calls: 5, ..LOSS }, PRICED);
}
