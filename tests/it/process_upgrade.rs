//! Upgrades: another process takes over from the one that runs.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::process::{Client, Gateway, Upstream};
use crate::process_load::{Load, Manager, edit, until};

#[test]
fn an_upgrade_under_load_loses_no_request_and_counts_every_unit_once() {
    upgrades("");
}

#[cfg(feature = "redis")]
#[test]
fn an_upgrade_on_redis_does_so_too() {
    let redis = crate::redis_server::RedisServer::start();
    let port = redis.port();
    upgrades(&format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{port}/0\"]"));
}

fn upgrades(more: &str) {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let mut gateway = Gateway::start_with(folder.path(), &upstream, more);
    let quota = 1_000_000;
    let plan = json!({"UnlimitedRateLimit": true, "Quota": quota, "QuotaRenewalRate": 3600});
    let credential = gateway.import("tok", plan);
    let load = Load::start(gateway.proxy, 8, "/a/x", "tok");
    for _ in 0..3 {
        load.more(50);
        let (proxy, admin) = (gateway.proxy, gateway.admin);
        let next = gateway.upgrade(folder.path());
        assert_eq!((next.proxy, next.admin), (proxy, admin), "the same sockets");
        let old = std::mem::replace(&mut gateway, next);
        assert_eq!(old.wait(), Some(0));
        load.more(50);
    }
    let answered = load.stop();
    assert_eq!(upstream.count(), answered);
    // Every request was charged once, by whichever process.
    let path = format!("/v1/usage/credentials/{credential}");
    let told = gateway.admin("GET", &path, &serde_json::Value::Null).json();
    let limits = told["limits"].as_array().unwrap();
    let count = limits.iter().find(|limit| limit["kind"] == "quota").unwrap();
    let number = |name: &str| usize::try_from(count[name].as_u64().unwrap()).unwrap();
    assert_eq!((number("used"), number("lost")), (answered, 0), "{told}");
    assert_eq!(number("remaining"), quota - answered, "{told}");
    assert!(number("held") <= quota / 20, "{told}");
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_request_whose_body_is_waited_for_is_answered_by_the_process_that_leaves() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway
        .import("tok", json!({"UnlimitedRateLimit": true, "Quota": 9, "QuotaRenewalRate": 3600}));
    let mut slow = TcpStream::connect(gateway.proxy).unwrap();
    let head = "POST /a/x HTTP/1.1\r\nHost: gw\r\nX-API-Key: tok\r\nContent-Length: 5\r\n\r\n";
    slow.write_all(format!("{head}hel").as_bytes()).unwrap();
    let metrics = || gateway.admin("GET", "/metrics", &serde_json::Value::Null).body;
    until("the body to be waited for", || metrics().contains("turnpike_bodies_awaited 1"));
    let next = gateway.upgrade(folder.path());
    slow.write_all(b"lo").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!((gateway.wait(), upstream.count()), (Some(0), 1));
    assert_eq!(next.stop(), Some(0));
}

#[test]
fn an_upgrade_to_a_wrong_configuration_changes_nothing() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    edit(folder.path(), "listen_path = \"/b/\"", "listen_path = \"b\"");
    assert_eq!(Gateway::try_upgrade(folder.path()), Some(78));
    assert_eq!(gateway.get("/a/x", "tok").status, 200);
    // One that comes as far as the store, cannot read its pepper, and is gone: the running process
    // starts anew with what it had.
    edit(folder.path(), "listen_path = \"b\"", "listen_path = \"/b/\"");
    std::fs::write(folder.path().join("pepper"), "0".repeat(64)).unwrap();
    let section = "[store]\npepper_file = \"pepper\"\n[admin]";
    edit(folder.path(), "[admin]", section);
    assert_eq!(Gateway::try_upgrade(folder.path()), Some(78));
    assert_eq!(gateway.get("/a/x", "tok").status, 200, "as it was started");
    assert!(gateway.log().contains("starting anew"));
    until("the file to be looked at", || gateway.log().contains("store.pepper_file"));
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_process_that_was_forsaken_in_an_upgrade_goes_on() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    // As a new process would, up to the moment at which it has the store and dies.
    let path = folder.path().join("data/upgrade/socket");
    let mut control = std::os::unix::net::UnixStream::connect(path).unwrap();
    control.write_all(b"take\n").unwrap();
    let mut names = Vec::new();
    while !names.ends_with(b"]\n\n") {
        let mut byte = [0];
        control.read_exact(&mut byte).unwrap();
        names.push(byte[0]);
    }
    control.write_all(b"yield\n").unwrap();
    let mut word = [0; 8];
    control.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"yielded\n");
    // It waits in the queue meanwhile.
    let mut waiting = Client::connect(gateway.proxy).unwrap();
    drop(control);
    let answer = waiting.send("GET", "/a/x", &[("X-API-Key", "tok")], "").unwrap();
    assert_eq!(answer.status, 200);
    assert!(gateway.log().contains("starting anew"));
    assert_eq!(gateway.stop(), Some(0));
}

/// A process that nobody here started, to be ended with the test.
struct Stranger(String);

impl Stranger {
    fn signal(&self, signal: &str) {
        // It may have ended already.
        let _ended = std::process::Command::new("kill").args([signal, &self.0]).status();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.signal("-KILL");
    }
}

#[test]
fn a_signal_lets_the_gateway_upgrade_itself_and_the_service_manager_follows() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    assert_eq!(gateway.stop(), Some(0));
    let manager = Manager::new(folder.path());
    let file = folder.path().join("turnpike.toml");
    let gateway = Gateway::serve(&file, &manager.environment()).unwrap();
    let proxy = gateway.proxy;
    gateway.signal("-USR2");
    let id = || {
        let log = gateway.log();
        let (_, rest) = log.split_once("upgrading pid=")?;
        rest.split_once('\n').map(|(id, _)| id.trim().to_owned())
    };
    until("the new process", || id().is_some());
    let stranger = Stranger(id().unwrap());
    manager.hear(&format!("MAINPID={}", stranger.0));
    assert_eq!(gateway.wait(), Some(0));
    assert_eq!(Client::new(proxy).get("/a/x", &[("X-API-Key", "tok")]).status, 200);
    // Only the new one is left to say so.
    manager.forget();
    manager.hear("WATCHDOG=1");
    stranger.signal("-TERM");
    manager.hear("STOPPING=1");
    until("its end", || TcpStream::connect(proxy).is_err());
}
