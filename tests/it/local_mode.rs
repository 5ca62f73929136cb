//! While Redis is away: hands, then shares, and the settlement when it is back. The gateways have
//! no sockets; Redis is real.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use turnpike::clock::ManualClock;
use turnpike::domain::counter::ProcessId;
use turnpike::domain::denial::Denial;
use turnpike::domain::policy::FailureMode;
use turnpike::domain::time::UnixMs;
use turnpike::enforce::Decision;
use turnpike::store::AnyStore;
use turnpike::store::redis::RedisOptions;

use crate::gate::Gate;
use crate::redis_server::RedisServer;

const LONG: Duration = Duration::from_secs(30);

/// One more gateway on a server, with a folder of its own.
async fn gate(server: &RedisServer, folder: &Arc<tempfile::TempDir>, process: u64) -> Gate {
    let options = RedisOptions { timeout_ms: 250, ..RedisOptions::default() };
    let store = server.try_connect(options).await.unwrap();
    let clock = Arc::new(ManualClock::at(UnixMs(1_770_000_000_000)));
    let gate = Gate::on(AnyStore::Redis(store), Arc::clone(folder), clock, process).await;
    gate.enforcer.keep_shares(folder.path()).unwrap();
    gate
}

fn folders() -> [Arc<tempfile::TempDir>; 3] {
    [(); 3].map(|()| Arc::new(tempfile::tempdir().unwrap()))
}

/// Three gateways that know of each other, and of a plan with the token `tok`; and its credential.
async fn three(
    server: &RedisServer,
    folders: &[Arc<tempfile::TempDir>; 3],
    plan: Value,
) -> ([Gate; 3], u64) {
    let first = gate(server, &folders[0], 1).await;
    let (_, _, credential) = first.simple(plan).await;
    let gates = [first, gate(server, &folders[1], 2).await, gate(server, &folders[2], 3).await];
    for gate in &gates {
        gate.enforcer.keep_up().await;
        gate.enforcer.see_live([1, 2, 3].map(ProcessId).into());
    }
    (gates, credential)
}

/// A quota that never renews: no clock has a say in its window.
fn quota(units: u64, away: &str) -> Value {
    json!({"UnlimitedRateLimit": true, "Quota": units, "OnStoreUnavailable": away})
}

/// Requests until one is refused; how many were admitted, and why that one was not.
async fn until_refused(gate: &Gate) -> (u64, Denial) {
    for admitted in 0..100_000 {
        if let Some(denial) = gate.denial("tok", "/a/x").await {
            return (admitted, denial);
        }
    }
    panic!("no end");
}

async fn units(gate: &Gate, credential: u64) -> (u64, u64, u64) {
    let path = format!("/v1/usage/credentials/{credential}");
    let (status, answer) = gate.request("GET", &path, json!(null)).await;
    assert!(status.is_success(), "{answer}");
    let number = |name: &str| answer["limits"][0][name].as_u64().unwrap();
    (number("used"), number("held"), number("lost"))
}

