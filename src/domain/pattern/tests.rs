use proptest::prelude::*;

use super::*;

#[test]
fn a_pattern_of_ours_is_anchored_and_counts_segments() {
    // Pattern        matches               does not match
    check("/", "/", "/a");
    check("/a", "/a", "/a/ /ab /b /a/b /");
    check("/a/", "/a/", "/a /a/b");
    check("/a/*", "/a/b /a/c", "/a /a/ /a/b/c");
    check("/a/{id}/c", "/a/b/c", "/a//c /a/c /a/b/c/");
    check("/a/**", "/a /a/ /a/b /a/b/c/", "/ab /b");
    check("/**", "/ /a /a/b/", "");
    check("/**/c", "/c /a/c /a/b/c /c/c", "/c/ /a/cc /");
    check("/a/**/c", "/a/c /a/b/c /a/c/b/c", "/a /a/c/b /c");
    check("/a/**/*/c", "/a/b/c /a/b/b/c", "/a/c /a//c");
    check("/**/a/**/b/**", "/a/b /x/a/y/b/z /a/a/b", "/b/a /a/x /b");
    check("/**/**/a", "/a /b/a", "/b");
    check("/**/", "/ /a/ /a/b/", "/a /a/b");
    check("/a.b/c+d", "/a.b/c+d", "/axb/c+d /a.b/cd");
    check("/a b/é/%c3%a9/%41", "/a%20b/%C3%A9/%C3%A9/A", "/a");
    check("/a%2fb", "/a%2Fb", "/a/b");
}

#[test]
fn a_bad_pattern_of_ours_names_its_fault() {
    fault("", "must start with a slash");
    fault("a", "must start with a slash");
    fault("/a*", "segment \"a*\": a wildcard must be a whole segment: *, ** or {name}");
    fault("/***", "segment \"***\": a wildcard must be a whole segment: *, ** or {name}");
    fault("/{}", "segment \"{}\": a wildcard must be a whole segment: *, ** or {name}");
    fault("/{x}.json", "segment \"{x}.json\": a wildcard must be a whole segment: *, ** or {name}");
    fault("/{a b}", "segment \"{a b}\": a wildcard must be a whole segment: *, ** or {name}");
    fault("/a//b", "segment \"\" is removed from every path, so it would never match");
    fault("/a/../b", "segment \"..\" is removed from every path, so it would never match");
    fault("/a/%2e", "segment \"%2e\" is removed from every path, so it would never match");
    fault("/a/%2e%2e/b", "segment \"%2e%2e\": the path leads above its root");
    fault("/a?b", "segment \"a?b\": the path has a query");
    fault("/a%zz", "segment \"a%zz\": the path has an invalid percent-escape");
    fault(&"/a".repeat(513), "must be at most 1024 bytes long, is 1026");
}

#[test]
fn a_tyk_pattern_is_a_regular_expression_that_floats() {
    // Pattern               ends  matches                        does not match
    tyk("/valid", "", "/valid /x/valid/y /validity", "/Valid /val");
    tyk("/valid", "prefix", "/valid /validity", "/x/valid");
    tyk("/valid", "suffix", "/valid /x/valid", "/valid/y");
    tyk("/valid", "both", "/valid", "/x/valid /validity");
    tyk("valid", "prefix", "/valid /x/valid/y", "/val"); // Only a slash is anchored.
    tyk("^/valid$", "", "/valid", "/validity /x/valid");
    tyk("/users/{id}", "both", "/users/1", "/users/ /users/1/x /users");
    tyk("/users/{id}/profile/{type:[a-zA-Z]+}", "both", "/users/1/profile/2", "/users/1/profile");
    tyk("/users/\\d+", "both", "/users/12", "/users/a /users/");
    tyk("/users/\\d{2}", "both", "/users/1x", "/users/1"); // Tyk reads {2} as a segment.
    tyk("/a/*/c", "both", "/a/b/c", "/a/c /a/b/b/c");
    tyk("/a/*", "both", "/a/ /a/b /a/b/c", "/a /ab");
    tyk("/a/.*", "both", "/a/ /a/b /a/b/c", "/a");
    tyk("/(foo|bar)", "both", "/foo /bar", "/foobar");
    tyk("/a.b", "", "/a.b /axb", "/ab");
    tyk("/a+b", "", "/a+b /aab", "/a"); // Equal to the pattern, or matched by it.
    tyk("(?i)/VALID", "", "/valid", "/val");
    tyk(".*", "", "/ /a", "");
}

#[test]
fn a_bad_tyk_pattern_names_its_fault() {
    let fault =
        |text: &str| Pattern::parse_tyk(text, TykMatching::default()).unwrap_err().to_string();
    assert_eq!(fault(""), "must start with a slash");
    assert_eq!(fault("/[user"), "not a regular expression: unclosed character class");
    assert_eq!(fault("/x(a"), "not a regular expression: unclosed group");
    assert_eq!(fault("*"), "not a regular expression: repetition operator missing expression");
    // The escaped brace makes the count uneven, so that the others are repetitions.
    let size = "the regular expression takes more than 262144 bytes when compiled";
    assert_eq!(fault("(a{1000}){1000}\\{"), size);
}

