//! Imports that apply all lines or none: what may come between their first and their last commit.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::admin_imports::{counts, errors, line, until};
use crate::admin_support::{Admin, SECRET, credential, id};

/// Somebody would end the import, and somebody takes a token that a line brings.
async fn applied_in_pieces(admin: Admin) {
    let (plan, product, app) = admin.furnish().await;
    let other = json!({ "Name": "other", "UserID": 1 });
    let other = id(&admin.expect(200, "POST", "/apps", other).await);
    let before = admin.records().await;
    let token = |n: u64| format!("LEG-all-or-nothing-{n:05}");
    let lines = |count: u64| {
        (0..count).map(|n| line(app, plan, product, &format!("k{n}"), &token(n)).to_string() + "\n")
    };
    let cancel = async |import: u64| {
        let request = Request::delete(format!("/v1/imports/{import}"));
        admin.raw(request.header("Authorization", SECRET).body(Body::empty()).unwrap()).await
    };
    let start = |body: Body| {
        let request = Request::post("/v1/imports?format=ndjson&wait=60s&on_error=abort");
        let request = request.header("Authorization", SECRET).body(body).unwrap();
        tokio::spawn(admin.router.clone().oneshot(request))
    };
    // While lines are checked it can be ended, and none is applied.
    let (send, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(4);
    let stream = futures_util::stream::unfold(body, async |mut body| {
        body.recv().await.map(|chunk| (chunk, body))
    });
    let running = start(Body::from_stream(stream));
    send.send(Ok(lines(600).collect())).await.unwrap();
    let shown = until(&admin, |import: &Value| 64 <= import["Total"].as_u64().unwrap()).await;
    assert_eq!(cancel(id(&shown)).await.status, 200);
    send.send(Ok(lines(1).collect())).await.unwrap();
    drop(send);
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    let ended = until(&admin, |import: &Value| import["Status"] != "running").await;
    assert_eq!((&ended["Status"], &ended["Notes"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(counts(&ended)[1..4], [0, 0, 0]);
    assert_eq!(admin.records().await, before);
    // While they are applied it cannot.
    let all = 3_000;
    let running = start(Body::from(lines(all).collect::<String>()));
    let applying = |import: &Value| 0 < import["Created"].as_u64().unwrap();
    let shown = until(&admin, applying).await;
    assert_eq!(shown["Status"], "running", "{shown}");
    let path = format!("/apps/{other}/custom_credentials");
    let taken = credential("mine", &token(all - 1), plan, product);
    admin.expect(201, "POST", &path, taken).await;
    let reply = cancel(id(&shown)).await;
    assert_eq!(reply.status, 409, "{reply:?}");
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    let ended = until(&admin, |import: &Value| import["Status"] != "running").await;
    assert_eq!(ended["Status"], "completed_with_errors", "{ended}");
    assert_eq!(counts(&ended), [all, all - 1, 0, 0, 1]);
    let note = "all lines were right, but 2999 of 3000 are applied: 1 found a fault only then";
    assert_eq!(ended["Notes"], json!([note]));
    let found = errors(&admin, &ended).await;
    assert_eq!((found.len(), &found[0]["code"]), (1, &json!("key_in_use")));
    assert_eq!(
        (&found[0]["line"], &admin.token(&token(all - 1)).await.unwrap().app),
        (&json!(all), &Some(other))
    );
    for n in (0..all - 1).step_by(97) {
        assert_eq!(admin.token(&token(n)).await.unwrap().app, Some(app), "{n}");
    }
}

#[tokio::test]
async fn an_import_of_all_or_nothing_goes_on_once_it_is_applied() {
    applied_in_pieces(Admin::start().await).await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn an_import_of_all_or_nothing_goes_on_once_it_is_applied_in_redis() {
    let server = crate::redis_server::RedisServer::start();
    let store = turnpike::store::AnyStore::Redis(server.connect().await);
    let clock = std::sync::Arc::new(turnpike::clock::ManualClock::at(crate::admin_support::START));
    applied_in_pieces(Admin::on(store, tempfile::tempdir().unwrap(), clock).await).await;
}
