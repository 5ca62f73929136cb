use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use turnpike::clock::{Clock, SystemClock};
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedStore};

use crate::admin_envelope::{json_value, member, query, templates};
use crate::admin_support::{credential, plan, product};
use crate::process::{Answer, Gateway, SECRET, Upstream, read_answer, until};

/// Requests that one gateway gets: with more of them what they name has been deleted long ago.
const REQUESTS: usize = 200;
/// Gateways, one after the other.
const ROUNDS: u64 = 10;

/// Tokens that requests are sent with; most of them are the secret.
const TOKENS: usize = 40;

/// One request of a hostile client.
#[derive(Clone, Debug)]
struct Hostile {
    method: String,
    target: String,
    headers: Vec<(&'static str, String)>,
    /// Who it says it is, by number among the tokens that there are and some that there are not.
    who: usize,
    body: Vec<u8>,
}

/// Ids that there are, that there are not, and that are none.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just("1".to_owned()),
        9 => (0_u32..5).prop_map(|n| n.to_string()),
        1 => proptest::sample::select(vec!["%ff", "%", "%zz", "%00", "%2f", "%c3%28", "..", ""])
            .prop_map(str::to_owned),
        1 => "[a-zA-Z0-9%._~!$&'()*+,;=:@-]{1,8}",
        1 => Just("18446744073709551616".to_owned()),
    ]
}

fn target() -> impl Strategy<Value = String> {
    let known = templates().into_iter().chain(
        ["/live", "/ready", "/metrics", "/hello", "/", "/portal-api", "/v1", "/tyk/keys/{id}"]
            .map(str::to_owned),
    );
    let known = proptest::sample::select(known.collect::<Vec<_>>());
    let known = (known, proptest::collection::vec(part(), 4));
    let known = known.prop_map(|(path, parts)| filled(&path, parts));
    let known = known.boxed();
    let strange = proptest::collection::vec(part(), 1..6).prop_map(|parts| parts.join("/")).boxed();
    let path = prop_oneof![
        14 => known.clone(),
        1 => strange.clone().prop_map(|path| format!("/{path}")),
        1 => strange.prop_map(|path| format!("/v1/{path}")),
        1 => known.prop_map(|path| format!("http://elsewhere.test{path}")),
    ];
    (path, query()).prop_map(|(path, query)| match query.is_empty() {
        true => path,
        false => format!("{path}?{query}"),
    })
}

/// Writes as a portal sends them.
fn usual() -> Vec<(&'static str, &'static str, Value)> {
    let own = "/apps/{app}/custom_credentials";
    let one = "/apps/{app}/custom_credentials/{id}";
    vec![
        ("POST", "/apps", json!({ "Name": "robot", "UserID": 1 })),
        ("PUT", "/apps/{id}", json!({ "UserID": 2 })),
        ("DELETE", "/apps/{id}", json!({})),
        ("POST", "/users", json!({ "Email": "a@b.test", "OrganisationID": 2, "Teams": [2] })),
        ("PUT", "/users/{id}", json!({ "OrganisationID": 1, "Teams": [1] })),
        ("DELETE", "/users/{id}", json!({})),
        ("POST", "/organisations", json!({ "Name": "acme" })),
        ("DELETE", "/organisations/{id}", json!({})),
        ("POST", "/organisations/{id}/teams", json!({ "Name": "team", "Users": [1] })),
        ("DELETE", "/organisations/{organisation}/teams/{id}", json!({})),
        ("POST", "/plans", plan("tier")),
        ("POST", "/plans", json!({ "Name": "slow", "ProviderID": 1 })),
        ("PUT", "/plans/{id}", json!({ "Catalogues": [1] })),
        ("DELETE", "/plans/{id}", json!({})),
        ("POST", "/products", product("of a", "a")),
        ("PUT", "/products/{id}", json!({ "APIDetails": [{ "APIID": "b" }] })),
        ("DELETE", "/products/{id}", json!({})),
        ("POST", "/catalogues", json!({ "Name": "shelf", "Products": [1], "Plans": [1] })),
        ("POST", "/catalogues/{catalogue}/audiences", json!({ "OrganisationID": 2 })),
        ("DELETE", "/catalogues/{id}", json!({})),
        ("POST", own, credential("alias", "LEG-00fa-91c2", 1, 1)),
        ("POST", own, credential("other", "LEG-00fa-91c3", 2, 2)),
        ("PUT", one, json!({ "Active": false, "ProductIDs": [1, 2] })),
        ("POST", "/apps/{app}/custom_credentials/{id}/rotate", json!({ "GracePeriod": 60 })),
        ("POST", "/apps/{app}/custom_credentials/{id}/reset_quota", json!({})),
        ("DELETE", one, json!({})),
        ("PUT", "/apps/{id}/provision", json!({ "PlanID": 1, "ProductIDs": [1] })),
        ("PUT", "/apps/{id}/provision", json!({ "PlanID": 2, "ProductIDs": [1] })),
        ("PUT", "/apps/{id}/provision", json!({ "CredentialID": 1, "PlanID": 2 })),
        ("PUT", "/access_requests/{id}/approve", json!({})),
        ("PUT", "/access_requests/{id}/reject", json!({})),
        ("PUT", "/organisations/1/teams/{id}", json!({ "Users": [1, 2] })),
        ("PUT", "/catalogues/{id}", json!({ "Products": [2], "Plans": [] })),
        ("POST", "/users/{id}/custom-attributes", json!({ "Name": "tier", "Value": "gold" })),
        ("PUT", "/users/{id}/custom-attributes/1", json!({ "Value": "silver" })),
        ("DELETE", "/users/{id}/custom-attributes/{attribute}", json!({})),
        ("DELETE", "/access_requests/{id}", json!({})),
    ]
}

