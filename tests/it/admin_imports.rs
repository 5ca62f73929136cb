//! Bulk imports, through the listener.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::admin_support::{Admin, Reply, SECRET, START, credential, faults, id, plan};
use crate::import_file::{ImportFile, sha256};

async fn get(admin: &Admin, path: &str) -> Reply {
    let request = Request::get(path).header("Authorization", SECRET);
    admin.raw(request.body(Body::empty()).unwrap()).await
}

async fn import(admin: &Admin, query: &str, text: impl Into<Body>) -> Reply {
    let uri = format!("/v1/imports?format=ndjson&wait=60s&{query}");
    let request = Request::post(uri).header("Authorization", SECRET);
    admin.raw(request.body(text.into()).unwrap()).await
}

async fn lines(admin: &Admin, path: &str) -> Vec<Value> {
    let request = Request::get(path).header("Authorization", SECRET).body(Body::empty()).unwrap();
    let response = admin.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) async fn errors(admin: &Admin, import: &Value) -> Vec<Value> {
    lines(admin, import["ErrorsURL"].as_str().unwrap()).await
}

/// A line that is right.
pub(crate) fn line(app: u64, plan: u64, product: u64, alias: &str, key: &str) -> Value {
    json!({ "AppID": app, "Alias": alias, "KeyID": key, "PlanID": plan, "ProductIDs": [product] })
}

pub(crate) fn counts(import: &Value) -> [u64; 5] {
    ["Total", "Created", "Updated", "Unchanged", "Failed"]
        .map(|name| import[name].as_u64().unwrap())
}

/// Import, import again: counts, line numbers and codes are exact.
async fn import_twice(admin: &Admin) {
    let (plan, product, app) = admin.furnish().await;
    let file = ImportFile::new(10_000, app, plan, product);
    let (all, bad, good) = (10_000, file.faults.len().try_into().unwrap(), file.good());
    assert_eq!(bad, 100);
    for expect in [[all, good, 0, 0, bad], [all, 0, 0, good, bad]] {
        let reply = import(admin, "", file.text.clone()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json["Status"], "completed_with_errors");
        assert_eq!(counts(&reply.json), expect);
        let found = errors(admin, &reply.json).await;
        let found: Vec<_> = found
            .iter()
            .map(|e| (e["line"].as_u64().unwrap(), e["code"].as_str().unwrap().to_owned()))
            .collect();
        let seeded: Vec<_> = file.faults.iter().map(|(n, code)| (*n, (*code).to_owned())).collect();
        assert_eq!(found, seeded);
        let results = lines(admin, reply.json["ResultsURL"].as_str().unwrap()).await;
        assert_eq!(u64::try_from(results.len()).unwrap(), good);
    }
    for (at, token) in file.tokens.iter().enumerate().step_by(97) {
        let number = u64::try_from(at + 1).unwrap();
        let wrong = file.faults.iter().any(|(line, _)| *line == number);
        assert_eq!(admin.token(token).await.is_some(), !wrong, "line {number}");
    }
}

#[tokio::test]
async fn ten_thousand_lines_are_counted_to_the_line_and_change_nothing_again() {
    let admin = Admin::start().await;
    import_twice(&admin).await;
    assert!(0 < no_token_in(admin.folder()));
}

/// No file of a store holds one of the tokens of an [`ImportFile`].
pub(crate) fn no_token_in(folder: &std::path::Path) -> usize {
    let mut looked_at = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            looked_at += no_token_in(&path);
            continue;
        }
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        looked_at += bytes.len();
        let token = |part: &[u8]| part.starts_with(b"LEG-") && part.ends_with(b"-");
        assert!(!bytes.windows(11).any(token), "{}", path.display());
    }
    looked_at
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn ten_thousand_lines_in_redis_are_counted_to_the_line_and_change_nothing_again() {
    let server = crate::redis_server::RedisServer::start_with(&["--appendonly", "yes"]);
    let store = turnpike::store::AnyStore::Redis(server.connect().await);
    let clock = std::sync::Arc::new(turnpike::clock::ManualClock::at(START));
    let admin = Admin::on(store, tempfile::tempdir().unwrap(), clock).await;
    import_twice(&admin).await;
    assert!(0 < no_token_in(server.folder()));
}

