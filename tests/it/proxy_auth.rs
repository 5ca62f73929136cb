use serde_json::json;

use crate::proxy_support::{Gateway, Setup, TOKEN, Upstream, with_target};
use crate::raw_http::{ask, get};

#[tokio::test]
async fn tokens_are_read_from_their_places_and_stripped() {
    let upstream = Upstream::echo().await;
    let keys = "auth_header = \"X-Own\"\nauth_query = \"key\"\nauth_cookie = \"session\"";
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(json!({})).await;
    for (target, headers) in [
        ("/api/", format!("Authorization: Bearer {TOKEN}\r\n")),
        ("/api/", format!("Authorization: bearer   {TOKEN}\r\n")),
        ("/api/", format!("authorization: {TOKEN}\r\n")),
        ("/api/", format!("X-API-Key: {TOKEN}\r\n")),
        ("/api/", format!("X-Own: {TOKEN}\r\n")),
        ("/api/?key=LEG-00fa", String::new()),
        ("/api/?k%65y=LEG%2D00fa", String::new()),
        ("/api/", format!("Cookie: session={TOKEN}\r\n")),
        // Another scheme is no token; the next place counts.
        ("/api/", format!("Authorization: Basic eDp5\r\nX-API-Key: {TOKEN}\r\n")),
        // The first place with a token counts.
        (
            "/api/?key=wrong",
            format!("Authorization: {TOKEN}\r\nX-API-Key: wrong\r\nCookie: session=w\r\n"),
        ),
    ] {
        let answer = get(gw.addr, target, &headers).await;
        assert_eq!(answer.status(), 200, "{target} {headers}");
        let seen = upstream.last();
        assert_eq!(seen.target(), "/");
        for name in ["authorization", "x-api-key", "x-own", "cookie"] {
            assert_eq!(seen.header(name), None, "{target} {headers}");
        }
    }
    let cookies = format!("Cookie: a=1; session={TOKEN}; b=2\r\n");
    get(gw.addr, "/api/x?a=%2f&b", &cookies).await;
    let seen = upstream.last();
    assert_eq!((seen.target(), seen.header("cookie")), ("/x?a=%2f&b", Some("a=1; b=2")));
    get(gw.addr, "/api/?a=1&key=x&&c=%7e", &format!("X-API-Key: {TOKEN}\r\n")).await;
    assert_eq!(upstream.last().target(), "/?a=1&&c=%7e");
}

#[tokio::test]
async fn several_tokens_in_one_place_are_refused() {
    let upstream = Upstream::echo().await;
    let keys = "auth_query = \"key\"\nauth_cookie = \"session\"";
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(json!({})).await;
    for (target, headers) in [
        ("/api/", format!("Authorization: {TOKEN}\r\nAuthorization: {TOKEN}\r\n")),
        ("/api/", format!("X-API-Key: {TOKEN}\r\nX-API-Key: {TOKEN}\r\n")),
        ("/api/", format!("Authorization: {TOKEN}\r\nX-API-Key: a\r\nX-API-Key: b\r\n")),
        ("/api/?key=LEG-00fa&k%65y=LEG-00fa", String::new()),
        ("/api/", format!("Cookie: session={TOKEN}; session=x\r\n")),
    ] {
        let answer = get(gw.addr, target, &headers).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (400, "several_credentials".into()),
            "{headers}"
        );
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn credentials_stay_where_the_api_says_so_or_does_not_read_them() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::with_token(upstream.addr, "strip_credentials = false").await;
    gw.credential(json!({})).await;
    get(gw.addr, "/api/", &format!("Authorization: Bearer {TOKEN}\r\n")).await;
    assert_eq!(upstream.last().header("authorization"), Some("Bearer LEG-00fa"));
    let gw = Gateway::keyless(upstream.addr, "").await;
    get(gw.addr, "/", "Authorization: Basic eDp5\r\nX-API-Key: a\r\nX-API-Key: b\r\n").await;
    assert_eq!(upstream.last().header("authorization"), Some("Basic eDp5"));
    assert_eq!(upstream.last().all("x-api-key").count(), 2);
}

