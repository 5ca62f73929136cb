use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use turnpike::store::{Kind, RecordStore};

use crate::admin_support::{Admin, SECRET, credential, id};

/// What comes back: status, body, and whether it was said to be a repeat.
type Got = (u16, Value, bool);

/// A write with a key, by whoever holds `token`.
async fn by(
    admin: &Admin,
    token: &str,
    key: &str,
    (method, path): (&str, &str),
    body: &Value,
) -> Got {
    let request = Request::builder().method(method).uri(path).header("Authorization", token);
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let request = request.header("Idempotency-Key", key).body(Body::from(text)).unwrap();
    let (parts, body) = admin.router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let repeated = parts.headers.get("idempotent-replayed").is_some();
    (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap(), repeated)
}

async fn send(admin: &Admin, key: &str, method: &str, path: &str, body: &Value) -> Got {
    by(admin, SECRET, key, (method, &format!("/portal-api{path}")), body).await
}

/// Sends a write twice, and expects that it was done once: its first answer, and the second's body.
async fn twice(admin: &Admin, key: &str, method: &str, path: &str, body: Value) -> (Value, Value) {
    let (status, first, repeated) = send(admin, key, method, path, &body).await;
    assert!(status < 300 && !repeated, "{method} {path}: {status} {first}");
    let before = admin.records().await;
    let (again, second, repeated) = send(admin, key, method, path, &body).await;
    assert!(again == status && repeated, "{method} {path}: {again} {second}");
    assert_eq!(admin.records().await, before, "{method} {path}: done twice");
    (first, second)
}

#[tokio::test]
async fn a_write_that_comes_again_is_done_once_and_answered_again() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let new_app = json!({ "Name": "again", "UserID": 1 });
    let (first, second) = twice(&admin, "k-app", "POST", "/apps", new_app.clone()).await;
    assert_eq!(first, second);
    let one = format!("/apps/{}", id(&first));
    let body = json!({ "PlanID": plan, "ProductIDs": [product] });
    let (first, second) = twice(&admin, "k", "PUT", &format!("/apps/{app}/provision"), body).await;
    assert_eq!(first, second);
    let all = format!("/apps/{app}/custom_credentials");
    let issued = id_of(&first, "CredentialID");
    let (first, second) =
        twice(&admin, "k", "POST", &format!("{all}/{issued}/rotate"), json!({})).await;
    assert!(first["KeyID"].as_str().unwrap().starts_with("tp_"), "{first}");
    assert_eq!((&second["ID"], &second["Withheld"]), (&json!(issued), &json!(["KeyID"])));
    // Who may see it reads it: the token is that of the first answer.
    let shown = admin.expect(200, "GET", &format!("{all}/{issued}"), Value::Null).await;
    assert_eq!(shown["KeyID"], first["KeyID"]);
    let body = credential("a", "LEG-once-0001", plan, product);
    let (first, second) = twice(&admin, "k", "POST", &all, body).await;
    assert_eq!((&first["KeyID"], second.get("KeyID")), (&json!("LEG-once-0001"), None));
    let (first, second) = twice(&admin, "k", "DELETE", &one, Value::Null).await;
    assert_eq!((&first, &second), (&json!({ "status": "ok" }), &first), "not 404");
    let body = json!({ "Name": "portal", "Scopes": ["read", "write"] });
    let tokens = ("POST", "/v1/admin/tokens");
    let (status, first, _) = by(&admin, SECRET, "k", tokens, &body).await;
    let (again, second, repeated) = by(&admin, SECRET, "k", tokens, &body).await;
    assert_eq!((status, again, repeated), (201, 201, true), "{second}");
    assert_eq!(second["Withheld"], json!(["Token"]));
    // Another client's key is another key, and so is that of another path or method.
    let token = first["Token"].as_str().unwrap();
    let apps = ("POST", "/portal-api/apps");
    let (status, other, repeated) = by(&admin, token, "k-app", apps, &new_app).await;
    assert_eq!((status, repeated), (200, false), "{other}");
    let (status, team, repeated) =
        send(&admin, "k-app", "POST", "/organisations", &json!({ "Name": "o" })).await;
    assert_eq!((status, repeated), (200, false), "{team}");
    nothing_of_a_token_is_kept(&admin, &[token, "LEG-once-0001", "tp_"]).await;
}

fn id_of(answer: &Value, member: &str) -> u64 {
    answer[member].as_u64().unwrap()
}

async fn nothing_of_a_token_is_kept(admin: &Admin, tokens: &[&str]) {
    let kept = admin.catalog.store().list(Kind::Answer, &[], None, 1_000).await.unwrap();
    assert!(10 < kept.records.len());
    for (_, record) in kept.records {
        let text = String::from_utf8_lossy(&record.value).into_owned();
        assert!(tokens.iter().all(|token| !text.contains(token)), "{text}");
    }
}

