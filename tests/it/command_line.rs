//! The command line as a client of a running gateway's admin listener.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::process::{Gateway, SECRET, Upstream};

fn turnpike(gateway: &Gateway, secret: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .args(words)
        .args(["--url", &format!("http://{}", gateway.admin), "--secret-file"])
        .arg(secret)
        .env_remove("TURNPIKE_ADMIN__SECRET")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_file_is_imported_and_what_is_wrong_with_it_is_written_beside_it() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("first-token", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    let place = tempfile::tempdir().unwrap();
    let (secret, file) = (place.path().join("secret"), place.path().join("tokens.ndjson"));
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let mut lines = std::fs::File::create(&file).unwrap();
    for n in 0..20 {
        writeln!(lines, r#"{{"KeyID":"imported-token-{n:04}","Alias":"robot {n}"}}"#).unwrap();
    }
    let name = file.to_str().unwrap();
    let words = ["import", name, "--app", "1", "--plan", "1", "--products", "1"];
    let dry: Vec<&str> = words.iter().copied().chain(["--dry-run"]).collect();
    let output = turnpike(&gateway, &secret, &dry);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(gateway.get("/a/x", "imported-token-0007").status, 403, "nothing was changed");
    let output = turnpike(&gateway, &secret, &words);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let row = |name: &str, count: u64| format!("{name:<12}{count:>24}\n");
    assert!(told(&output).contains(&row("created", 20)), "{}", told(&output));
    assert_eq!(gateway.get("/a/x", "imported-token-0007").status, 200);
    assert!(!told(&output).contains("imported-token"), "no token is shown");
    let output = turnpike(&gateway, &secret, &words);
    assert!(told(&output).contains(&row("unchanged", 20)), "{}", told(&output));
    writeln!(lines, r#"{{"KeyID":"imported-token-9999","Note":"no alias"}}"#).unwrap();
    let output = turnpike(&gateway, &secret, &words);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let errors = std::fs::read_to_string(place.path().join("tokens.ndjson.errors.ndjson")).unwrap();
    assert!(errors.contains("\"line\":21") && errors.contains("Alias"), "{errors}");
    assert!(!errors.contains("imported-token-9999"), "{errors}");
    assert_eq!(gateway.stop(), Some(0));
    // Against nobody, and with nothing to open it with.
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let wrong = place.path().join("wrong");
    std::fs::write(&wrong, "not-the-secret-of-this-one").unwrap();
    let output = turnpike(&gateway, &wrong, &words);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    let output = turnpike(&gateway, &place.path().join("none"), &words);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("cannot be read"), "{}", told(&output));
}

#[test]
fn admin_tokens_are_made_listed_and_revoked() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let place = tempfile::tempdir().unwrap();
    let (secret, token) = (place.path().join("secret"), place.path().join("token"));
    std::fs::write(&secret, SECRET).unwrap();
    let words = ["admin-token", "create", "--name", "reader", "--scopes", "read"];
    let output = turnpike(&gateway, &secret, &words);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    std::fs::write(&token, &output.stdout).unwrap();
    let list = turnpike(&gateway, &token, &["admin-token", "list"]);
    let opened = list.status.code() == Some(0) || told(&list).contains("403");
    assert!(opened, "the token is known: {}", told(&list));
    let output = turnpike(&gateway, &token, &words);
    assert_eq!(output.status.code(), Some(2), "it may only read: {}", told(&output));
    let list = told(&turnpike(&gateway, &secret, &["admin-token", "list"]));
    assert!(list.contains("reader"), "{list}");
    assert!(!list.contains(std::fs::read_to_string(&token).unwrap().trim()));
    let output = turnpike(&gateway, &secret, &["admin-token", "revoke", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let output = turnpike(&gateway, &token, &["admin-token", "list"]);
    assert_eq!(output.status.code(), Some(2));
}