/// Writes that are right but for a member or two, and the names in them.
fn fitting() -> impl Strategy<Value = (String, String, Vec<u8>)> {
    let others = proptest::collection::vec((member(), json_value()), 0..2);
    let others = prop_oneof![2 => Just(Vec::new()), 1 => others];
    let ids = proptest::collection::vec(part(), 3);
    let all = (proptest::sample::select(usual()), ids, others, "[a-c]{0,2}");
    all.prop_map(|((method, path, mut body), ids, others, suffix)| {
        for name in ["Name", "Email", "Alias", "KeyID"] {
            if let Some(Value::String(text)) = body.get_mut(name) {
                text.push_str(&suffix);
            }
        }
        body.as_object_mut().unwrap().extend(others);
        let path = format!("/portal-api{}", filled(path, ids));
        (method.to_owned(), path, body.to_string().into_bytes())
    })
}

/// A path with these in place of its parameters.
fn filled(path: &str, parts: Vec<String>) -> String {
    let mut parts = parts.into_iter();
    let fill = |part: &str| match part.starts_with('{') {
        true => parts.next().unwrap(),
        false => part.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

/// Objects of anything, lines of an import, and what is no object.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let right = fitting().prop_map(|(_, _, body)| body).boxed();
    let objects = proptest::collection::hash_map(member(), json_value(), 0..12);
    let objects = objects.prop_map(|body| Value::Object(body.into_iter().collect()).to_string());
    let line = r#"\{"KeyID":"tok-[a-c]{1,3}","AppID":1,"PlanID":1,"ProductIDs":\[1\]\}"#;
    let lines = proptest::string::string_regex(&format!("({line}\n){{0,4}}")).unwrap();
    prop_oneof![
        3 => right.clone(),
        2 => objects.prop_map(String::into_bytes),
        1 => lines.prop_map(String::into_bytes),
        1 => (right, any::<prop::sample::Index>()).prop_map(|(mut text, at)| {
            text.truncate(at.index(text.len()));
            text
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
        1 => proptest::sample::select(vec!["", "null", "[]", "[[[[", "\"\\ud800\"", "1e999"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let garbage = "[\\x21-\\x7e\u{e9}]{1,12}";
    let one = |name, known: &'static [&str]| {
        let known = proptest::sample::select(known.to_vec()).prop_map(str::to_owned);
        prop_oneof![9 => known, 1 => garbage].prop_map(move |value| (name, value))
    };
    let all = prop_oneof![
        3 => one("Idempotency-Key", &["k1", "k2", "k3", "k4", "two words", ""]),
        1 => one("X-Portal-Compat", &["1.12", "1.13", ""]),
        1 => one("Accept", &["*/*", "application/json", "*/*;q=0.1", "application/graphql"]),
        2 => one("Content-Type", &["application/json", "text/csv", "application/x-ndjson", ""]),
        1 => one("X-Request-Id", &["1", "<script>"]),
    ];
    proptest::collection::vec(all, 0..3)
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let usual = ["GET", "POST", "POST", "POST", "PUT", "PUT", "DELETE"];
    let odd = ["HEAD", "PATCH", "OPTIONS", "TRACE", "BREW", "get"];
    let method = prop_oneof![
        12 => proptest::sample::select(usual.to_vec()),
        1 => proptest::sample::select(odd.to_vec()),
    ];
    let odd = (method.prop_map(str::to_owned), target(), body());
    let call = prop_oneof![2 => fitting(), 1 => odd];
    (call, headers(), 0..TOKENS + 2).prop_map(|((method, target, body), headers, who)| Hostile {
        method,
        target,
        headers,
        who,
        body,
    })
}

/// A gateway, and the tokens of its clients.
struct Lab {
    folder: tempfile::TempDir,
    gateway: Gateway,
    tokens: Vec<String>,
}

impl Lab {
    fn start() -> Self {
        let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
        let gateway = Gateway::start(folder.path(), &upstream);
        gateway.import("first-token", json!({"UnlimitedRateLimit": true, "Quota": 5}));
        let mut tokens = vec![SECRET.to_owned(); TOKENS - 6];
        for scopes in [&["write", "read"][..], &["read"], &["write"], &["import"], &["usage"]] {
            let body = json!({"Name": scopes.join(" and "), "Scopes": scopes});
            let made = gateway.admin("POST", "/v1/admin/tokens", &body);
            tokens.push(made.json()["Token"].as_str().unwrap().to_owned());
        }
        tokens.push(format!("Bearer {SECRET}x"));
        Self { folder, gateway, tokens }
    }

    /// Sends one over a connection of its own.
    fn send(&self, request: &Hostile) -> Answer {
        let Hostile { method, target, headers, who, body } = request;
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\n");
        if let Some(token) = self.tokens.get(*who) {
            head += &format!("Authorization: {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        let stream = TcpStream::connect(self.gateway.admin).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut stream = BufReader::new(stream);
        // Who is refused by its head alone need not be read to the end.
        let _read = stream.get_mut().write_all(&[head.as_bytes(), body].concat());
        read_answer(&mut stream, method).unwrap_or_else(|error| panic!("{error}: {request:?}"))
    }
}

fn check(request: &Hostile, answer: &Answer) {
    let told = |fault: &str| format!("{fault}: {request:?} {answer:?}");
    // 501 is what paths of the portal's website say.
    let fine = (200..500).contains(&answer.status) || answer.status == 501;
    assert!(fine, "{}", told("status"));
    if request.method == "HEAD" {
        return;
    }
    let kind = answer.headers.get("content-type").map(String::as_str).unwrap_or_default();
    if answer.status < 300 && kind.starts_with("text/plain") {
        return assert!(request.target.contains("/metrics"), "{}", told("text"));
    }
    if answer.status < 300 && kind == "application/x-ndjson" {
        let mut lines = answer.body.lines();
        return assert!(lines.all(|line| serde_json::from_str::<Value>(line).is_ok()));
    }
    assert_eq!(kind, "application/json", "{}", told("content type"));
    let body = answer.json();
    if 400 <= answer.status {
        let errors = body["errors"].as_array().filter(|errors| !errors.is_empty());
        let texts = errors.is_some_and(|errors| errors.iter().all(Value::is_string));
        assert!(texts, "{}", told("no envelope"));
        // An error says what is wrong, not what was sent in a secret's place.
        assert!(!answer.body.contains("LEG-00fa"), "{}", told("a token"));
    }
}

#[test]
fn a_hostile_client_gets_the_envelope_and_leaves_nothing_half_written() {
    let seed = std::env::var("TURNPIKE_HOSTILE_SEED").ok();
    let seed = seed.map_or(SystemClock.unix().0, |text| text.parse().unwrap());
    let mut statuses = BTreeMap::new();
    for seed in seed..seed + ROUNDS {
        eprintln!("TURNPIKE_HOSTILE_SEED={seed}");
        round(seed, &mut statuses);
    }
    eprintln!("answers by status: {statuses:?}");
    let done: usize = statuses.range(200..300).map(|(_, count)| count).sum();
    let all: usize = statuses.values().sum();
    assert!(all / 20 < done, "hardly anything was done: {statuses:?}");
}

/// One gateway and its requests; then its store is looked at.
fn round(seed: u64, statuses: &mut BTreeMap<u16, usize>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let (lab, hostile) = (Lab::start(), hostile());
    for _ in 0..REQUESTS {
        let request = hostile.new_tree(&mut runner).unwrap().current();
        let answer = lab.send(&request);
        check(&request, &answer);
        *statuses.entry(answer.status).or_default() += 1;
    }
    until("no import runs", || {
        let imports = lab.gateway.admin("GET", "/v1/imports", &Value::Null).json();
        imports.as_array().unwrap().iter().all(|import| import["Status"] != "running")
    });
    let Lab { folder, gateway, .. } = lab;
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    assert_eq!(gateway.stop(), Some(0));
    let (path, options) = (folder.path().join("data"), EmbeddedOptions::default());
    let store = EmbeddedStore::open(&path, options, Arc::new(SystemClock)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let misfits = runtime.block_on(crate::whole::misfits(&store));
    assert!(misfits.is_empty(), "{misfits:#?}");
}

/// What a hostile client found, and what a reading did.
#[test]
fn every_path_and_method_has_the_envelope() {
    let lab = Lab::start();
    for (method, target, status) in [
        ("GET", "/v1/imports/%ff/errors", 404),
        ("GET", "/v1/imports/%ff/results", 404),
        ("GET", "/v1/imports/%ff", 404),
        ("POST", "/live", 405),
        ("PUT", "/ready", 405),
        ("DELETE", "/metrics", 405),
        ("POST", "/hello", 405),
        ("GET", "/nowhere", 404),
        ("OPTIONS", "*", 404),
    ] {
        let (method, target, headers) = (method.to_owned(), target.to_owned(), Vec::new());
        let request = Hostile { method, target, headers, who: 0, body: Vec::new() };
        let answer = lab.send(&request);
        assert_eq!(answer.status, status, "{request:?} {answer:?}");
        check(&request, &answer);
    }
}
