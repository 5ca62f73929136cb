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
    let request = Request::post("/v1/imports?format=ndjson&wait=60s");
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

on_every_store! {
    an_app_is_edited_while_lines_go_to_it
    an_import_is_ended_in_full_flow
    two_imports_into_one_app_come_through
}
