//! Change without loss: reload, targets that die and return; the built binary under a steady load.

use serde_json::json;

use crate::process::{Client, Gateway, Upstream};
use crate::process_load::{Load, Target, edit, metric, until};

#[test]
fn a_reload_changes_apis_under_load_and_refuses_what_needs_a_restart() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let more = "[ops]\nlisten = \"127.0.0.1:0\"";
    let gateway = Gateway::start_with(folder.path(), &upstream, more);
    gateway.import(
        "tok",
        json!({"UnlimitedRateLimit": true, "Quota": 1_000_000,
        "QuotaRenewalRate": 3600}),
    );
    let load = Load::start(gateway.proxy, 8, "/a/x", "tok");
    load.more(50);
    // By signal: another path, and requests to the old one go on until then.
    for round in 0..5 {
        let (from, to) = match round % 2 {
            0 => ("listen_path = \"/b/\"", "listen_path = \"/c/\""),
            _ => ("listen_path = \"/c/\"", "listen_path = \"/b/\""),
        };
        edit(folder.path(), from, to);
        gateway.signal("-HUP");
        until("the reload", || {
            metric(&gateway, "turnpike_config_reloads_total{result=\"applied\"}") == round + 1
        });
        let there = if round % 2 == 0 { "/c/x" } else { "/b/x" };
        assert_eq!(gateway.get(there, "tok").json()["code"], "api_not_granted");
        load.more(20);
    }
    // By itself, when the file has changed.
    edit(folder.path(), "listen_path = \"/c/\"", "listen_path = \"/d/\"");
    until("the reload", || gateway.get("/d/x", "tok").status == 403);
    // Wrong, or not to be changed while running: by name, and nothing of it.
    for (from, to, named) in [
        ("listen_path = \"/d/\"", "listen_path = \"d\"", "apis[1].listen_path"),
        ("drain_s = 5", "drain_s = 6", "proxy.drain_s"),
    ] {
        edit(folder.path(), from, to);
        let refused = metric(&gateway, "turnpike_config_reloads_total{result=\"refused\"}");
        gateway.signal("-HUP");
        until("the refusal", || gateway.log().contains(named));
        until("the refusal's metric", || {
            metric(&gateway, "turnpike_config_reloads_total{result=\"refused\"}") == refused + 1
        });
        assert_eq!(metric(&gateway, "turnpike_config_current"), 0);
        assert_eq!(gateway.get("/d/x", "tok").status, 403, "as it was");
        edit(folder.path(), to, from);
        gateway.signal("-HUP");
        until("the file as it was", || metric(&gateway, "turnpike_config_current") == 1);
    }
    load.stop();
}

#[test]
fn metrics_and_health_have_an_address_without_writes() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start_with(folder.path(), &upstream, "[ops]\nlisten = \"127.0.0.1:0\"");
    let mut client = Client::new(gateway.ops.expect("the address is told"));
    for path in ["/live", "/ready", "/hello", "/metrics"] {
        assert_eq!(client.get(path, &[]).status, 200, "{path}");
    }
    let secret = [("Authorization", crate::process::SECRET)];
    assert_eq!(client.get("/portal-api/apps", &secret).status, 404);
}

#[test]
fn targets_that_die_and_return_cost_no_request_that_is_safe_to_repeat() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let mut targets = [Target::start("127.0.0.1:0"), Target::start("127.0.0.1:0")];
    let api = format!(
        "[[apis]]\nid = \"t\"\nlisten_path = \"/t/\"\nkeyless = true\n\
         targets = [\"http://{}\", \"http://{}\"]\nhealth = {{ every_ms = 50, rise = 1, fall = 1 }}\n\
         ejection = {{ base_ms = 100 }}\n",
        targets[0].address, targets[1].address
    );
    let gateway = Gateway::start_with(folder.path(), &upstream, &api);
    let load = Load::start(gateway.proxy, 8, "/t/x", "");
    load.more(50);
    for n in [0, 1, 0] {
        let line = format!("turnpike_upstream_available{{api=\"t\",target=\"{n}\"}}");
        targets[n].kill();
        load.more(100);
        until("the target to be noticed", || metric(&gateway, &line) == 0);
        targets[n].come_back();
        until("the target to be back", || metric(&gateway, &line) == 1);
        load.more(50);
    }
    load.stop();
}
