//! Owners with more credentials than a commit holds: deleted and moved in steps, on every store,
//! also when the gateway is cut off in the middle.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;
use turnpike::clock::ManualClock;
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedStore};
#[cfg(feature = "redis")]
use turnpike::store::feed::Changes;
use turnpike::store::{AnyStore, Generation, Kind, RecordKey, RecordStore, StoreError};
use turnpike::wire::record::KeyRecord;

use crate::admin_support::{Admin, SECRET, START, credential, id};
#[cfg(feature = "redis")]
use crate::redis_server::RedisServer;

/// Credentials of the app: a dozen commits of the embedded store, four dozen of Redis.
const COUNT: usize = 3_000;

/// Runs each case on each store: a new store is one more module.
macro_rules! on_every_store {
    ($($case:ident)*) => {
        mod on_embedded {
            $(#[tokio::test]
            async fn $case() {
                super::$case(crate::large_owners::Place::embedded()).await;
            })*
        }

        #[cfg(feature = "redis")]
        mod on_redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case(crate::large_owners::Place::redis()).await;
            })*
        }
    };
}
pub(crate) use on_every_store;

/// Where a gateway keeps what it knows: on a disk, or in Redis.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    #[cfg(feature = "redis")]
    server: Option<RedisServer>,
}

impl Place {
    pub(crate) fn embedded() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            #[cfg(feature = "redis")]
            server: None,
        }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn redis() -> Self {
        Self { server: Some(RedisServer::durable()), ..Self::embedded() }
    }

    pub(crate) async fn open(&self) -> Admin {
        let clock = Arc::new(ManualClock::at(START));
        #[cfg(feature = "redis")]
        if let Some(server) = &self.server {
            let store = AnyStore::Redis(server.connect().await);
            return Admin::on(store, tempfile::tempdir().unwrap(), clock).await;
        }
        let store = loop {
            let options = EmbeddedOptions::default();
            match EmbeddedStore::open(self.folder.path(), options, clock.clone()) {
                // Tasks of the earlier run still hold it: let them end.
                Err(StoreError::InUse) => tokio::task::yield_now().await,
                other => break AnyStore::Embedded(other.unwrap()),
            }
        };
        Admin::on(store, tempfile::tempdir().unwrap(), clock).await
    }

    /// From here on it is noted what commits are made of.
    pub(crate) async fn note_commits(&self, admin: &Admin) -> Generation {
        #[cfg(feature = "redis")]
        if let Some(server) = &self.server {
            for (name, value) in [("slowlog-log-slower-than", "0"), ("slowlog-max-len", "100000")] {
                assert_eq!(server.command(&["CONFIG", "SET", name, value]), "OK");
            }
            assert_eq!(server.command(&["SLOWLOG", "RESET"]), "OK");
        }
        admin.catalog.store().generation().await.unwrap()
    }

    /// The edits of so many objects after `from` went through in commits that no store is busy with for
    /// long.
    pub(crate) async fn commits_are_small(&self, admin: &Admin, from: Generation, count: usize) {
        let store = admin.catalog.store();
        let last = store.generation().await.unwrap();
        #[cfg(feature = "redis")]
        if let Some(server) = &self.server {
            let (mut at, mut commits) = (from, 0);
            while at < last {
                let Changes::Next(next) = store.changes(at).await.unwrap() else {
                    panic!("the feed has a gap after {at:?}");
                };
                commits += next.len();
                at = next.last().map_or(at, |change| change.generation);
            }
            assert!(count / 64 <= commits, "{commits} commits");
            // A record has a key, a value or a condition, and a place in an index.
            let log = server.command(&["SLOWLOG", "GET", "100000"]);
            let more = |line: &str| {
                let (more, _) = line.strip_prefix("... (")?.split_once(" more arguments)")?;
                more.parse::<usize>().ok()
            };
            let most = log.lines().filter_map(more).max().unwrap();
            assert!(most <= 3 * (64 * 9 + 9), "{most} arguments");
            return;
        }
        assert!(count as u64 / 256 <= last.0 - from.0, "{from:?} to {last:?}");
    }

    /// Sends a request, and returns once a token is as `begun` says: the request is under way.
    async fn begin(
        admin: &Admin,
        (method, path, body): (&str, &str, &Value),
        (token, begun): (&str, impl Fn(Option<KeyRecord>) -> bool),
    ) -> Running {
        let request = Request::builder().method(method).uri(format!("/portal-api{path}"));
        let request = request.header("Authorization", SECRET);
        let request = request.body(Body::from(body.to_string())).unwrap();
        let running = tokio::spawn(admin.router.clone().oneshot(request));
        while !begun(admin.token(token).await) {
            tokio::task::yield_now().await;
        }
        running
    }

    /// Sends a request, cuts the gateway off its store once the first of these tokens is as
    /// `begun` says, and starts another one.
    pub(crate) async fn cut(
        &mut self,
        admin: Admin,
        request: (&str, &str, &Value),
        first: (&str, impl Fn(Option<KeyRecord>) -> bool),
    ) -> Admin {
        let running = Self::begin(&admin, request, first).await;
        #[cfg(feature = "redis")]
        if let Some(server) = &mut self.server {
            server.kill();
        }
        admin.catalog.store().release().unwrap();
        assert_eq!(running.await.unwrap().unwrap().status(), 503, "{request:?}");
        drop(admin);
        #[cfg(feature = "redis")]
        if let Some(server) = &mut self.server {
            server.restart();
        }
        self.open().await
    }
}