#[test]
fn a_long_tyk_pattern_stays_within_its_size() {
    let long = format!("/{}", "abcdefghijklmnop/{x}/.*/".repeat(40));
    assert!(Pattern::parse_tyk(&long, TykMatching::default()).is_ok());
}

#[test]
fn a_list_allows_what_one_entry_allows() {
    let of = |text: &str, methods: &[&str]| {
        (Pattern::parse(text).unwrap(), Methods::only(methods.iter().copied()).unwrap())
    };
    let list =
        AllowList::only(vec![of("/a/*", &["GET", "PURGE"]), of("/b/**", &["POST"])]).unwrap();
    assert!(list.allows("GET", "/a/1"));
    assert!(list.allows("PURGE", "/a/1"));
    assert!(list.allows("POST", "/b/1/2"));
    for (method, path) in [
        ("POST", "/a/1"),
        ("GET", "/b/1"),
        ("get", "/a/1"),
        ("HEAD", "/a/1"),
        ("purge", "/a/1"),
        ("GET", "/c"),
        ("", "/a/1"),
    ] {
        assert!(!list.allows(method, path), "{method} {path}");
    }
    assert!(AllowList::Unrestricted.allows("ANY", "/thing"));
    assert!(!AllowList::only(vec![]).unwrap().allows("GET", "/"));
    let many = vec![of("/", &["GET"]); ALLOWED_MAX + 1];
    assert_eq!(AllowList::only(many).unwrap_err(), TooManyAllowed { count: ALLOWED_MAX + 1 });
}

#[test]
fn methods_are_a_set_of_upper_case_tokens() {
    let only = |names: &[&'static str]| Methods::only(names.iter().copied());
    let both = only(&["GET", "PURGE"]).unwrap().union(&only(&["LOCK", "PURGE"]).unwrap());
    assert_eq!(both, only(&["PURGE", "LOCK", "GET", "GET"]).unwrap());
    assert!(both.contains("LOCK") && both.contains("GET") && !both.contains("PUT"));
    assert!(both.union(&Methods::ALL).contains("PUT"));
    assert!(!only(&[]).unwrap().contains("GET"));
    for bad in ["", "get", "GE T", "GÉT"] {
        assert_eq!(only(&[bad]), Err(InvalidMethod::Name { name: bad.to_owned() }));
    }
    assert_eq!(only(&["GET"; METHODS_MAX + 1]), Err(InvalidMethod::TooMany));
}

#[track_caller]
fn check(pattern: &str, matching: &str, other: &str) {
    verdicts(&Pattern::parse(pattern).unwrap(), matching, other);
}

#[track_caller]
fn tyk(pattern: &str, ends: &str, matching: &str, other: &str) {
    let [prefix, suffix] = ["prefix", "suffix"].map(|end| ends == end || ends == "both");
    let pattern = Pattern::parse_tyk(pattern, TykMatching { prefix, suffix }).unwrap();
    verdicts(&pattern, matching, other);
}

#[track_caller]
fn verdicts(pattern: &Pattern, matching: &str, other: &str) {
    for path in matching.split_whitespace() {
        assert!(pattern.matches(path), "{pattern:?} should match {path}");
    }
    for path in other.split_whitespace() {
        assert!(!pattern.matches(path), "{pattern:?} should not match {path}");
    }
}

#[track_caller]
fn fault(pattern: &str, expect: &str) {
    assert_eq!(Pattern::parse(pattern).unwrap_err().to_string(), expect, "{pattern:?}");
}

/// What a pattern means, by recursion.
fn means(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", after @ ..], _) => {
            means(after, path) || (!path.is_empty() && means(pattern, &path[1..]))
        }
        ([first, after @ ..], [head, tail @ ..]) => {
            let fits = if *first == "*" { !head.is_empty() } else { first == head };
            fits && means(after, tail)
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn matching_means_what_the_recursion_says(
        pattern in "(/(a|b|\\*|\\*\\*)){1,6}/?",
        path in "(/[ab]){1,7}/?",
    ) {
        let [segments, parts] = [&pattern, &path].map(|s| s[1..].split('/').collect::<Vec<_>>());
        let compiled = Pattern::parse(&pattern).unwrap();
        prop_assert_eq!(compiled.matches(&path), means(&segments, &parts));
    }

    #[test]
    fn any_text_is_answered(pattern in any::<String>(), path in any::<String>(), prefix: bool, suffix: bool) {
        let (ours, tyk) =
            (Pattern::parse(&pattern), Pattern::parse_tyk(&pattern, TykMatching { prefix, suffix }));
        for pattern in [ours, tyk].into_iter().flatten() {
            let _ = pattern.matches(&path);
        }
    }
}