#[tokio::test]
async fn refusals_say_why_in_every_language() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::with_token(upstream.addr, "").await;
    gw.credential(json!({})).await;
    let missing = get(gw.addr, "/api/", "X-Request-Id: r-1\r\n").await;
    assert_eq!(missing.status(), 401);
    assert_eq!(missing.header("www-authenticate"), Some("Bearer"));
    assert_eq!(missing.header("content-type"), Some("application/problem+json"));
    let expect = json!({
        "type": "urn:turnpike:problem:token_missing",
        "title": "Unauthorized",
        "status": 401,
        "detail": "a token is needed",
        "code": "token_missing",
        "request_id": "r-1",
        "error": "Authorization field missing",
    });
    assert_eq!(missing.json(), expect);
    let basic = get(gw.addr, "/api/", "Authorization: Basic eDp5\r\n").await;
    assert_eq!(basic.code(), "token_missing");
    let unknown = get(gw.addr, "/api/", "Authorization: nobody\r\n").await;
    assert_eq!((unknown.status(), unknown.code()), (403, "token_unknown".into()));
    assert_eq!(unknown.header("www-authenticate"), None);
    let head = ask(gw.addr, "HEAD /api/ HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    assert_eq!((head.status(), head.body.len()), (401, 0));
    gw.until("turnpike_refusals_total{api=\"a\",code=\"token_missing\"}", 3).await;
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn limits_are_told_and_refusals_say_when_to_come_back() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::with_token(upstream.addr, "identity_headers = true").await;
    gw.credential(json!({"RateLimit": 100, "Per": 60, "Quota": 2, "QuotaRenewalRate": 3600})).await;
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let first = get(gw.addr, "/api/", &token).await;
    assert_eq!(first.status(), 200);
    let policy = first.header("ratelimit-policy").unwrap();
    assert!(
        policy.contains("\"rate\";q=100;w=60") && policy.contains("\"quota\";q=2;w=3600"),
        "{policy}"
    );
    let state = first.header("ratelimit").unwrap();
    assert!(
        state.contains("\"rate\";r=99;t=") && state.contains("\"quota\";r=1;t=3600"),
        "{state}"
    );
    assert_eq!(first.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("1"));
    assert!(first.header("x-ratelimit-reset").unwrap().parse::<u64>().unwrap() > 1_600_000_000);
    let seen = upstream.last();
    assert_eq!(seen.header("x-turnpike-credential"), Some("77"));
    assert_eq!(seen.header("x-turnpike-app"), Some("5"));
    assert_eq!(seen.header("x-turnpike-user"), Some("6"));
    assert_eq!(get(gw.addr, "/api/", &token).await.status(), 200);
    let refused = get(gw.addr, "/api/", &token).await;
    assert_eq!((refused.status(), refused.code()), (429, "quota_exceeded".into()));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&retry), "{retry}");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn limit_headers_can_be_switched_off_and_quota_can_answer_403() {
    let upstream = Upstream::echo().await;
    let toml = "[policies]\nquota_exceeded_status = 403\n[[apis]]\nid = \"a\"\nlisten_path = \"/api/\"\nlimit_headers = false\n";
    let gw = Gateway::start(Setup::new(&with_target(toml, upstream.addr))).await;
    gw.credential(json!({"Quota": 1, "QuotaRenewalRate": 3600})).await;
    let token = format!("X-API-Key: {TOKEN}\r\n");
    let first = get(gw.addr, "/api/", &token).await;
    assert_eq!(
        (first.status(), first.header("ratelimit"), first.header("x-ratelimit-limit")),
        (200, None, None)
    );
    let refused = get(gw.addr, "/api/", &token).await;
    assert_eq!((refused.status(), refused.code()), (403, "quota_exceeded".into()));
    assert_eq!(refused.header("ratelimit"), None);
}

#[tokio::test]
async fn preflights_are_answered_passed_or_authenticated() {
    let upstream = Upstream::echo().await;
    let head = "OPTIONS /api/ HTTP/1.1\r\nHost: gw\r\nAccess-Control-Request-Method: PUT\r\n";
    let ask_from = |addr, origin: &str| ask(addr, format!("{head}Origin: {origin}\r\n\r\n"));
    let gw = Gateway::with_token(upstream.addr, "").await;
    assert_eq!(ask_from(gw.addr, "https://a").await.status(), 401);
    let gw = Gateway::with_token(upstream.addr, "cors = { preflight = \"pass\" }").await;
    assert_eq!(ask_from(gw.addr, "https://a").await.status(), 200);
    assert_eq!(upstream.count(), 1);
    let plain =
        ask(gw.addr, "OPTIONS /api/ HTTP/1.1\r\nHost: gw\r\nOrigin: https://a\r\n\r\n").await;
    assert_eq!(plain.status(), 401, "no preflight");
    let cors = "cors = { preflight = \"answer\", origins = [\"https://a\"], methods = [\"GET\", \"PUT\"], headers = [\"x-b\"], max_age_s = 9 }";
    let gw = Gateway::with_token(upstream.addr, cors).await;
    let answer = ask_from(gw.addr, "https://a").await;
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, PUT"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-b"));
    assert_eq!(answer.header("access-control-max-age"), Some("9"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    let other = ask_from(gw.addr, "https://b").await;
    assert_eq!((other.status(), other.header("access-control-allow-origin")), (204, None));
    assert_eq!(upstream.count(), 1, "answered here");
}

#[tokio::test]
async fn the_version_that_was_decided_on_is_the_one_that_goes_on() {
    let upstream = Upstream::echo().await;
    let keys = "version_header = \"X-Version\"\nversions = [\"1\", \"2\"]\ndefault_version = \"1\"";
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(json!({})).await;
    let with = |more: &str| format!("X-API-Key: {TOKEN}\r\n{more}");
    assert_eq!(get(gw.addr, "/api/", &with("X-Version: 2\r\n")).await.status(), 200);
    assert_eq!(upstream.last().header("x-version"), Some("2"));
    let two = get(gw.addr, "/api/", &with("X-Version: 1\r\nX-Version: 2\r\n")).await;
    assert_eq!(two.status(), 400);
    // What `Connection` names is gone before it is read, here as there.
    let gone = get(gw.addr, "/api/", &with("X-Version: 9\r\nConnection: X-Version\r\n")).await;
    assert_eq!((gone.status(), upstream.last().header("x-version")), (200, None));
    let unknown = get(gw.addr, "/api/", &with("X-Version: 9\r\n")).await;
    assert_eq!(unknown.code(), "version_unknown");
}