/// A request under way.
type Running = tokio::task::JoinHandle<Result<axum::response::Response, std::convert::Infallible>>;

/// An app with many credentials.
struct Large {
    app: u64,
    tokens: Vec<String>,
}

impl Large {
    /// Makes one that belongs to a user.
    async fn new(admin: &Admin, user: u64, (plan, product): (u64, u64)) -> Self {
        let app = json!({ "Name": "large", "UserID": user });
        let app = id(&admin.expect(200, "POST", "/apps", app).await);
        let tokens: Vec<_> = (0..COUNT).map(|n| format!("LEG-large-app-{n:04}")).collect();
        let line = |(n, token): (usize, &String)| {
            json!({ "AppID": app, "Alias": format!("k{n}"), "KeyID": token, "PlanID": plan,
                    "ProductIDs": [product] })
            .to_string()
        };
        let lines: Vec<_> = tokens.iter().enumerate().map(line).collect();
        let request = Request::post("/v1/imports?format=ndjson&wait=60s");
        let request = request.header("Authorization", SECRET).body(lines.join("\n").into());
        let reply = admin.raw(request.unwrap()).await;
        assert_eq!(reply.json["Created"], COUNT, "{reply:?}");
        Self { app, tokens }
    }

    /// How many of its tokens are known.
    async fn known(&self, admin: &Admin) -> usize {
        self.records(admin).await.len()
    }

    /// What gateways enforce of its tokens: owners and organisations.
    async fn owners(&self, admin: &Admin) -> BTreeSet<(Option<u64>, Option<u64>)> {
        let all = self.records(admin).await;
        all.iter().map(|record| (record.user, record.organisation)).collect()
    }

    async fn records(&self, admin: &Admin) -> Vec<KeyRecord> {
        let pepper = admin.catalog.pepper();
        let key = |token: &String| RecordKey::bytes(Kind::Token, pepper.hash(token.as_bytes()).0);
        let keys: Vec<_> = self.tokens.iter().map(key).collect();
        let found = admin.catalog.store().get_all(&keys).await.unwrap();
        let found = found.into_iter().flatten();
        found.map(|record| serde_json::from_slice(&record.value).unwrap()).collect()
    }
}

/// The names of all records: an owner that is gone leaves none.
async fn names(admin: &Admin) -> Vec<RecordKey> {
    admin.records().await.into_iter().map(|(key, _)| key).collect()
}

/// Deletes an app, and a user with another: all tokens are unknown, and nothing is left of them.
async fn a_large_app_and_a_large_user_are_deleted_whole(place: Place) {
    let admin = place.open().await;
    let (plan, product, _) = admin.furnish().await;
    let before = names(&admin).await;
    for of_user in [false, true] {
        let user = if of_user {
            id(&admin.expect(200, "POST", "/users", json!({ "Email": "a@acme.test" })).await)
        } else {
            1
        };
        let large = Large::new(&admin, user, (plan, product)).await;
        let request = json!({ "AuthType": "authToken", "PlanID": plan, "ProductIDs": [product] });
        admin.expect(200, "PUT", &format!("/apps/{}/provision", large.app), request).await;
        let from = place.note_commits(&admin).await;
        let path = if of_user { format!("/users/{user}") } else { format!("/apps/{}", large.app) };
        admin.expect(200, "DELETE", &path, Value::Null).await;
        assert_eq!(large.known(&admin).await, 0, "{path}");
        assert_eq!(names(&admin).await, before, "{path}");
        admin.expect(404, "DELETE", &path, Value::Null).await;
        place.commits_are_small(&admin, from, COUNT).await;
    }
}

/// Deletes an app; the gateway is cut off in the middle: what is left is still an app, and the same
/// request deletes it.
async fn a_large_app_half_deleted_is_deleted_again(mut place: Place) {
    let admin = place.open().await;
    let (plan, product, _) = admin.furnish().await;
    let before = admin.records().await;
    let large = Large::new(&admin, 1, (plan, product)).await;
    let path = format!("/apps/{}", large.app);
    let request = ("DELETE", &*path, &Value::Null);
    let admin = place.cut(admin, request, (&large.tokens[0], |found| found.is_none())).await;
    let left = large.known(&admin).await;
    assert!(0 < left && left < COUNT, "{left}");
    let list = format!("{path}/custom_credentials?p=-2");
    let shown = admin.expect(200, "GET", &list, Value::Null).await;
    assert_eq!(shown.as_array().unwrap().len(), left, "what is shown is enforced");
    admin.expect(200, "DELETE", &path, Value::Null).await;
    assert_eq!(large.known(&admin).await, 0);
    assert_eq!(admin.records().await, before);
}