#[tokio::test]
async fn a_token_a_hash_and_the_portals_own_way_give_the_same_record() {
    let mut records = Vec::new();
    for way in ["portal", "token", "hash"] {
        let admin = Admin::start().await;
        let (plan, product, app) = admin.furnish().await;
        let key = "LEG-00fa-91c2-77aa-0001-beef";
        let mut body = line(app, plan, product, "k", key);
        match way {
            "portal" => {
                let path = format!("/apps/{app}/custom_credentials");
                admin.expect(201, "POST", &path, credential("k", key, plan, product)).await;
            }
            "hash" => {
                body["KeyID"] = Value::Null;
                body["KeyHash"] = json!(sha256(key));
                assert_eq!(counts(&import(&admin, "", body.to_string()).await.json)[1], 1);
            }
            _ => assert_eq!(counts(&import(&admin, "", body.to_string()).await.json)[1], 1),
        }
        let mut all = Vec::new();
        for (key, value) in admin.records().await {
            let mut text = format!("{:?} {}", key.kind, String::from_utf8_lossy(&value));
            // What is random, and what a hash does not tell.
            for name in ["\"cid\":\"", "/cid/"] {
                while let Some(at) = text.find(name) {
                    text.replace_range(at..at + name.len() + 27, "");
                }
            }
            all.push(text.replace("LEG-…beef", "…"));
        }
        all.sort();
        assert!(admin.token(key).await.is_some());
        records.push(all);
    }
    assert_eq!(records[0], records[1]);
    assert_eq!(records[1], records[2]);
}

#[tokio::test]
async fn amazons_key_file_is_imported_as_it_is() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let text = "Name,key,description,Enabled,usageplanIds,Colour\n\
        MyFirstApiKey,apikey1234abcdefghij0123456789,An imported key,TRUE,c7y23b,red\n\
        Second,apikey1234abcdefghij0123456780,,false,\"c7y23b\",\n\
        Third,apikey1234abcdefghij0123456781,,,\"c7y23b,glvrsr\",\n\
        Fourth,apikey1234abcdefghij0123456782,,,nobody,\n";
    let uri = format!(
        "/v1/imports?wait=60&app={app}&map.plan.c7y23b={plan}&map.products.c7y23b=invoices\
         &map.plan.glvrsr=99&map.products.glvrsr={product}"
    );
    let request = Request::post(uri).header("Authorization", SECRET);
    let request = request.header("Content-Type", "text/csv").body(Body::from(text)).unwrap();
    let reply = admin.raw(request).await;
    assert_eq!(counts(&reply.json), [4, 2, 0, 0, 2], "{reply:?}");
    assert_eq!(reply.json["Notes"], json!(["column 6 means nothing here"]));
    let codes: Vec<_> = errors(&admin, &reply.json).await;
    let codes: Vec<_> = codes.iter().map(|e| (e["line"].as_u64(), e["code"].as_str())).collect();
    assert_eq!(codes[0], (Some(4), Some("several_plans")));
    assert_eq!(codes[1], (Some(5), Some("unknown_plan")));
    let first = admin.token("apikey1234abcdefghij0123456789").await.unwrap();
    assert_eq!((first.plan, first.products, first.inactive), (Some(plan), vec![product], false));
    assert!(admin.token("apikey1234abcdefghij0123456780").await.unwrap().inactive);
    let path = format!("/apps/{app}/custom_credentials");
    let shown = admin.expect(200, "GET", &path, Value::Null).await;
    assert_eq!(shown[0]["Alias"], "MyFirstApiKey");
    assert_eq!(shown[0]["Description"], "An imported key");
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_changes_nothing() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let mut file = ImportFile::new(500, app, plan, product).text;
    for alias in ["a", "a", "b"] {
        let user = json!({ "Email": "new@acme.test", "OrganisationID": 1 });
        let mut line = line(app, plan, product, alias, &format!("of-new-{alias}-{}", file.len()));
        (line["AppID"], line["App"], line["User"]) = (Value::Null, json!("new app"), user);
        file += &format!("{line}\n");
    }
    let before = admin.records().await;
    let dry = import(&admin, "dry_run=true", file.clone()).await.json;
    assert_eq!(admin.records().await, before);
    let real = import(&admin, "", file).await.json;
    assert_eq!(counts(&dry), counts(&real));
    assert_eq!(counts(&real)[4], 6);
    assert_eq!(errors(&admin, &dry).await, errors(&admin, &real).await);
    assert_eq!((&dry["DryRun"], &real["DryRun"]), (&json!(true), &json!(false)));
    // User and app were made once.
    let users = admin.expect(200, "GET", "/users?p=-2", Value::Null).await;
    assert_eq!(
        users.as_array().unwrap().iter().filter(|u| u["Email"] == "new@acme.test").count(),
        1
    );
    let apps = admin.expect(200, "GET", "/apps?p=-2", Value::Null).await;
    assert_eq!(apps.as_array().unwrap().iter().filter(|a| a["Name"] == "new app").count(), 1);
}

