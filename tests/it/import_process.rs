//! A bulk import with the built binary: killed in the middle, done again, and no token anywhere.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::admin_imports::no_token_in;
use crate::import_file::ImportFile;
use crate::process::{Client, Gateway, SECRET, Upstream, until};

/// Lines, one in a hundred of them wrong.
const LINES: u64 = 3_000;

/// A gateway with a plan, a product and an app: each is number 1.
fn furnished(folder: &Path, upstream: &Upstream, store: &str) -> Gateway {
    std::fs::write(folder.join("pepper"), "7f".repeat(32)).unwrap();
    let gateway = Gateway::start_with(folder, upstream, store);
    gateway.import("a-token", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    gateway
}

fn import(admin: std::net::SocketAddr, file: &ImportFile) -> std::io::Result<Value> {
    let path = "/v1/imports?format=ndjson&wait=60s";
    let headers = [("Authorization", SECRET)];
    Ok(Client::connect(admin)?.send("POST", path, &headers, &file.text)?.json())
}

/// What the listener shows of all credentials, but for what two runs may number differently.
fn credentials(gateway: &Gateway) -> BTreeMap<String, Value> {
    let path = "/portal-api/apps/1/custom_credentials?per_page=5000";
    let rows = gateway.admin("GET", path, &Value::Null).json();
    let rows = rows.as_array().unwrap().iter().map(|row| {
        let mut row = row.as_object().unwrap().clone();
        for name in ["ID", "CID", "CreatedAt", "UpdatedAt", "AccessRequest"] {
            row.remove(name);
        }
        (row["Alias"].as_str().unwrap().to_owned(), Value::from(row))
    });
    let all: BTreeMap<_, _> = rows.clone().collect();
    assert_eq!(all.len(), rows.len(), "an alias is there once");
    all
}

/// Kills a gateway in the middle of an import, and imports again: it is as if nothing had happened.
fn killed_and_done_again(stores: [&str; 2]) {
    let (upstream, folders) = (Upstream::start(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let [one, other] = [0, 1].map(|n| furnished(folders[n].path(), &upstream, stores[n]));
    let file = ImportFile::new(LINES, 1, 1, 1);
    let expect = [LINES, file.good(), file.faults.len().try_into().unwrap()];
    let done = import(one.admin, &file).unwrap();
    assert_eq!(["Total", "Created", "Failed"].map(|n| done[n].as_u64().unwrap()), expect, "{done}");
    // The answer may come a moment before its line in the log.
    until("its end is logged", || one.log().contains("import ended"));
    // Where reads wait behind commits, they are made early, but for the first.
    let [commits, early] = ["commits", "early"].map(|name| told(&one.log(), name));
    assert_eq!(0 < early, stores[0].contains("redis"), "{early} of {commits}");
    assert!(early < commits, "{early} of {commits}");
    std::thread::scope(|threads| {
        let sending = threads.spawn(|| import(other.admin, &file));
        until("a part of it is applied", || {
            let all = other.admin("GET", "/v1/imports", &Value::Null).json();
            all[0]["Total"].as_u64().is_some_and(|total| LINES / 8 <= total)
        });
        other.kill_now();
        assert!(sending.join().unwrap().is_err(), "it was under way");
    });
    drop(other);
    let other = Gateway::start_with(folders[1].path(), &upstream, stores[1]);
    // It may have come up with its copy, and reach its store a moment later.
    until("its store is there", || {
        let status = other.admin("GET", "/v1/state/status", &Value::Null).json();
        status["store"]["state"] == "up"
    });
    let done = import(other.admin, &file).unwrap();
    let [total, created, unchanged, failed] =
        ["Total", "Created", "Unchanged", "Failed"].map(|name| done[name].as_u64().unwrap());
    assert_eq!([total, created + unchanged, failed], expect, "{done}");
    assert!(0 < created && 0 < unchanged, "{done}");
    assert_eq!(credentials(&one), credentials(&other));
    for gateway in [&one, &other] {
        until("it enforces all that is stored", || {
            let status = gateway.admin("GET", "/v1/state/status", &Value::Null).json();
            status["synced"] == true
        });
        assert_eq!(gateway.get("/a/x", &file.tokens[6]).status, 200);
        assert_eq!(gateway.get("/a/x", &file.tokens[49]).status, 403, "the line has a fault");
        nothing_tells(gateway);
    }
    for folder in &folders {
        assert!(0 < no_token_in(folder.path()));
    }
}

/// A number that the end of an import is logged with.
fn told(log: &str, name: &str) -> u64 {
    let line = log.lines().find(|line| line.contains("import ended")).unwrap_or_default();
    let after = line.split(name).nth(1).unwrap_or_default();
    let digits = after.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or_else(|_| panic!("{name} in {line:?}"))
}

/// No token in what a gateway says.
fn nothing_tells(gateway: &Gateway) {
    let mut texts = vec![gateway.log()];
    let mut paths = vec!["/metrics", "/v1/audit", "/v1/imports", "/portal-api/access_requests"];
    let all = gateway.admin("GET", "/v1/imports", &Value::Null).json();
    for one in all.as_array().unwrap() {
        paths.extend(["ErrorsURL", "ResultsURL"].map(|name| one[name].as_str().unwrap()));
    }
    paths.push("/portal-api/apps/1/custom_credentials?per_page=5000");
    for path in paths {
        texts.push(gateway.admin("GET", path, &Value::Null).body);
        assert!(!texts[texts.len() - 1].is_empty(), "{path}");
    }
    for text in texts {
        let mut tokens = text
            .match_indices("LEG-")
            .filter(|(at, _)| text.as_bytes().get(at + 10) == Some(&b'-'));
        assert_eq!(tokens.next(), None);
    }
}

#[test]
fn an_import_killed_in_the_middle_is_done_again_and_ends_the_same() {
    let store = "[store]\nkind = \"embedded\"\npepper_file = \"pepper\"\n";
    killed_and_done_again([store; 2]);
}

#[cfg(feature = "redis")]
#[test]
fn an_import_into_redis_killed_in_the_middle_is_done_again_and_ends_the_same() {
    use crate::redis_server::RedisServer;
    let servers = [(); 2].map(|()| RedisServer::start_with(&["--appendonly", "yes"]));
    let sections = servers.each_ref().map(|server| server.section() + "pepper_file = \"pepper\"\n");
    killed_and_done_again(sections.each_ref().map(String::as_str));
    for server in servers {
        assert!(0 < no_token_in(server.folder()));
    }
}

/// An import changes an app with each of its commits, and makes no pause between them of itself.
#[cfg(feature = "redis")]
#[test]
fn an_app_is_edited_on_another_gateway_while_lines_go_into_it() {
    let server = crate::redis_server::RedisServer::start();
    let store = server.section() + "pepper_file = \"pepper\"\n";
    let (upstream, folders) = (Upstream::start(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let one = furnished(folders[0].path(), &upstream, &store);
    std::fs::write(folders[1].path().join("pepper"), "7f".repeat(32)).unwrap();
    let other = Gateway::start_with(folders[1].path(), &upstream, &store);
    let file = ImportFile::new(LINES, 1, 1, 1);
    let (done, edits) = std::thread::scope(|threads| {
        let sending = threads.spawn(|| import(one.admin, &file).unwrap());
        let edit = |n: u64| {
            until("more lines are in", || {
                let all = other.admin("GET", "/v1/imports", &Value::Null).json();
                all[0]["Total"].as_u64().is_some_and(|total| n * LINES / 12 <= total)
            });
            let name = json!({ "Name": format!("robot {n}") });
            let edit = other.admin("PUT", "/portal-api/apps/1", &name);
            (!sending.is_finished(), edit.status, edit.body)
        };
        let edits: Vec<_> = (1..10).map(edit).collect();
        (sending.join().unwrap(), edits)
    });
    assert_eq!(done["Created"], json!(file.good()), "{done}");
    assert!(edits.iter().all(|(_, status, _)| *status == 200), "{edits:?}");
    assert!(edits.iter().any(|(meanwhile, ..)| *meanwhile), "{edits:?}");
    let name = other.admin("GET", "/portal-api/apps/1", &Value::Null).json()["Name"].clone();
    assert_eq!(name, "robot 9", "no edit is lost");
}