/// Adds a credential to an app that is being deleted: it goes, too.
async fn what_is_added_to_an_app_while_it_is_deleted_goes_with_it(place: Place) {
    let admin = place.open().await;
    let (plan, product, _) = admin.furnish().await;
    let before = names(&admin).await;
    let large = Large::new(&admin, 1, (plan, product)).await;
    let path = format!("/apps/{}", large.app);
    let request = ("DELETE", &*path, &Value::Null);
    let running = Place::begin(&admin, request, (&large.tokens[0], |found| found.is_none())).await;
    let late = credential("late", "LEG-a-late-comer", plan, product);
    admin.expect(201, "POST", &format!("{path}/custom_credentials"), late).await;
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    assert_eq!(admin.token("LEG-a-late-comer").await, None);
    assert_eq!(names(&admin).await, before);
}

/// Moves an app, then its user, then everybody of an organisation: each time the gateway is cut off
/// in the middle, and the same request goes on.
async fn a_large_owner_half_moved_is_moved_again(mut place: Place) {
    let admin = place.open().await;
    let (plan, product, _) = admin.furnish().await;
    let mut made = Vec::new();
    for name in ["Acme", "Beta"] {
        let body = json!({ "Name": name });
        made.push(id(&admin.expect(200, "POST", "/organisations", body).await));
    }
    let user = json!({ "Email": "a@acme.test", "OrganisationID": made[0] });
    let user = id(&admin.expect(200, "POST", "/users", user).await);
    let large = Large::new(&admin, 1, (plan, product)).await;
    let home = (Some(1), Some(1));
    assert_eq!(large.owners(&admin).await, BTreeSet::from([home]));
    let member = json!({ "Email": "a@acme.test", "OrganisationID": made[1] });
    let (mut admin, mut was) = (admin, home);
    for ((method, path, body), now) in [
        (("PUT", format!("/apps/{}", large.app), json!({ "UserID": user })), made[0]),
        (("PUT", format!("/users/{user}"), member), made[1]),
        (("DELETE", format!("/organisations/{}", made[1]), Value::Null), 1),
    ] {
        let now = (Some(user), Some(now));
        let begun = |record: Option<KeyRecord>| {
            record.is_some_and(|record| (record.user, record.organisation) == now)
        };
        let request = (method, &*path, &body);
        admin = place.cut(admin, request, (&large.tokens[0], begun)).await;
        assert_eq!(large.owners(&admin).await, BTreeSet::from([was, now]), "half of {path}");
        admin.expect(200, method, &path, body).await;
        assert_eq!(large.owners(&admin).await, BTreeSet::from([now]), "{path}");
        was = now;
    }
    admin.expect(404, "GET", &format!("/organisations/{}", made[1]), Value::Null).await;
    // Nothing remembers the moves.
    for (key, value) in admin.records().await {
        let text = String::from_utf8_lossy(&value).into_owned();
        assert!(!text.contains("unsettled"), "{key:?} {text}");
    }
    let left = admin.expect(200, "GET", &format!("/organisations/{}", made[0]), Value::Null).await;
    assert_eq!(left["Users"], json!([]), "it left when its tokens had");
}

/// Gives a user an attribute, and takes it away: each time the gateway is cut off in the middle, and
/// the same request sees it through.
async fn an_attribute_half_told_is_told_again(mut place: Place) {
    let mut admin = place.open().await;
    let (plan, product, _) = admin.furnish().await;
    let large = Large::new(&admin, 1, (plan, product)).await;
    let all = "/users/1/custom-attributes";
    let new = json!({"Name": "tier", "Value": "gold", "AddToKeyMetadata": true});
    for (method, path, body, told) in [
        ("POST", all.to_owned(), new, Some(&json!("gold"))),
        ("DELETE", format!("{all}/1"), Value::Null, None),
    ] {
        let begun = |record: Option<KeyRecord>| {
            record.is_some_and(|record| record.attributes.get("tier") == told)
        };
        admin = place.cut(admin, (method, &path, &body), (&large.tokens[0], begun)).await;
        admin.expect(if told.is_some() { 201 } else { 200 }, method, &path, body).await;
        for token in &large.tokens {
            let record = admin.token(token).await.unwrap();
            assert_eq!(record.attributes.get("tier"), told, "{method}");
        }
    }
    let left = admin.expect(200, "GET", all, Value::Null).await;
    assert_eq!(left, json!([]));
}

on_every_store! {
    a_large_app_and_a_large_user_are_deleted_whole
    a_large_app_half_deleted_is_deleted_again
    what_is_added_to_an_app_while_it_is_deleted_goes_with_it
    a_large_owner_half_moved_is_moved_again
    an_attribute_half_told_is_told_again
}
