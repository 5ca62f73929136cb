use std::path::Path;

mod protocols;

use super::*;

const GOOD: &str = r#"
[admin]
secret = "0123456789abcdef"
[[apis]]
id = "inv-v1"
listen_path = "/inv/"
targets = ["http://127.0.0.1:9000"]
"#;

fn parse(text: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(text, Path::new("/etc/turnpike"), &Overrides::from_pairs(pairs))
}

fn faults(text: &str) -> Vec<String> {
    match parse(text, &[]) {
        Err(ConfigError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn a_small_file_takes_defaults() {
    let config = parse(GOOD, &[]).unwrap();
    assert_eq!(config.proxy.listeners.len(), 1);
    assert_eq!(config.proxy.listeners[0].address, "127.0.0.1:8080".parse().unwrap());
    assert!(config.proxy.listeners[0].tls.is_none());
    assert_eq!(config.store.path, Path::new("/etc/turnpike/data"));
    assert_eq!(config.policies.quota_scope, QuotaScope::Credential);
    assert_eq!(config.apis[0].targets[0].authority.as_ref(), "127.0.0.1:9000");
}

#[test]
fn the_environment_wins_over_the_file() {
    let pairs = [
        ("TURNPIKE_PROXY__LISTEN", "127.0.0.1:1, 127.0.0.1:2"),
        ("TURNPIKE_PROXY__DRAIN_S", "3"),
        ("TURNPIKE_ADMIN__SECRET", "another-secret-of-ours"),
        ("TURNPIKE_POLICIES__TYK_PARITY", "true"),
        ("UNRELATED", "x"),
    ];
    let config = parse(GOOD, &pairs).unwrap();
    assert_eq!(config.proxy.listeners.len(), 2);
    assert_eq!(config.proxy.drain_s, 3);
    assert_eq!(config.admin.secret.reveal(), "another-secret-of-ours");
    assert_eq!(config.policies.quota_scope, QuotaScope::Product);
}

#[test]
fn every_key_wrong_in_turn_is_named() {
    let in_section = |section: &str, line: &str| {
        let key = line.split(' ').next().unwrap();
        let text = if section == "admin" {
            format!("[admin]\nsecret = \"0123456789abcdef\"\n{line}\n")
        } else {
            format!("[admin]\nsecret = \"0123456789abcdef\"\n[{section}]\n{line}\n")
        };
        let found = faults(&text);
        let path = format!("{section}.{key}");
        assert!(found.len() == 1 && found[0].starts_with(&path), "{line}: {found:?}");
    };
    for line in [
        "listen = 5",
        "threads = -1",
        "drain_s = \"x\"",
        "header_bytes_max = 1",
        "headers_max = 0",
        "target_bytes_max = 1",
        "connections_max = 0",
        "head_timeout_ms = 0",
        "keep_alive_ms = 1",
        "connections_per_address_max = -1",
        "requests_max = 0",
        "first_byte_timeout_ms = 0",
        "http2_streams_max = 0",
        "http2_resets_max = 0",
        "trusted_proxies = [\"10.0.0.1/8\"]",
        "via = \"a b\"",
        "listeners = 1",
        "upstream_idle_max = -1",
        "nonsense = 1",
    ] {
        in_section("proxy", line);
    }
    for line in ["listen = \"nowhere\"", "nonsense = 1"] {
        in_section("admin", line);
    }
    for line in [
        "kind = \"paper\"",
        "path = \"\"",
        "fsync_ms = -1",
        "timeout_ms = 0",
        "pepper_file = 1",
        "urls = 1",
        "prefix = 1",
    ] {
        in_section("store", line);
    }
    if cfg!(feature = "redis") {
        in_section("store", "urls = []");
        in_section("store", "prefix = \"a{b}\"");
    }
    for line in ["credentials_max = 1", "unknown_max = 1", "failures_per_minute_max = 0"] {
        in_section("auth", line);
    }
    for line in [
        "tyk_parity = 1",
        "quota_scope = \"galaxy\"",
        "quota_exceeded_status = 418",
        "quota_exceeded_status = 200",
        "on_store_unavailable = \"maybe\"",
    ] {
        in_section("policies", line);
    }
    for line in ["filter = \"a=b=c\"", "access = \"\""] {
        in_section("log", line);
    }
}

#[test]
fn every_key_of_an_api_wrong_in_turn_is_named() {
    for line in [
        "org = \"a b\"",
        "name = 1",
        "strip_listen_path = 1",
        "hosts = [\"a:80\"]",
        "keyless = 1",
        "auth_authorization = 1",
        "auth_x_api_key = 1",
        "auth_header = \"a b\"",
        "auth_query = \"a b\"",
        "auth_cookie = \"a;b\"",
        "strip_credentials = 1",
        "keep_encoded_slash = 1",
        "preserve_host = 1",
        "version_header = \"v\"",
        "versions = [\"1\"]",
        "limit_headers = 1",
        "identity_headers = 1",
        "body_bytes_max = -1",
        "body_rate_min = -1",
        "body_buffer_bytes = 1048577",
        "http2 = 1",
        "upgrades = [\"h2c\"]",
        "upgrades = [\"HTTP/2.0\"]",
        "upgrades = [\"a b\"]",
        "http2 = true\nupgrades = [\"websocket\"]",
        "upstream_ca = \"ca.pem\"",
        "upstream_certificate = \"c.pem\"",
        "upstream_key = \"k.pem\"",
        "connect_timeout_ms = 0",
        "first_byte_timeout_ms = 0",
        "idle_timeout_ms = 0",
        "shadow = 1",
        "cors = 1",
        "nonsense = 1",
        "default_version = \"9\"",
    ] {
        let found = faults(&format!("{GOOD}{line}\n"));
        assert!(
            !found.is_empty() && found.iter().all(|f| f.starts_with("apis[0].")),
            "{line}: {found:?}"
        );
    }
    for (line, path) in [
        ("preflight = \"x\"", "apis[0].cors.preflight"),
        ("preflight = \"answer\"", "apis[0].cors.origins"),
        ("methods = [\"\"]", "apis[0].cors.methods[0]"),
        ("max_age_s = -1", "apis[0].cors.max_age_s"),
    ] {
        let found = faults(&format!("{GOOD}[apis.cors]\n{line}\n"));
        assert!(found.len() == 1 && found[0].starts_with(path), "{line}: {found:?}");
    }
}

#[test]
fn all_faults_come_at_once_and_duplicates_are_found() {
    let found = faults(
        r#"
        nonsense = 1
        [admin]
        listen = "x"
        [[apis]]
        id = "a b"
        [[apis]]
        id = "b"
        listen_path = "/b/{x}"
        targets = []
        [[apis]]
        id = "c"
        listen_path = "/c"
        targets = ["ftp://x", "http://u@h/", "http://h:1/base/"]
        [[apis]]
        id = "c"
        listen_path = "/c/"
        targets = ["http://h:1"]
        "#,
    );
    for path in [
        "nonsense: ",
        "admin.listen: ",
        "admin.secret: ",
        "apis[0].id: ",
        "apis[0].listen_path: ",
        "apis[0].targets: ",
        "apis[1].listen_path: ",
        "apis[1].targets: ",
        "apis[2].targets[0]: ",
        "apis[2].targets[1]: ",
        "apis[3].id: ",
        "apis[3].listen_path: ",
    ] {
        assert!(found.iter().any(|f| f.starts_with(path)), "no fault for {path} in {found:#?}");
    }
}

#[test]
fn a_secret_is_needed_and_never_shown() {
    assert!(faults("")[0].starts_with("admin.secret: is missing"));
    let short = faults("[admin]\nsecret = \"shorty\"");
    assert!(short[0].contains("at least 16") && !short[0].contains("shorty"));
    let syntax = parse("[admin]\nsecret = \"0123456789abcdef", &[]).unwrap_err().to_string();
    assert!(syntax.contains("line 2") && !syntax.contains("0123456789"), "{syntax}");
    let config = parse(GOOD, &[]).unwrap();
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

#[cfg(feature = "redis")]
#[test]
fn a_password_of_redis_is_never_shown() {
    let file = format!("{GOOD}[store]\nkind = \"redis\"\nurls = [\"redis://u:hunter2@db:1/0\"]\n");
    let urls = |config: &Config| match &config.store.kind {
        StoreKind::Redis(options) => options.urls.clone(),
        StoreKind::Embedded => panic!("redis was configured"),
    };
    let config = parse(&file, &[]).unwrap();
    assert_eq!(urls(&config), ["redis://u:hunter2@db:1/0"]);
    assert!(!format!("{config:?}").contains("hunter2"));
    let pair = ("TURNPIKE_STORE__URLS", "redis://:hunter3@a, redis://:hunter3@b:2/1");
    let config = parse(&file, &[pair]).unwrap();
    assert_eq!(urls(&config), ["redis://:hunter3@a", "redis://:hunter3@b:2/1"]);
    let wrong = file.replace("\"redis://", "\"redis://good\", \"http://");
    let Err(ConfigError::Faults(found)) = parse(&wrong, &[]) else { panic!("no fault") };
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found[0].starts_with("store.urls[1]: must be of the form"), "{found:?}");
    assert!(found.len() == 1 && !found[0].contains("hunter2"), "{found:?}");
}

#[cfg(feature = "redis")]
#[test]
fn durability_is_a_word_and_a_number_of_replicas() {
    use crate::store::redis::Durability;
    let replica = |n| Durability::Replica { confirm: std::num::NonZeroU32::new(n).unwrap() };
    let cases = [
        ("", Durability::Memory),
        ("durability = \"fsync\"\nconfirm_replicas = 3", Durability::Fsync),
        ("durability = \"replica\"", replica(1)),
        ("durability = \"replica\"\nconfirm_replicas = 2", replica(2)),
    ];
    for (keys, expect) in cases {
        let file = format!("{GOOD}[store]\nkind = \"redis\"\n{keys}\n");
        let config = Config::parse(&file, Path::new("/"), &Overrides::default()).unwrap();
        let StoreKind::Redis(options) = config.store.kind else { panic!("{keys}") };
        assert_eq!(options.durability, expect, "{keys}");
    }
    for wrong in ["durability = \"disk\"", "confirm_replicas = 0"] {
        let file = format!("{GOOD}[store]\n{wrong}\n");
        assert!(Config::parse(&file, Path::new("/"), &Overrides::default()).is_err(), "{wrong}");
    }
}
