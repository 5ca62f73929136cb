//! Stopping the built binary, and what a service manager hears of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::process::{Client, Gateway, Upstream};
use crate::process_load::{Load, Manager, NEWCOMER, metric, until};

#[test]
fn a_gateway_stopped_as_soon_as_it_is_ready_ends_in_order() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    for _ in 0..5 {
        let gateway = Gateway::start(folder.path(), &upstream);
        assert_eq!(gateway.stop(), Some(0));
    }
}

#[test]
fn a_stop_under_load_answers_every_request_of_those_it_let_in() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 1_000_000, "QuotaRenewalRate": 3600});
    gateway.import("tok", plan);
    let load = Load::start(gateway.proxy, 8, "/a/x", "tok");
    load.more(100);
    assert_eq!(gateway.stop(), Some(0));
    let (answered, failures) = load.end();
    assert!(failures.iter().all(|what| what.starts_with(NEWCOMER)), "{failures:?}");
    assert_eq!(upstream.count(), answered, "nothing was sent on and not answered");
    // What was in hand is back.
    let gateway = Gateway::serve(&folder.path().join("turnpike.toml"), &[]).unwrap();
    let last = gateway.get("/a/x", "tok");
    let left: usize = last.headers["x-ratelimit-remaining"].parse().unwrap();
    assert_eq!(1_000_000 - left, answered + 1);
}

#[test]
fn a_stop_answers_first_and_waits_for_no_half_sent_head() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start_with(folder.path(), &upstream, "");
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    let token = [("X-API-Key", "tok")];
    let mut idle = Client::new(gateway.proxy);
    assert_eq!(idle.get("/a/x", &token).status, 200);
    let mut half = TcpStream::connect(gateway.proxy).unwrap();
    half.write_all(b"GET /a/x HTTP/1.1\r\nHost: x\r\nX-Half: ").unwrap();
    until("both connections", || metric(&gateway, "turnpike_connections") == 2);
    let began = Instant::now();
    gateway.terminate();
    until("the end of listening", || TcpStream::connect(gateway.proxy).is_err());
    let ready = Client::new(gateway.admin).get("/ready", &[]);
    assert_eq!(ready.status, 503, "{}", ready.body);
    // Who speaks now is answered, and told to connect anew.
    let last = idle.get("/a/x", &token);
    assert_eq!(
        (last.status, last.headers.get("connection").map(String::as_str)),
        (200, Some("close"))
    );
    assert_eq!(gateway.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}, of 5 s to drain", began.elapsed());
    let mut rest = Vec::new();
    let _closed = half.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn the_service_manager_hears_that_the_gateway_is_ready_alive_and_stopping() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    drop(Gateway::start(folder.path(), &upstream));
    let manager = Manager::new(folder.path());
    let file = folder.path().join("turnpike.toml");
    let gateway = Gateway::serve(&file, &manager.environment()).unwrap();
    manager.hear("READY=1");
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    gateway.terminate();
    manager.hear("STOPPING=1");
    assert_eq!(gateway.wait(), Some(0));
}