#[tokio::test]
async fn an_import_that_aborts_applies_all_lines_or_none() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let before = admin.records().await;
    let file = ImportFile::new(500, app, plan, product);
    let reply = import(&admin, "on_error=abort", file.text.clone()).await;
    assert_eq!(reply.json["Status"], "aborted");
    assert_eq!(counts(&reply.json), [500, 0, 0, 0, 5]);
    assert_eq!(errors(&admin, &reply.json).await.len(), 5);
    assert_eq!(admin.records().await, before);
    let good: String = file
        .text
        .lines()
        .enumerate()
        .filter(|(at, _)| (at + 1) % 100 != 50)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    for expect in [[495, 495, 0, 0, 0], [495, 0, 0, 495, 0]] {
        let reply = import(&admin, "on_error=abort", good.clone()).await;
        assert_eq!((&reply.json["Status"], counts(&reply.json)), (&json!("completed"), expect));
    }
    // No line waits any more.
    let store = admin.catalog.store();
    let kind = turnpike::store::Kind::ImportPart;
    let parts =
        turnpike::store::RecordStore::list(&**store, kind, &[], None, 10_000).await.unwrap();
    assert!(parts.records.iter().all(|(key, _)| key.id[8] == 2), "drafts are left");
}

#[tokio::test]
async fn a_line_changes_what_it_names_and_leaves_the_rest() {
    let admin = Admin::start().await;
    let (plan_1, product, app) = admin.furnish().await;
    let plan_2 = id(&admin.expect(200, "POST", "/plans", plan("other")).await);
    let other = json!({ "Name": "other", "UserID": 1 });
    let other = id(&admin.expect(200, "POST", "/apps", other).await);
    let mut one = line(app, plan_1, product, "k", "LEG-00fa-91c2-77aa");
    one["MetaData"] = json!({ "tier": "gold" });
    assert_eq!(counts(&import(&admin, "", one.to_string()).await.json), [1, 1, 0, 0, 0]);
    let expires = admin.token("LEG-00fa-91c2-77aa").await.unwrap().expires_ms;
    assert!(expires.is_some(), "as the plan says");
    let mut two = line(app, plan_2, product, "k2", "LEG-00fa-91c2-77aa");
    assert_eq!(counts(&import(&admin, "mode=create", two.to_string()).await.json)[4], 1);
    assert_eq!(counts(&import(&admin, "", two.to_string()).await.json), [1, 0, 1, 0, 0]);
    assert_eq!(counts(&import(&admin, "mode=create", two.to_string()).await.json)[3], 1);
    let record = admin.token("LEG-00fa-91c2-77aa").await.unwrap();
    assert_eq!((record.plan, record.expires_ms), (Some(plan_2), expires));
    assert_eq!(record.metadata["tier"], "gold");
    // The old alias is free, the new one is not.
    let third = line(app, plan_1, product, "k", "LEG-third-token-0001");
    assert_eq!(counts(&import(&admin, "", third.to_string()).await.json)[1], 1);
    let fourth = line(app, plan_1, product, "k2", "LEG-fourth-token-001");
    let reply = import(&admin, "", fourth.to_string()).await.json;
    assert_eq!(errors(&admin, &reply).await[0]["code"], "alias_in_use");
    two["AppID"] = json!(other);
    let reply = import(&admin, "", two.to_string()).await.json;
    let error = &errors(&admin, &reply).await[0];
    assert_eq!((&error["code"], &error["field"]), (&json!("key_in_use"), &json!("KeyID")));
    let secret = line(app, plan_1, product, "s", SECRET);
    let reply = import(&admin, "", secret.to_string()).await.json;
    assert_eq!(errors(&admin, &reply).await[0]["message"], "must not be an admin token");
    // What is expired already can stand in the file a second time, but not come in.
    admin.clock.advance(Duration::from_secs(365 * 86_400));
    assert_eq!(counts(&import(&admin, "", third.to_string()).await.json)[3], 1);
}

