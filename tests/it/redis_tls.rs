//! The built binary on a redis-server that takes connections by TLS only, from those it knows.

use serde_json::json;

use crate::process::{Gateway, Upstream, until};
use crate::redis_server::RedisServer;
use crate::tls_client::Made;

const TOKEN: &str = "token-of-a-robot";

/// A server whose files are `server.pem` and `server.key`, and which trusts `client.pem`.
fn server(files: &std::path::Path) -> RedisServer {
    let name = |file: &str| files.join(file).to_string_lossy().into_owned();
    let (own, key, ca) = (name("server.pem"), name("server.key"), name("client.pem"));
    RedisServer::start_with(&[
        "--port",
        "0",
        "--tls-port",
        "PORT",
        "--tls-auth-clients",
        "yes",
        "--tls-cert-file",
        &own,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--requirepass",
        "hunter2",
        "--appendonly",
        "yes",
    ])
}

/// The configuration of a gateway that trusts `ca.pem`.
fn section(server: &RedisServer, files: &std::path::Path, more: &str) -> String {
    let (port, files) = (server.port(), files.display());
    format!(
        "[store]\nkind = \"redis\"\nurls = [\"rediss://:hunter2@localhost:{port}/0\"]\n\
         timeout_ms = 2000\nca = \"{files}/ca.pem\"\n{more}"
    )
}

fn own(files: &std::path::Path) -> String {
    let files = files.display();
    format!("certificate = \"{files}/client.pem\"\nkey = \"{files}/client.key\"\n")
}

fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let of_server = Made::new(&["localhost"]);
    of_server.write(folder.path(), "server");
    of_server.write(folder.path(), "ca");
    Made::new(&["gateway"]).write(folder.path(), "client");
    folder
}

#[test]
fn a_gateway_speaks_to_redis_by_tls_and_goes_on_with_renewed_files() {
    let (files, upstream) = (files(), Upstream::start());
    let (mut server, folder) = (server(files.path()), tempfile::tempdir().unwrap());
    let section = section(&server, files.path(), &own(files.path()));
    let gateway = Gateway::start_with(folder.path(), &upstream, &section);
    let plan = json!({"Quota": 100, "QuotaRenewalRate": 3600, "OnStoreUnavailable": "closed"});
    gateway.import(TOKEN, plan);
    assert_eq!(gateway.get("/a/x", TOKEN).status, 200, "{}", gateway.log());

    let renewed = Made::new(&["localhost"]);
    renewed.write(files.path(), "server");
    server.restart();
    until("what is not trusted is not used", || gateway.log().contains("cannot be reached"));
    assert_eq!(gateway.get("/a/x", "nobodys-token").status, 503);
    renewed.write(files.path(), "ca");
    until("it is trusted", || gateway.get("/a/x", "nobodys-token").status == 403);
    assert!(!gateway.log().contains("hunter2"), "{}", gateway.log());
}

#[test]
fn a_gateway_does_not_start_where_either_side_is_not_trusted() {
    let (files, upstream) = (files(), Upstream::start());
    let server = server(files.path());
    let stranger = tempfile::tempdir().unwrap();
    Made::new(&["localhost"]).write(stranger.path(), "ca");
    Made::new(&["stranger"]).write(stranger.path(), "client");
    for (why, section) in [
        ("a server of others", section(&server, stranger.path(), &own(files.path()))),
        ("a client of others", section(&server, files.path(), &own(stranger.path()))),
        ("a client without a certificate", section(&server, files.path(), "")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let log = Gateway::try_start_with(folder.path(), &upstream, &section).map(drop);
        let log = log.expect_err(why);
        assert!(log.contains("exit status: 69"), "{why}: {log}");
        assert!(log.contains("redis at localhost:"), "{why}: {log}");
        assert!(!log.contains("hunter2"), "{why}: {log}");
    }
}
