//! Imports in full flow, the next commit prepared while the last is on its way: who changes the same
//! records comes in between, and no line is lost or applied twice.

use axum::body::Body;
use axum::response::Response;
use http::Request;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::admin_imports::{counts, errors, line, until};
use crate::admin_support::{Admin, SECRET, id};
use crate::import_file::ImportFile;
use crate::large_owners::{Place, on_every_store};

fn start(admin: &Admin, text: impl Into<Body>) -> JoinHandle<Response> {
    start_with(admin, "", text)
}

fn start_with(admin: &Admin, query: &str, text: impl Into<Body>) -> JoinHandle<Response> {
    let request = Request::post(format!("/v1/imports?format=ndjson&wait=60s{query}"));
    let request = request.header("Authorization", SECRET).body(text.into()).unwrap();
    let router = admin.router.clone();
    tokio::spawn(async move { router.oneshot(request).await.unwrap() })
}

async fn rows(admin: &Admin, app: u64) -> usize {
    let path = format!("/apps/{app}/custom_credentials?p=-2");
    admin.expect(200, "GET", &path, Value::Null).await.as_array().unwrap().len()
}

/// The app that lines go to is edited all the while.
async fn an_app_is_edited_while_lines_go_to_it(place: Place) {
    let admin = place.open().await;
    let (plan, product, app) = admin.furnish().await;
    let file = ImportFile::new(3_000, app, plan, product);
    let running = start(&admin, file.text.clone());
    let (mut edits, mut seen) = (0_u64, 0);
    loop {
        // A commit of it is through, and the next is on its way.
        let gone_on = |import: &Value| {
            seen < import["Total"].as_u64().unwrap() || import["Status"] != "running"
        };
        let shown = until(&admin, gone_on).await;
        if shown["Status"] != "running" {
            break;
        }
        (edits, seen) = (edits + 1, counts(&shown)[0]);
        let body = json!({ "Name": format!("edit {edits}"), "UserID": 1 });
        admin.expect(200, "PUT", &format!("/apps/{app}"), body).await;
    }
    assert_eq!(running.await.unwrap().status(), 200);
    let ended = until(&admin, |import| import["Status"] != "running").await;
    assert_eq!(ended["Status"], "completed_with_errors", "{ended}");
    let bad = file.faults.len();
    assert_eq!(counts(&ended), [3_000, file.good(), 0, 0, bad.try_into().unwrap()]);
    let lines = errors(&admin, &ended).await;
    let lines: Vec<_> = lines.iter().map(|error| error["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, file.faults.iter().map(|(line, _)| *line).collect::<Vec<_>>());
    assert_eq!(rows(&admin, app).await, usize::try_from(file.good()).unwrap());
    let name = admin.expect(200, "GET", &format!("/apps/{app}"), Value::Null).await;
    assert_eq!(name["Name"], format!("edit {edits}"), "{edits} edits");
}

/// It is ended although a commit follows on another; what is applied is what is told.
async fn an_import_is_ended_in_full_flow(place: Place) {
    let admin = place.open().await;
    let (plan, product, app) = admin.furnish().await;
    let file = ImportFile::new(20_000, app, plan, product);
    let running = start(&admin, file.text.clone());
    let shown = until(&admin, |import| 200 <= import["Total"].as_u64().unwrap()).await;
    let request = Request::delete(format!("/v1/imports/{}", id(&shown)));
    let request = request.header("Authorization", SECRET).body(Body::empty()).unwrap();
    let reply = admin.raw(request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(running.await.unwrap().status(), 200);
    let ended = until(&admin, |import| import["Status"] != "running").await;
    assert_eq!(ended["Status"], "cancelled", "{ended}");
    let [total, created, _, _, failed] = counts(&ended);
    assert!(total < 20_000 && total == created + failed, "{ended}");
    assert_eq!(rows(&admin, app).await, usize::try_from(created).unwrap());
}

/// Two imports into one app change it with every commit, and both come through.
async fn two_imports_into_one_app_come_through(place: Place) {
    let admin = place.open().await;
    let (plan, product, app) = admin.furnish().await;
    let text = |name: &str| -> String {
        let alias = |n: u32| format!("{name} {n}");
        let token = |n: u32| format!("LEG-{name}-{n:010}");
        let line = |n| line(app, plan, product, &alias(n), &token(n)).to_string() + "\n";
        (0..1_500).map(line).collect()
    };
    let both = ["one", "other"].map(|name| start(&admin, text(name)));
    for one in both {
        assert_eq!(one.await.unwrap().status(), 200);
    }
    assert_eq!(rows(&admin, app).await, 3_000);
}

/// How many lines before it a line refers to: within its commit, in the one before, two before, and at
/// their ends; commits are of 128 lines, or 512.
const DISTANCES: [u64; 12] = [1, 2, 127, 128, 129, 255, 256, 257, 384, 511, 513, 1_025];

/// Lines whose alias a line before them took are wrong, apps that lines before them made are found, and the
/// same lines with another plan change all.
async fn what_lines_before_left_is_known_at_any_distance(place: Place) {
    let admin = place.open().await;
    let (plan, product, app) = admin.furnish().await;
    let other = json!({ "Name": "other", "ProviderID": 1 });
    let other = id(&admin.expect(200, "POST", "/plans", other).await);
    let is_taken = |n: u64| n.is_multiple_of(7);
    let made = |n: u64| n / 300;
    let text = |plan: u64| -> String {
        let line = |n: u64| {
            let at = usize::try_from(n / 7).unwrap() % DISTANCES.len();
            let before = n.checked_sub(DISTANCES[at]).filter(|_| is_taken(n));
            let mut line = line(app, plan, product, "", &format!("LEG-distance-{n:010}"));
            let mut alias = before.unwrap_or(n);
            if n.is_multiple_of(11) {
                // An app and an owner that are made with the first line that names them.
                let user = json!({ "Email": format!("o{}@x.test", made(n)), "OrganisationID": 1 });
                line["AppID"] = Value::Null;
                (line["App"], line["User"]) = (json!("made"), user);
                alias = n;
            }
            line["Alias"] = json!(format!("alias {alias}"));
            line.to_string() + "\n"
        };
        (0..3_000).map(line).collect()
    };
    // The alias of a line whose own was taken is nobody's, unless it is one of those that took it.
    let mut aliases = std::collections::HashSet::new();
    let mut wrong = Vec::new();
    for (n, line) in (0..).zip(text(plan).lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let app = if line["AppID"].is_null() { made(n) + 1 } else { 0 };
        if !aliases.insert((app, line["Alias"].to_string())) {
            wrong.push(n + 1);
        }
    }
    assert!((200..400).contains(&wrong.len()), "{}", wrong.len());
    let bad = u64::try_from(wrong.len()).unwrap();
    for (plan, query, expect) in [
        (plan, "&dry_run=true", [3_000, 3_000 - bad, 0, 0, bad]),
        (plan, "&on_error=abort", [3_000, 0, 0, 0, bad]),
        (plan, "", [3_000, 3_000 - bad, 0, 0, bad]),
        (plan, "", [3_000, 0, 0, 3_000 - bad, bad]),
        (other, "", [3_000, 0, 3_000 - bad, 0, bad]),
    ] {
        assert_eq!(start_with(&admin, query, text(plan)).await.unwrap().status(), 200);
        let ended = until(&admin, |import| import["Status"] != "running").await;
        assert_eq!(counts(&ended), expect, "{ended}");
        let found = errors(&admin, &ended).await;
        assert!(found.iter().all(|error| error["code"] == "alias_in_use"), "{}", found[0]);
        let lines: Vec<_> = found.iter().map(|error| error["line"].as_u64().unwrap()).collect();
        assert_eq!(lines, wrong);
    }
    let apps = admin.expect(200, "GET", "/apps?p=-2", Value::Null).await;
    assert_eq!(apps.as_array().unwrap().len(), 1 + 10);
    let (path, other) = (format!("/apps/{app}/custom_credentials?p=-2"), other.to_string());
    let shown = admin.expect(200, "GET", &path, Value::Null).await;
    assert!(shown.as_array().unwrap().iter().all(|one| one["PlanID"] == other), "{}", shown[0]);
}

on_every_store! {
    what_lines_before_left_is_known_at_any_distance
    an_app_is_edited_while_lines_go_to_it
    an_import_is_ended_in_full_flow
    two_imports_into_one_app_come_through
}