#[tokio::test]
async fn a_file_that_is_the_whole_list_of_an_app_deletes_what_it_does_not_name() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let other = json!({ "Name": "other", "UserID": 1 });
    let other = id(&admin.expect(200, "POST", "/apps", other).await);
    let pair = json!({ "Alias": "pair", "Type": "CREDENTIAL_TYPE_CUSTOM", "CredentialKey": "k" });
    let path = format!("/apps/{app}/custom_credentials");
    admin.expect(201, "POST", &path, pair).await;
    let tokens = ["LEG-token-1-of-the-app", "LEG-token-2-of-the-app", "LEG-token-3-of-the-app"];
    let text = |wanted: &[usize], of: u64| -> String {
        let line = |n: &usize| line(of, plan, product, &format!("k{n}"), tokens[*n]).to_string();
        wanted.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(counts(&import(&admin, "", text(&[0, 1], app)).await.json)[1], 2);
    let theirs = line(other, plan, product, "theirs", "LEG-token-of-another-app").to_string();
    assert_eq!(counts(&import(&admin, "", theirs).await.json)[1], 1);
    let query = format!("mode=replace_app&app={app}");
    // Nothing is deleted while a line has a fault, or names another app.
    let faulty = text(&[2], app) + "\n" + &text(&[0], other);
    let reply = import(&admin, &query, faulty).await.json;
    assert_eq!((counts(&reply), &reply["Deleted"]), ([2, 1, 0, 0, 1], &json!(0)), "{reply}");
    assert_eq!(reply["Notes"], json!(["no credential was deleted, since lines have faults"]));
    for (dry, there) in [("&dry_run=true", true), ("&on_error=abort", false), ("", false)] {
        let reply = import(&admin, &format!("{query}{dry}"), text(&[1, 2], app)).await.json;
        let deleted = u64::from(there || dry == "&on_error=abort");
        assert_eq!(
            (counts(&reply), &reply["Deleted"]),
            ([2, 0, 0, 2, 0], &json!(deleted)),
            "{dry}"
        );
        assert_eq!(admin.token(tokens[0]).await.is_some(), there, "{dry}");
    }
    for token in [tokens[1], tokens[2], "LEG-token-of-another-app"] {
        assert!(admin.token(token).await.is_some(), "{token}");
    }
    let left = admin.expect(200, "GET", &path, Value::Null).await;
    assert_eq!(left.as_array().unwrap().len(), 3, "the pair is no token: {left}");
    let reply = import(&admin, "mode=replace_app", text(&[1], app)).await;
    assert_eq!((reply.status.as_u16(), faults(&reply.json).len()), (422, 1));
    let reply = import(&admin, "mode=replace_app&app=99", text(&[1], app)).await;
    assert_eq!((reply.status.as_u16(), &reply.json["Reason"]), (422, &json!("app names no app")));
}

#[tokio::test]
async fn used_units_go_on_counting_in_the_period_that_runs() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let mut one = line(app, plan, product, "k", "LEG-00fa-91c2-77aa");
    one["QuotaUsed"] = json!(420);
    one["QuotaRenews"] = json!("2026-03-02T12:00:00Z");
    let quota = async || {
        let shown = get(&admin, "/v1/usage/credentials/1").await.json;
        let limits = shown["limits"].as_array().unwrap().clone();
        let quota = limits.into_iter().find(|limit| limit["kind"] == "quota").unwrap();
        (
            quota["used"].as_u64().unwrap(),
            quota["remaining"].as_u64().unwrap(),
            quota["window_end"].clone(),
        )
    };
    for _ in 0..2 {
        import(&admin, "", one.to_string()).await;
        assert_eq!(quota().await, (420, 580, json!("2026-03-02T12:00:00.000Z")));
    }
    one["QuotaUsed"] = json!(500);
    assert_eq!(counts(&import(&admin, "", one.to_string()).await.json)[2], 1);
    assert_eq!(quota().await, (500, 500, json!("2026-03-02T12:00:00.000Z")));
    one["QuotaUsed"] = json!(5);
    assert_eq!(counts(&import(&admin, "", one.to_string()).await.json)[3], 1);
    assert_eq!(quota().await.0, 500, "units never come back");
    admin.clock.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(quota().await.0, 0, "the next period is whole");
}

