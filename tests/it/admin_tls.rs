//! The admin listener over TLS, with the command line as its client.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::process::{Client, Gateway, SECRET, Upstream, until};
use crate::tls_client::{Made, client, connect};

fn list_tokens(gateway: &Gateway, ca: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .args(["admin-token", "list", "--url", &format!("https://{}", gateway.admin), "--ca"])
        .arg(ca)
        .env("TURNPIKE_ADMIN__SECRET", SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn the_admin_listener_speaks_tls_and_takes_new_certificates_over() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let at = |name: &str| folder.path().join(name);
    let (first, second) = (Made::new(&["127.0.0.1"]), Made::new(&["127.0.0.1"]));
    first.write(folder.path(), "admin");
    std::fs::copy(at("admin.pem"), at("first.pem")).unwrap();
    let keys = "certificates = [\"admin.pem\"]\nkeys = [\"admin.key\"]";
    let gateway = Gateway::start_with(folder.path(), &upstream, keys);
    // Somebody who connects and says nothing is in nobody's way.
    let silent = TcpStream::connect(gateway.admin).unwrap();
    let output = list_tokens(&gateway, &at("first.pem"));
    assert!(output.status.success(), "{output:?}");
    let mut plain = Client::new(gateway.admin);
    let headers = [("Authorization", SECRET)];
    assert!(plain.send("GET", "/v1/admin/tokens", &headers, "").is_err(), "no plain text");
    second.write(folder.path(), "admin");
    let renewed = || list_tokens(&gateway, &at("admin.pem")).status.success();
    until("the new certificate", renewed);
    let output = list_tokens(&gateway, &at("first.pem"));
    assert_eq!(output.status.code(), Some(2), "the old one is gone: {output:?}");
    drop(silent);
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn admin_writes_fail_in_no_upgrade() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let mut gateway = Gateway::start(folder.path(), &upstream);
    let admin = gateway.admin;
    let (stop, told) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut made = 0;
        while told.try_recv().is_err() {
            let app = json!({"Name": format!("app {made}"), "UserID": 1}).to_string();
            let headers = [("Authorization", SECRET), ("Connection", "close")];
            let answer = Client::new(admin).send("POST", "/portal-api/apps", &headers, &app);
            assert_eq!(answer.expect("an answer").status, 200);
            made += 1;
        }
        made
    });
    for _ in 0..3 {
        let next = gateway.upgrade(folder.path());
        assert_eq!(std::mem::replace(&mut gateway, next).wait(), Some(0));
    }
    stop.send(()).unwrap();
    let made = writer.join().unwrap();
    let apps = gateway.admin("GET", "/portal-api/apps?p=-1", &serde_json::Value::Null).json();
    assert_eq!(apps.as_array().map(Vec::len), Some(made), "{apps}");
}

/// The answer to GET of a path, from whoever has this certificate.
async fn fetch(to: std::net::SocketAddr, made: &Made, tls12: bool, path: &str) -> Option<String> {
    let config = client(&[made], &["h2", "http/1.1"], tls12);
    let mut stream = connect(to, "gw.example", config).await.ok()?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let text = format!("GET {path} HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(crate::raw_http::LONG, read).await.unwrap().ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_listener_for_metrics_has_certificates_of_its_own() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let (admin, ops) = (Made::new(&["gw.example"]), Made::new(&["gw.example"]));
    admin.write(folder.path(), "admin");
    ops.write(folder.path(), "ops");
    let keys = "certificates = [\"admin.pem\"]\nkeys = [\"admin.key\"]\n[ops]\n\
                listen = \"127.0.0.1:0\"\ncertificates = [\"ops.pem\"]\nkeys = [\"ops.key\"]\n\
                tls_version_min = \"1.3\"";
    let gateway = Gateway::start_with(folder.path(), &upstream, keys);
    let at = gateway.ops.expect("the address is told");
    let metrics = fetch(at, &ops, false, "/metrics").await.expect("an answer");
    assert!(metrics.contains("turnpike_requests_under_way 0"), "{metrics}");
    let nothing = fetch(at, &ops, false, "/portal-api/plans").await.expect("an answer");
    assert!(nothing.starts_with("HTTP/1.1 404 "), "nothing to read or write there: {nothing}");
    assert_eq!(fetch(at, &ops, true, "/live").await, None, "too old a version");
    assert_eq!(fetch(at, &admin, false, "/live").await, None, "another's certificate");
    assert!(fetch(gateway.admin, &admin, true, "/live").await.is_some());
    // What cannot be used is not taken over, what can is.
    std::fs::write(folder.path().join("ops.pem"), "nonsense").unwrap();
    until("the fault is told", || gateway.log().contains("changed certificates cannot be used"));
    assert!(fetch(at, &ops, false, "/live").await.is_some());
    let new = Made::new(&["gw.example"]);
    new.write(folder.path(), "ops");
    until("the new one is read", || gateway.log().contains("certificates were read again"));
    assert!(fetch(at, &new, false, "/live").await.is_some());
    assert_eq!(fetch(at, &ops, false, "/live").await, None);
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("turnpike.toml");
    let text = format!(
        "[admin]\nsecret = \"{SECRET}\"\ncertificates = [\"none.pem\"]\nkeys = [\"none.key\"]\n\
         [ops]\ncertificates = [\"none.pem\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let log = Gateway::serve(&file, &[]).err().expect("it does not start");
    for key in ["admin.certificates[0]", "admin.keys[0]", "ops.keys"] {
        assert!(log.contains(key), "{key} in {log}");
    }
}