fn metric(gate: &Gate, line: &str) -> u64 {
    let text = String::from_utf8(gate.metrics.render().unwrap()).unwrap();
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Waits until a gateway's calls are answered again; how many requests it admitted meanwhile.
async fn until_back(gate: &Gate) -> u64 {
    let back = async {
        let mut admitted = 0;
        loop {
            gate.enforcer.keep_up().await;
            let probe = gate.decide("tok", "GET", "/a/x").await;
            match probe {
                Decision::Admit(permit) if permit.away().is_none() => return admitted + 1,
                Decision::Deny(refusal) if refusal.denial != Denial::StoreUnavailable => {
                    return admitted;
                }
                Decision::Admit(_) => admitted += 1,
                Decision::Deny(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, back).await.expect("redis is used again")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_admit_their_shares_and_settle_them() {
    const LIMIT: u64 = 1_000;
    let server = RedisServer::durable();
    let folders = folders();
    let (gates, credential) = three(&server, &folders, quota(LIMIT, "local")).await;
    let mut admitted = 0;
    for gate in &gates {
        admitted += u64::try_from(gate.admitted("tok", "/a/x", 100).await).unwrap();
    }
    assert_eq!(admitted, 300);
    let (_, held, _) = units(&gates[0], credential).await;
    // What the first to ask saw remain is the most that anybody did: the bound of `local`.
    let seen_most = LIMIT - 100;
    server.signal("-STOP");
    let mut locally = 0;
    for gate in &gates {
        let (more, denial) = until_refused(gate).await;
        assert_eq!(denial, Denial::StoreUnavailable);
        let share = metric(gate, "turnpike_local_units_total{limit=\"quota\"}");
        assert!(0 < share && share <= seen_most.div_ceil(3), "{share}");
        gate.enforcer.sweep().await;
        assert_eq!(metric(gate, "turnpike_settlement_debt_units"), share);
        locally += share;
        admitted += more;
    }
    assert!(admitted <= 300 + held + seen_most, "{admitted}");
    assert!(locally <= seen_most, "{locally}");
    server.signal("-CONT");
    for gate in &gates {
        admitted += until_back(gate).await;
    }
    // Every gateway has told what it admitted before it asks for more.
    for gate in &gates {
        let (more, denial) = until_refused(gate).await;
        assert_eq!(denial, Denial::QuotaExceeded);
        admitted += more;
    }
    for gate in &gates {
        gate.enforcer.close().await;
        gate.enforcer.sweep().await;
        assert_eq!(metric(gate, "turnpike_settlement_debt_units"), 0);
    }
    let (used, held, lost) = units(&gates[0], credential).await;
    assert_eq!((held, lost), (0, 0));
    assert_eq!(used, admitted, "each unit is counted once");
    assert!(LIMIT <= used && used <= LIMIT + locally, "{used}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_restart_takes_a_share_twice_and_the_next_process_settles() {
    const LIMIT: u64 = 3_000;
    let server = RedisServer::durable();
    let folders = folders();
    let (gates, credential) = three(&server, &folders, quota(LIMIT, "local")).await;
    let [first, second, _third] = gates;
    assert_eq!(first.admitted("tok", "/a/x", 1).await, 1);
    server.signal("-STOP");
    let mut locally = 0;
    while locally < 100 {
        let Decision::Admit(permit) = first.decide("tok", "GET", "/a/x").await else { panic!() };
        assert_eq!(permit.away(), Some(FailureMode::Local));
        locally += 1;
    }
    // It crashes, and is started again once Redis is there.
    drop(first);
    server.signal("-CONT");
    let again = gate(&server, &folders[0], 11).await;
    again.enforcer.see_live([11, 2, 3].map(ProcessId).into());
    until_back(&again).await;
    let (used, _, _) = units(&again, credential).await;
    // A block is a sixteenth of the share; what the crash left of the last one counts as used.
    let block = (LIMIT - 1).div_ceil(3).div_ceil(16);
    assert!((locally..=locally + block + 2).contains(&used), "{used}");
    assert_eq!(metric(&again, "turnpike_settlement_debt_units"), 0);
    server.signal("-STOP");
    let (more, denial) = until_refused(&again).await;
    assert_eq!(denial, Denial::StoreUnavailable);
    let share = (LIMIT - 1).div_ceil(3);
    let total = locally + metric(&again, "turnpike_local_units_total{limit=\"quota\"}");
    assert!(total <= share && share - block <= total, "{total} of {share}, {more}");
    server.signal("-CONT");
    until_back(&again).await;
    until_back(&second).await;
    again.enforcer.close().await;
    let (settled, _, _) = units(&second, credential).await;
    assert!(share <= settled + block, "{settled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_closed_refuses_and_open_admits_uncharged() {
    for (away, expect) in [("closed", None), ("open", Some(FailureMode::Open))] {
        let server = RedisServer::start();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let gate = gate(&server, &folder, 1).await;
        gate.enforcer.keep_up().await;
        gate.enforcer.see_live([1].map(ProcessId).into());
        gate.simple(quota(10, away)).await;
        assert_eq!(gate.admitted("tok", "/a/x", 1).await, 1);
        server.signal("-STOP");
        for _ in 0..30 {
            match (gate.decide("tok", "GET", "/a/x").await, expect) {
                (Decision::Admit(permit), Some(_)) => assert_eq!(permit.away(), expect),
                (Decision::Deny(refusal), None) => {
                    assert_eq!(refusal.denial, Denial::StoreUnavailable);
                    assert_eq!(refusal.retry_ms, Some(1_000));
                }
                (decision, _) => panic!("{away}: {decision:?}"),
            }
        }
        // An unknown token is not known to be unknown.
        assert_eq!(gate.denial("other", "/a/x").await, Some(Denial::StoreUnavailable));
        server.signal("-CONT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_rate_each_gateway_admits_its_part_by_its_own_log() {
    let server = RedisServer::start();
    let folders = folders();
    let plan = json!({"RateLimit": 32, "Per": 10, "UnlimitedQuota": true});
    let (gates, _) = three(&server, &folders, plan).await;
    for gate in &gates {
        assert_eq!(gate.admitted("tok", "/a/x", 1).await, 1);
    }
    server.signal("-STOP");
    for (gate, share) in gates.iter().zip([11, 11, 10]) {
        // Nothing is in hand any more, and what the gateway admitted before is not its share's.
        gate.pass(Duration::from_secs(1));
        let (admitted, denial) = until_refused(gate).await;
        assert_eq!((admitted, denial), (share, Denial::StoreUnavailable));
        gate.pass(Duration::from_millis(9_900));
        assert_eq!(until_refused(gate).await.0, 0);
        gate.pass(Duration::from_millis(200));
        assert_eq!(until_refused(gate).await.0, share);
    }
    // Who is on no list has no share.
    gates[0].enforcer.see_live([2, 3].map(ProcessId).into());
    gates[0].pass(Duration::from_secs(60));
    assert_eq!(until_refused(&gates[0]).await.0, 0);
    server.signal("-CONT");
}