#[tokio::test]
async fn an_import_is_shown_while_it_runs_and_can_be_ended() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let file = ImportFile::new(400, app, plan, product).text;
    let half = file.len() / 2;
    for way in ["cancel", "break"] {
        let (send, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(4);
        let stream = futures_util::stream::unfold(body, async |mut body| {
            body.recv().await.map(|chunk| (chunk, body))
        });
        let router = admin.router.clone();
        let request = Request::post("/v1/imports?format=ndjson&wait=60s");
        let request = request.header("Authorization", SECRET).header("Idempotency-Key", "one");
        let request = request.body(Body::from_stream(stream)).unwrap();
        let running = tokio::spawn(async move { router.oneshot(request).await.unwrap() });
        send.send(Ok(file[..half].to_owned())).await.unwrap();
        let shown = until(&admin, |import| {
            import["Status"] == "running" && 64 <= import["Total"].as_u64().unwrap()
        })
        .await;
        let again = Request::post("/v1/imports?format=ndjson").header("Authorization", SECRET);
        let again = again.header("Idempotency-Key", "one").body(Body::empty()).unwrap();
        assert_eq!(admin.raw(again).await.status, 409);
        let one = format!("/v1/imports/{}", id(&shown));
        let expect = if way == "cancel" {
            let request = Request::delete(&one).header("Authorization", SECRET);
            assert_eq!(admin.raw(request.body(Body::empty()).unwrap()).await.status, 200);
            send.send(Ok(file[half..].to_owned())).await.unwrap();
            drop(send);
            assert_eq!(running.await.unwrap().status(), 200);
            "cancelled"
        } else {
            send.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.unwrap();
            assert_eq!(running.await.unwrap().status(), 400);
            "interrupted"
        };
        let ended = until(&admin, |import| import["Status"] != "running").await;
        assert_eq!((&ended["Status"], id(&ended)), (&json!(expect), id(&shown)));
        let before = counts(&ended);
        assert_eq!(before[0], before[1] + before[3] + before[4], "applied lines are counted");
    }
    // A run that broke off is done again, and ends as one that did not.
    let again = import(&admin, "", file).await.json;
    let [total, created, _, unchanged, failed] = counts(&again);
    assert_eq!((total, created + unchanged, failed), (400, 396, 4));
    assert!(0 < unchanged && 0 < created, "{again}");
}

/// The newest import, once it is as wanted.
pub(crate) async fn until(admin: &Admin, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let all = get(admin, "/v1/imports").await.json;
        if let Some(newest) = all.get(0).filter(|newest| wanted(newest)) {
            return newest.clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "{all}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_with_its_status() {
    let admin = Admin::start().await;
    let before = admin.records().await;
    let post = async |query: &str, kind: &str, body: &str| {
        let request = Request::post(format!("/v1/imports?{query}"));
        let request = request.header("Authorization", SECRET).header("Content-Type", kind);
        admin.raw(request.body(Body::from(body.to_owned())).unwrap()).await
    };
    assert_eq!(post("", "application/json", "{}").await.status, 415);
    let reply = post("mode=x&on_error=y&dry_run=z", "text/csv", "").await;
    assert_eq!((reply.status.as_u16(), faults(&reply.json).len()), (422, 3));
    let reply = post("wait=9", "text/csv", "LEG-secret,robot\n").await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json["Status"], "failed");
    assert!(faults(&reply.json)[0].contains("no column key or key_hash"), "{reply:?}");
    assert!(!reply.json.to_string().contains("LEG"), "{reply:?}");
    let reply = post("wait=9", "application/x-ndjson", "LEG-secret\n{\"a\n").await;
    assert_eq!((reply.status.as_u16(), faults(&reply.json)), (422, vec!["no line can be read"]));
    assert_eq!(counts(&reply.json), [2, 0, 0, 0, 2]);
    let reply = post("wait=9", "application/x-ndjson", "").await;
    assert_eq!((reply.status.as_u16(), &reply.json["Status"]), (200, &json!("completed")));
    let request = Request::post("/v1/imports?format=csv").header("Authorization", SECRET);
    let request = request.header("Content-Length", 2_u64 << 30).body(Body::empty()).unwrap();
    assert_eq!(admin.raw(request).await.status, 413);
    for path in ["/v1/imports/999", "/v1/imports/x", "/v1/imports/999/errors"] {
        assert_eq!(get(&admin, path).await.status, 404, "{path}");
    }
    assert_eq!(admin.records().await, before);
    // Reports of old imports are forgotten.
    for _ in 0..25 {
        post("wait=9", "application/x-ndjson", "x").await;
    }
    assert_eq!(get(&admin, "/v1/imports").await.json.as_array().unwrap().len(), 20);
}

