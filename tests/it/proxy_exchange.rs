use serde_json::json;

use crate::proxy_support::{Gateway, Reply, TOKEN, Upstream};
use crate::raw_http::{ask, get};

#[tokio::test]
async fn headers_are_taken_off_set_and_added_on_the_way_up() {
    let upstream = Upstream::echo().await;
    let keys = "request_headers = { remove = [\"X-Debug\", \"Cookie\"], set = { X-Env = \"prod\", \
                Authorization = \"Basic eDp5\" }, add = { X-Tag = \"gw\" } }";
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(json!({})).await;
    let sent = format!(
        "Authorization: Bearer {TOKEN}\r\nX-Debug: 1\r\nX-Debug: 2\r\nCookie: a=1\r\nX-Env: dev\r\n\
         X-Env: test\r\nX-Tag: mine\r\nX-Other: stays\r\n"
    );
    assert_eq!(get(gw.addr, "/api/", &sent).await.status(), 200);
    let seen = upstream.last();
    for (name, values) in [
        ("x-debug", &[][..]),
        ("cookie", &[]),
        ("x-env", &["prod"]),
        ("authorization", &["Basic eDp5"]),
        ("x-tag", &["mine", "gw"]),
        ("x-other", &["stays"]),
    ] {
        assert_eq!(seen.all(name).collect::<Vec<_>>(), values, "{name}");
    }
}

#[tokio::test]
async fn headers_are_changed_on_the_way_down() {
    let upstream = Upstream::start(|_| {
        Reply::Keep(
            b"HTTP/1.1 200 OK\r\nServer: secret/1\r\nX-Powered-By: x\r\nCache-Control: private\r\n\
              Content-Length: 2\r\n\r\nhi"
                .to_vec(),
        )
    })
    .await;
    let keys = "response_headers = { remove = [\"server\", \"x-powered-by\"], \
                set = { Cache-Control = \"no-store\" }, add = { Strict-Transport-Security = \"max-age=1\" } }";
    let gw = Gateway::keyless(upstream.addr, keys).await;
    let answer = get(gw.addr, "/", "").await;
    assert_eq!((answer.status(), answer.text()), (200, "hi"));
    assert_eq!((answer.header("server"), answer.header("x-powered-by")), (None, None));
    assert_eq!(answer.all("cache-control").collect::<Vec<_>>(), ["no-store"]);
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=1"));
}

#[tokio::test]
async fn metadata_goes_up_and_a_clients_own_word_on_it_does_not() {
    let upstream = Upstream::echo().await;
    let keys = "request_headers = { metadata = { X-Tier = \"tier\", X-Region = \"region\" } }";
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(json!({"MetaData": {"tier": "gold", "seats": 3}})).await;
    let sent =
        format!("X-API-Key: {TOKEN}\r\nX-Tier: platinum\r\nx-tier: both\r\nX-Region: eu\r\n");
    assert_eq!(get(gw.addr, "/api/", &sent).await.status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.all("x-tier").collect::<Vec<_>>(), ["gold"]);
    assert_eq!(seen.header("x-region"), None, "not in the metadata, so nobody may say it");
    let keyless = Gateway::keyless(upstream.addr, keys).await;
    assert_eq!(get(keyless.addr, "/", "X-Tier: gold\r\n").await.status(), 200);
    assert_eq!(upstream.last().header("x-tier"), None);
}

#[tokio::test]
async fn answers_and_refusals_can_be_read_by_pages_of_listed_origins() {
    let upstream = Upstream::start(|_| {
        Reply::Keep(
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        )
    })
    .await;
    let keys = "cors = { preflight = \"answer\", origins = [\"https://a\"], exposed = [\"X-Total\"], \
                credentials = true }";
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(json!({})).await;
    let token = format!("X-API-Key: {TOKEN}\r\n");
    for (headers, status) in [(token.as_str(), 200), ("", 401)] {
        let answer = get(gw.addr, "/api/", &format!("{headers}Origin: https://a\r\n")).await;
        assert_eq!(answer.status(), status);
        let allowed = answer.all("access-control-allow-origin").collect::<Vec<_>>();
        assert_eq!(allowed, ["https://a"]);
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("X-Total"));
        assert!(answer.all("vary").any(|value| value == "Origin"));
        let other = get(gw.addr, "/api/", &format!("{headers}Origin: https://b\r\n")).await;
        assert_eq!(other.header("access-control-allow-origin"), None, "whatever the upstream says");
        assert!(other.all("vary").any(|value| value == "Origin"));
    }
    let plain = get(gw.addr, "/api/", &token).await;
    assert_eq!(plain.header("access-control-allow-origin"), Some("*"), "no page asked");
    let preflight = "OPTIONS /api/ HTTP/1.1\r\nHost: gw\r\nAccess-Control-Request-Method: PUT\r\nOrigin: https://a\r\n\r\n";
    let answer = ask(gw.addr, preflight).await;
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    let any = "cors = { preflight = \"answer\", origins = [\"*\"] }";
    let gw = Gateway::keyless(upstream.addr, any).await;
    let answer = get(gw.addr, "/", "Origin: https://b\r\n").await;
    assert_eq!(answer.all("access-control-allow-origin").collect::<Vec<_>>(), ["*"]);
    assert_eq!(answer.all("vary").collect::<Vec<_>>(), ["Accept"]);
}

#[tokio::test]
async fn addresses_are_let_in_and_kept_out() {
    let upstream = Upstream::echo().await;
    for (keys, status) in [
        ("allow = [\"127.0.0.0/8\"]", 200),
        ("allow = [\"10.0.0.0/8\", \"::1\"]", 403),
        ("deny = [\"127.0.0.1\"]", 403),
        ("allow = [\"0.0.0.0/0\"]\ndeny = [\"127.0.0.0/8\"]", 403),
        ("deny = [\"10.0.0.0/8\"]", 200),
    ] {
        let gw = Gateway::keyless(upstream.addr, keys).await;
        let answer = get(gw.addr, "/", "").await;
        assert_eq!(answer.status(), status, "{keys}");
        if status == 403 {
            assert_eq!(answer.code(), "address_not_allowed");
        }
    }
    let gw = Gateway::with_token(upstream.addr, "deny = [\"127.0.0.1\"]").await;
    let answer = get(gw.addr, "/api/", "X-API-Key: nobody\r\n").await;
    assert_eq!(answer.code(), "address_not_allowed", "before any token is looked at");
}
