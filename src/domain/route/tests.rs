use proptest::prelude::*;

use super::*;

#[test]
fn the_longest_listen_path_wins_at_a_segment_boundary() {
    let router = router(&["/", "/inv/", "/inv/v2", "/a/b/c"]);
    check(&router, None, "/inv", "/inv/ -> /");
    check(&router, None, "/inv/", "/inv/ -> /");
    check(&router, None, "/inv/1/lines", "/inv/ -> /1/lines");
    check(&router, None, "/inv/v2", "/inv/v2 -> /");
    check(&router, None, "/inv/v2/", "/inv/v2 -> /");
    check(&router, None, "/inv/v2/x", "/inv/v2 -> /x");
    check(&router, None, "/inv/v20", "/inv/ -> /v20");
    check(&router, None, "/invoices", "/ -> /invoices");
    check(&router, None, "/INV/1", "/ -> /INV/1");
    check(&router, None, "/a/b", "/ -> /a/b"); // Half of a listen path is none.
    check(&router, None, "/inv;x/1", "/ -> /inv;x/1");
    check(&router, None, "/", "/ -> /");
}

#[test]
fn a_host_of_its_own_wins_over_any_host() {
    let router = router(&["/inv/v1/", "api.test /inv/", "[::1] /six/"]);
    check(&router, Some("api.test"), "/inv/v1/x", "api.test /inv/ -> /v1/x");
    check(&router, Some("API.Test:8080"), "/inv/v1/x", "api.test /inv/ -> /v1/x");
    check(&router, Some("api.test."), "/inv", "api.test /inv/ -> /");
    check(&router, Some("other.test"), "/inv/v1/x", "/inv/v1/ -> /x");
    check(&router, Some("[::1]:80"), "/six/x", "[::1] /six/ -> /x");
    check(&router, Some("[::1]"), "/six/x", "[::1] /six/ -> /x");
    check(&router, None, "/inv/v1/x", "/inv/v1/ -> /x");
    check(&router, None, "/other", "none");
    check(&router, Some("api.test"), "/other", "none");
    check(&router, Some(&"X".repeat(300)), "/inv/v1", "/inv/v1/ -> /");
    check(&router, Some(""), "no slash", "none");
    assert_eq!(router.len(), 3);
}

#[test]
fn a_host_whose_routes_do_not_match_falls_back_to_any_host() {
    let router = router(&["/inv/", "api.test /other/"]);
    check(&router, Some("api.test"), "/inv/1", "/inv/ -> /1");
}

#[test]
fn a_duplicate_names_host_and_listen_path() {
    let mut router = router(&["/inv/", "api.test /inv"]);
    let path = |text: &str| text.parse::<ListenPath>().unwrap();
    let host: Host = "API.test".parse().unwrap();
    let fault = router.insert(Some(&host), &path("/inv/"), "again").unwrap_err();
    assert_eq!(fault.to_string(), "listen path /inv on api.test is taken");
    let fault = router.insert(None, &path("/%69nv"), "again").unwrap_err();
    assert_eq!(fault.to_string(), "listen path /inv on any host is taken");
    assert_eq!(router.len(), 2);
}

#[test]
fn a_listen_path_is_normal_and_literal() {
    let parse = |text: &str| text.parse::<ListenPath>().map(|path| path.to_string());
    assert_eq!(parse("/"), Ok("/".into()));
    assert_eq!(parse("//a/./b/"), Ok("/a/b".into()));
    assert_eq!(parse("/a/{x}"), Err(InvalidListenPath::Wildcard));
    assert_eq!(parse("a"), Err(InvalidListenPath::Path(Ambiguous::NotAbsolute)));
    assert_eq!(parse("/a/../.."), Err(InvalidListenPath::Path(Ambiguous::AboveRoot)));
    assert_eq!(parse(&"/a".repeat(513)), Err(InvalidListenPath::Length { len: 1026 }));
}

#[test]
fn a_host_has_no_port_and_no_wildcard() {
    let parse = |text: &str| text.parse::<Host>().map(|host| host.to_string());
    assert_eq!(parse("Api.Test."), Ok("api.test".into()));
    assert_eq!(parse("[::1]"), Ok("[::1]".into()));
    for text in ["", ".", "[]", "a:80", "*.test", "a/b", "é.test", &"x".repeat(254)] {
        assert_eq!(parse(text), Err(InvalidHost), "{text:?}");
    }
}

/// A router of routes spelt "host path" or "path", each with its spelling as value.
fn router(routes: &[&'static str]) -> Router<&'static str> {
    let mut router = Router::new();
    for route in routes {
        let (host, path) = match route.split_once(' ') {
            Some((host, path)) => (Some(host.parse().unwrap()), path),
            None => (None, *route),
        };
        router.insert(host.as_ref(), &path.parse().unwrap(), *route).unwrap();
    }
    router
}

#[track_caller]
fn check(router: &Router<&'static str>, host: Option<&str>, path: &str, expect: &str) {
    let found = router.find(host, path);
    if let Some(found) = &found {
        assert!(path.starts_with(found.matched));
    }
    let got = found.map_or("none".into(), |m| format!("{} -> {}", m.value, m.rest));
    assert_eq!(got, expect, "{host:?} {path}");
}

proptest! {
    #[test]
    fn the_router_agrees_with_trying_every_listen_path(
        listen in prop::collection::btree_set("(/[ab]{1,2}){0,3}", 0..12),
        path in "(/[ab]{1,2}){1,4}/?",
    ) {
        let mut router = Router::new();
        for text in &listen {
            let text = if text.is_empty() { "/" } else { text };
            router.insert(None, &text.parse().unwrap(), text.to_owned()).unwrap();
        }
        let fits = |text: &&String| path == **text || path.starts_with(&format!("{text}/"));
        let best = listen.iter().filter(fits).max_by_key(|text| text.len());
        let found = router.find(Some("any.test"), &path);
        prop_assert_eq!(found.is_some(), best.is_some());
        if let (Some(found), Some(best)) = (found, best) {
            prop_assert_eq!(found.matched, best);
            prop_assert_eq!(found.value.trim_end_matches('/'), best);
            let rest = &path[best.len()..];
            prop_assert_eq!(found.rest, if rest.is_empty() { "/" } else { rest });
        }
    }
}