/// Files of lines that are right but for some members, of junk, and of rows.
fn hostile_file() -> impl Strategy<Value = Vec<u8>> {
    let names = proptest::sample::select(vec![
        "Line",
        "Alias",
        "KeyID",
        "KeyHash",
        "AppID",
        "App",
        "User",
        "PlanID",
        "ProductIDs",
        "UsagePlanIds",
        "Expires",
        "Active",
        "MetaData",
        "QuotaUsed",
        "QuotaRenews",
        "Value",
        "Name",
        "Email",
        "key",
        "alias",
        "metadata.x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!("LEG-00fa-91c2-77aa")),
        Just(json!("user@localhost")),
    ];
    let object =
        |inner: BoxedStrategy<Value>| proptest::collection::btree_map(names.clone(), inner, 0..6);
    let inner = object(leaf.clone().boxed()).prop_map(|members| json!(members));
    let line = object(prop_oneof![3 => leaf, 1 => inner].boxed()).prop_map(|changes| {
        let mut line = line(1, 1, 1, "a", "LEG-00fa-91c2-77aa");
        changes.into_iter().for_each(|(name, value)| line[name] = value);
        line.to_string().into_bytes()
    });
    let junk = proptest::collection::vec(any::<u8>(), 0..60);
    let row = ".{0,40}".prop_map(String::into_bytes);
    let lines = prop_oneof![4 => line, 1 => junk, 1 => row];
    proptest::collection::vec(lines, 0..6).prop_map(|lines| lines.join(&b'\n'))
}

/// A hostile file is answered as a file with faults, whatever its query and its bytes.
#[test]
fn no_file_is_answered_with_a_server_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin = runtime.block_on(async {
        let admin = Admin::start().await;
        admin.furnish().await;
        admin
    });
    let options = proptest::sample::subsequence(
        vec![
            "mode=create",
            "on_error=abort",
            "dry_run=1",
            "app=1",
            "plan=1",
            "products=1",
            "x=%ff",
        ],
        0..4,
    );
    let format = proptest::sample::select(vec!["ndjson", "csv"]);
    let cases = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) };
    proptest!(cases, |(file in hostile_file(), options in options, format in format)| {
        let query = format!("format={format}&wait=60&{}", options.join("&"));
        let file = if format == "csv" { [b"alias,key,app_id,plan\n", &*file].concat() } else { file };
        let request = Request::post(format!("/v1/imports?{query}")).header("Authorization", SECRET);
        let request = request.body(Body::from(file.clone())).unwrap();
        let reply = runtime.block_on(admin.raw(request));
        let text = String::from_utf8_lossy(&file);
        prop_assert!(reply.status.as_u16() < 500, "{} {}: {:?}", query, text, reply);
        prop_assert_ne!(reply.status.as_u16(), 202, "it ended");
        if reply.status == 200 {
            let [total, created, updated, unchanged, failed] = counts(&reply.json);
            let told = created + updated + unchanged + failed;
            prop_assert!(total == told || reply.json["OnError"] == "abort", "{:?}", reply);
        } else {
            prop_assert!(reply.json["errors"].is_array(), "{:?}", reply);
        }
    });
}
