//! A decision for a credential in memory, with units in hand, allocates nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]
#![allow(clippy::indexing_slicing, clippy::as_conversions, reason = "tests know their numbers")]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a part of the helpers is used")]
#![allow(unsafe_code, reason = "counting allocations means being the allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use serde_json::json;
use turnpike::enforce::Decision;

#[path = "it/gate.rs"]
mod gate;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the count is a thread's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[tokio::test]
async fn a_decision_from_units_in_hand_allocates_nothing() {
    let gate = gate::Gate::new().await;
    let plan = json!({"RateLimit": 1_000_000, "Per": 60, "Quota": 10_000_000,
                      "QuotaRenewalRate": 86_400});
    gate.simple(plan).await;
    // Some requests tell the pace; then a grant covers what follows.
    assert_eq!(gate.admitted("tok", "/a/x", 2_000).await, 2_000);
    let snapshot = gate.catalog.snapshot();
    let hit = snapshot.route(None, "/a/x").unwrap();
    let request = turnpike::domain::decision::Request {
        api: hit.value,
        method: "GET",
        path: "/a/x",
        rest: hit.rest,
        version: None,
    };
    let facts = turnpike::enforce::Facts {
        request,
        token: Some(b"tok"),
        client: "192.0.2.1".parse().unwrap(),
    };
    let unknown = turnpike::enforce::Facts { token: Some(b"nobody"), ..facts };
    assert!(matches!(gate.enforcer.decide(&unknown).await, Decision::Deny(_)));
    let (mut admitted, before) = (0, ALLOCATIONS.get());
    for _ in 0..500 {
        admitted += u32::from(matches!(gate.enforcer.decide(&facts).await, Decision::Admit(_)));
    }
    let hits = ALLOCATIONS.get() - before;
    assert_eq!(admitted, 500);
    assert_eq!(hits, 0, "{hits} allocations in 500 admitted decisions");
    let before = ALLOCATIONS.get();
    for _ in 0..40 {
        gate.enforcer.decide(&unknown).await;
    }
    let misses = ALLOCATIONS.get() - before;
    assert_eq!(misses, 0, "{misses} allocations in 40 refusals of an unknown token");
}
