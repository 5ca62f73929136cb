use super::*;

#[test]
fn listeners_have_settings_of_their_own_and_faults_of_their_own() {
    let text = |keys: &str| format!("{GOOD}\n[[proxy.listeners]]\n{keys}");
    let config = parse(
        &text("listen = \"127.0.0.1:0\"\nproxy_protocol_from = [\"10.0.0.0/8\", \"::1\"]"),
        &[],
    );
    let config = config.unwrap();
    let [listener] = config.proxy.listeners.as_slice() else { panic!("no plain default beside") };
    assert!(listener.proxy_protocol_from.contains("10.1.1.1".parse().unwrap()));
    assert!(listener.tls.is_none());
    let both = format!("[proxy]\nlisten = [\"127.0.0.1:1\"]\n{}", text("listen = \"127.0.0.1:2\""));
    let ports = parse(&both, &[]).unwrap().proxy.listeners;
    assert_eq!(ports.iter().map(|l| l.address.port()).collect::<Vec<_>>(), [1, 2]);
    for (keys, path) in [
        ("", "proxy.listeners[0].listen: is missing"),
        ("listen = \"x\"", "proxy.listeners[0].listen: must"),
        ("nonsense = 1\nlisten = \"127.0.0.1:0\"", "proxy.listeners[0].nonsense"),
        (
            "listen = \"127.0.0.1:0\"\nproxy_protocol_from = [\"x\"]",
            "proxy.listeners[0].proxy_protocol_from[0]: must",
        ),
        (
            "listen = \"127.0.0.1:0\"\ncertificates = [\"a\"]",
            "proxy.listeners[0].keys: must be as many",
        ),
        (
            "listen = \"127.0.0.1:0\"\ntls_version_min = \"1.1\"",
            "proxy.listeners[0].tls_version_min: must",
        ),
    ] {
        let found = faults(&text(keys));
        assert!(found.len() == 1 && found[0].starts_with(path), "{keys}: {found:?}");
    }
}

#[test]
fn files_of_certificates_are_read_and_every_fault_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["b.example".into()]).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.pem", &made.cert.pem());
    write("a.key", &made.signing_key.serialize_pem());
    write("b.key", &other.signing_key.serialize_pem());
    write("empty", "");
    let parse = |pairs: (&str, &str), api: &str| {
        let (certificates, keys) = pairs;
        let listener = format!(
            "[[proxy.listeners]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{certificates}]\n\
             keys = [{keys}]\n"
        );
        let text = format!("{}{api}\n{listener}", GOOD.replace("http:", "https:"));
        match Config::parse(&text, dir.path(), &Overrides::default()) {
            Ok(_) => Vec::new(),
            Err(ConfigError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
            Err(other) => panic!("{other}"),
        }
    };
    let good = ("\"a.pem\"", "\"a.key\"");
    let nothing: [String; 0] = [];
    let mutual =
        "upstream_ca = \"a.pem\"\nupstream_certificate = \"a.pem\"\nupstream_key = \"a.key\"";
    assert_eq!(parse(good, mutual), nothing);
    for (pairs, api, expect) in [
        (("\"no\"", "\"a.key\""), "", "proxy.listeners[0].certificates[0]: cannot be read"),
        (("\"empty\"", "\"a.key\""), "", "proxy.listeners[0].certificates[0]: has no cert"),
        (("\"a.pem\"", "\"empty\""), "", "proxy.listeners[0].keys[0]: has no private key"),
        (("\"a.pem\"", "\"b.key\""), "", "proxy.listeners[0].keys[0]: "),
        (
            ("\"a.pem\", \"a.pem\"", "\"a.key\", \"no\""),
            "",
            "proxy.listeners[0].keys[1]: cannot be read",
        ),
        (good, "upstream_ca = \"empty\"", "apis[0].upstream_ca: has no certificate"),
        (good, "upstream_key = \"a.key\"", "apis[0].upstream_certificate: is missing"),
        (good, "upstream_certificate = \"a.pem\"", "apis[0].upstream_key: is missing"),
        (
            good,
            "upstream_certificate = \"a.pem\"\nupstream_key = \"b.key\"",
            "apis[0].upstream_key: ",
        ),
    ] {
        let found = parse(pairs, api);
        assert!(found.len() == 1 && found[0].starts_with(expect), "{pairs:?} {api}: {found:?}");
    }
}