#[tokio::test]
async fn a_key_with_another_body_is_a_fault_and_a_refused_request_uses_none_up() {
    let admin = Admin::start().await;
    let body = |name: &str| json!({ "Name": name, "UserID": 1 });
    let (status, refused, _) = send(&admin, "k", "POST", "/apps", &json!({ "Name": "a" })).await;
    assert_eq!((status, &refused["errors"]), (422, &json!(["UserID is required"])));
    assert_eq!(send(&admin, "k", "POST", "/apps", &body("a")).await.0, 200, "it was not done");
    let before = admin.records().await;
    let (status, refused, _) = send(&admin, "k", "POST", "/apps", &body("b")).await;
    let text = json!(["Idempotency-Key was used with another body"]);
    assert_eq!((status, &refused["errors"]), (422, &text));
    let long = "x".repeat(256);
    for key in ["", "two words", "naïve", &long] {
        let (status, refused, _) = send(&admin, key, "POST", "/apps", &body("c")).await;
        assert_eq!(status, 422, "{key}: {refused}");
    }
    assert_eq!(admin.records().await, before);
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day_and_then_forgotten() {
    let admin = Admin::start().await;
    let body = json!({ "Name": "a", "UserID": 1 });
    let first = send(&admin, "k", "POST", "/apps", &body).await;
    for n in 0..9 {
        send(&admin, &format!("other-{n}"), "POST", "/apps", &body).await;
    }
    admin.clock.advance(Duration::from_secs(86_400) - Duration::from_millis(1));
    let (_, again, repeated) = send(&admin, "k", "POST", "/apps", &body).await;
    assert!(repeated && again == first.1, "{again}");
    admin.clock.advance(Duration::from_millis(1));
    let (_, anew, repeated) = send(&admin, "k", "POST", "/apps", &body).await;
    assert!(!repeated && anew["ID"] != first.1["ID"], "{anew}");
    let kept = async || {
        let page = admin.catalog.store().list(Kind::Answer, &[], None, 1_000).await.unwrap();
        page.records.len()
    };
    for n in 0..3 {
        send(&admin, &format!("new-{n}"), "POST", "/apps", &body).await;
    }
    assert_eq!(kept().await, 8, "four answers and their turns: those of yesterday are gone");
    let (_, again, repeated) = send(&admin, "k", "POST", "/apps", &body).await;
    assert!(repeated && again == anew, "what was used again is not forgotten with them: {again}");
    // As when thousands of others came meanwhile.
    admin.catalog.store().next_id(Kind::Answer, 20_000).await.unwrap();
    send(&admin, "last", "POST", "/apps", &body).await;
    assert_eq!(kept().await, 2, "there is a bound in number, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twins_that_come_at_the_same_moment_are_done_once() {
    let admin = std::sync::Arc::new(Admin::start().await);
    let (plan, product, app) = admin.furnish().await;
    let all = format!("/apps/{app}/custom_credentials");
    for round in 0..5 {
        for (path, body) in [
            ("/apps", json!({ "Name": format!("a-{round}"), "UserID": 1 })),
            // Names that are in use refuse whoever comes second.
            (&all, credential(&format!("a-{round}"), &format!("token-{round}"), plan, product)),
        ] {
            let key = format!("k-{round}");
            let twins = (0..8).map(|_| {
                let (admin, key, path) =
                    (std::sync::Arc::clone(&admin), key.clone(), path.to_owned());
                let body = body.clone();
                tokio::spawn(async move { send(&admin, &key, "POST", &path, &body).await })
            });
            let got: Vec<_> = join_all(twins).await.into_iter().map(Result::unwrap).collect();
            let first = id(&got[0].1);
            assert!(
                got.iter().all(|(status, body, _)| *status < 300 && id(body) == first),
                "{got:?}"
            );
            assert_eq!(got.iter().filter(|(_, _, repeated)| !repeated).count(), 1, "{got:?}");
        }
    }
}

/// What changes nothing is answered anew each time, and whoever may only read leaves no record.
#[tokio::test]
async fn a_question_with_a_key_is_asked_anew() {
    let admin = Admin::start().await;
    let question = json!({ "KeyID": "nobodys", "Path": "/nowhere" });
    for _ in 0..2 {
        let asked = ("POST", "/v1/explain");
        let (status, _, repeated) = by(&admin, SECRET, "k", asked, &question).await;
        assert_eq!((status, repeated), (200, false));
    }
    let kept = admin.catalog.store().list(Kind::Answer, &[], None, 10).await.unwrap();
    assert!(kept.records.is_empty());
}
