//! The admin listener over TLS, with the command line as its client.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::process::{Client, Gateway, SECRET, Upstream, until};
use crate::tls_client::Made;

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
