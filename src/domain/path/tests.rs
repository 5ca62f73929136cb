use proptest::prelude::*;

use super::EncodedSlash::{Keep, Refuse};
use super::*;

#[test]
fn a_normal_path_is_borrowed_and_unchanged() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/invoices/42/lines",
        "/a~b/-_.x/!$&'()*+,=:@",
        "/.well-known/openid",
        "/a/...",
        "/a;v=1/b",
        "/caf%C3%A9",
        "/a%20b",
        "/100%25",
        "/a%3Bb%3F%23",
        "/;jsessionid=1",
        "/a/..b/.c/d..",
    ] {
        let normal = normalise(path, Refuse).unwrap();
        assert_eq!(normal.as_str(), path);
        assert!(matches!(normal.into_cow(), Cow::Borrowed(_)), "{path} was copied");
    }
}

#[test]
fn a_path_gets_its_one_spelling() {
    // As sent                  normal
    check("/a/./b", "/a/b");
    check("/a/../b", "/b");
    check("/a/b/..", "/a/");
    check("/a/.", "/a/");
    check("/a/..", "/");
    check("/a/%2e%2E/b", "/b");
    check("/%2E/a", "/a");
    check("/a/.%2e/b", "/b");
    check("//a///b//", "/a/b/");
    check("///", "/");
    check("/a//./b", "/a/b");
    check("//a/../b", "/b"); // The empty segment is out of reach of the parent.
    check("/%41%7e%2D", "/A~-");
    check("/%c3%a9", "/%C3%A9");
    check("/a%3b", "/a%3B");
    check("/{x}|[y]\"<>^`", "/%7Bx%7D%7C%5By%5D%22%3C%3E%5E%60");
    check("/a%2520b", "/a%2520b"); // Decoded twice it is the same path to us.
    check("/a;x/../b", "/b");
    check("/a/;x", "/a/;x");
    check("/a%25zz", "/a%25zz");
}

#[test]
fn what_two_parsers_read_differently_is_refused() {
    use Ambiguous::*;
    refused("*", Asterisk);
    refused("", NotAbsolute);
    refused("a/b", NotAbsolute);
    refused("%2Fa", NotAbsolute);
    refused("http://h/a", NotAbsolute);
    refused(&format!("/{}", "a".repeat(PATH_LEN_MAX)), TooLong);
    refused(&format!("/{}", "|".repeat(PATH_LEN_MAX / 2)), TooLong); // Longer once escaped.
    refused("/..", AboveRoot);
    refused("/a/../..", AboveRoot);
    refused("/%2e%2e/a", AboveRoot);
    refused("/a//../b", ParentOfEmpty);
    refused("/a//b/../../c", ParentOfEmpty);
    refused("/a//./../b", ParentOfEmpty);
    refused("//..", ParentOfEmpty);
    refused("/a%2fb", EncodedSlash);
    refused("/a%2Fb", EncodedSlash);
    refused("/a\\b", Backslash);
    refused("/a%5cb", Backslash);
    refused("/a%00", Control);
    refused("/a%0d%0a", Control);
    refused("/a%7f", Control);
    refused("/a\0b", Control);
    refused("/a b", Control);
    refused("/a\tb", Control);
    refused("/%C2%85", Control);
    refused("/a%", BadEscape);
    refused("/a%4", BadEscape);
    refused("/a%zz", BadEscape);
    refused("/%u002e", BadEscape);
    refused("/%%32%65", BadEscape);
    refused("/%C0%AE", NotUtf8);
    refused("/%E0%80%AE", NotUtf8);
    refused("/%F0%80%80%AF", NotUtf8);
    refused("/%ED%A0%80", NotUtf8);
    refused("/%E9", NotUtf8);
    refused("/%E9/a", NotUtf8);
    refused("/%C3%41", NotUtf8);
    refused("/é", NonAscii);
    refused("/a/..;/b", DisguisedDot);
    refused("/a/..;x=1/b", DisguisedDot);
    refused("/a/.;/b", DisguisedDot);
    refused("/a/%2e%2e;/b", DisguisedDot);
    refused("/a/..%3B/b", DisguisedDot);
    refused("/a/..%3bx", DisguisedDot);
    refused("/a/..%20/b", DisguisedDot);
    refused("/a/;x/b", Nameless);
    refused("/;x/../b", Nameless);
    refused("/a/%20/../b", Nameless);
    refused("/a/%252e%252e/b", DoubleEncoded);
    refused("/a%252fb", DoubleEncoded);
    refused("/a%255cb", DoubleEncoded);
    refused("/a%2500", DoubleEncoded);
    refused("/%25252e", DoubleEncoded);
    refused("/%25%32%65", DoubleEncoded);
    refused("/%2561dmin", DoubleEncoded);
    refused("/%25C0%25AE", DoubleEncoded);
    refused("/a/..%253B/b", DoubleEncoded);
    refused("/a#b", Fragment);
    refused("/a?b", Query);
}

#[test]
fn an_encoded_slash_is_kept_only_by_the_switch() {
    let keep = |raw| normalise(raw, Keep).map(|normal| normal.as_str().to_owned());
    assert_eq!(keep("/g%2fp"), Ok("/g%2Fp".into()));
    assert_eq!(keep("/a/..%2fb"), Err(Ambiguous::DisguisedDot));
    assert_eq!(keep("/a%2f../b"), Err(Ambiguous::DisguisedDot));
    assert_eq!(keep("/a%2f..%2fb"), Err(Ambiguous::DisguisedDot));
    assert_eq!(keep("/a%2fb/../c"), Err(Ambiguous::EncodedSlash));
    assert_eq!(keep("/a%2fb/c/../d"), Ok("/a%2Fb/d".into()));
    assert_eq!(keep("/a%252fb"), Err(Ambiguous::DoubleEncoded));
    let kept = normalise("/g%2fp", Keep).unwrap();
    assert_eq!(kept.clone().with_slashes(Refuse), Err(Ambiguous::EncodedSlash));
    assert!(kept.with_slashes(Keep).is_ok());
}

#[track_caller]
fn check(raw: &str, expect: &str) {
    assert_eq!(normalise(raw, Refuse).map(|n| n.0), Ok(expect.into()), "{raw:?}");
}

#[track_caller]
fn refused(raw: &str, expect: Ambiguous) {
    assert_eq!(normalise(raw, Refuse).map(|n| n.0), Err(expect), "{raw:?}");
}

/// Lenient parsers, none of which shares code with `normalise`. Each gives the names of the segments.
mod lenient {
    pub(super) type Names = Vec<Vec<u8>>;

    /// Decodes once; what is no escape stays.
    pub(super) fn decode(text: &[u8]) -> Vec<u8> {
        let hex = |digit: Option<&u8>| char::from(*digit?).to_digit(16);
        let (mut out, mut at) = (Vec::new(), 0);
        while at < text.len() {
            match (text[at], hex(text.get(at + 1)), hex(text.get(at + 2))) {
                (b'%', Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap());
                    at += 3;
                }
                (byte, _, _) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        out
    }

    /// Removes dot segments, and empty ones before (`merge`) or after it. Climbs no higher than the root.
    pub(super) fn dots(path: &[u8], merge: bool) -> Names {
        let mut names = Names::new();
        for part in path.strip_prefix(b"/").unwrap_or(path).split(|b| *b == b'/') {
            match part {
                b"." => {}
                b".." => drop(names.pop()),
                b"" if merge => {}
                name => names.push(name.to_vec()),
            }
        }
        names.retain(|name| !name.is_empty());
        names
    }

    pub(super) fn decode_then_dots(path: &[u8]) -> Names {
        dots(&decode(path), true)
    }

    pub(super) fn decode_then_dots_then_merge(path: &[u8]) -> Names {
        dots(&decode(path), false)
    }

    pub(super) fn dots_then_decode(path: &[u8]) -> Names {
        dots(path, true).iter().map(|name| decode(name)).collect()
    }

    pub(super) fn backslash_is_slash(path: &[u8]) -> Names {
        let turned = |b: u8| if b == b'\\' { b'/' } else { b };
        dots(&decode(path).into_iter().map(turned).collect::<Vec<_>>(), true)
    }

    pub(super) fn strip_parameters_then_dots(path: &[u8], decode_first: bool) -> Names {
        let text = if decode_first { decode(path) } else { path.to_vec() };
        let stripped: Vec<_> = text.split(|b| *b == b'/').map(name_of).collect();
        let text = stripped.join(&b'/');
        dots(&if decode_first { text } else { decode(&text) }, true)
    }

    pub(super) fn decode_twice(path: &[u8]) -> Names {
        dots(&decode(&decode(path)), true)
    }

    pub(super) fn trim_spaces(path: &[u8]) -> Names {
        let text = decode(path);
        let parts: Vec<_> = text.split(|b| *b == b'/').map(<[u8]>::trim_ascii_end).collect();
        dots(&parts.join(&b'/'), true)
    }

    pub(super) fn name_of(segment: &[u8]) -> &[u8] {
        segment.split(|b| *b == b';').next().unwrap()
    }
}

/// Paths made of what attacks are made of.
fn tricky() -> impl Strategy<Value = String> {
    let parts = vec![
        "/", "/", "/", "/", "..", "..", ".", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", ";", ";x",
        "a", "b", "%61", "%25", "2e", "2f", "%32", "65", "%c0", "%af", "%20", "%3b", "%00", "é",
        "%C3%A9", "%c2", "%85", "?", "#", "%", " ", "|", "*",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..14)
        .prop_map(|parts| format!("/{}", parts.concat()))
}

/// As above, without what is refused in nearly every place, so that most paths are accepted.
fn mostly_good() -> impl Strategy<Value = String> {
    let parts = vec![
        "/", "/", "/", "/a", "/b", "/..", "/.", "/%2e", ".", ";x", "%61", "%20", "%3b", "%25",
        "%C3%A9", "c", "|", "%2520",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..10)
        .prop_map(|parts| format!("/{}", parts.concat()))
}

/// The names in a normal path: nothing to resolve, one decoding.
fn names(normal: &str) -> lenient::Names {
    let parts = normal.split('/').filter(|part| !part.is_empty());
    parts.map(|part| lenient::decode(part.as_bytes())).collect()
}

fn stripped(names: lenient::Names) -> lenient::Names {
    let names = names.iter().map(|name| lenient::name_of(name).to_vec());
    names.filter(|name| !name.is_empty()).collect()
}

fn trimmed(names: lenient::Names) -> lenient::Names {
    let names = names.iter().map(|name| name.trim_ascii_end().to_vec());
    names.filter(|name| !name.is_empty()).collect()
}

/// What every accepted path must fulfil.
fn holds(raw: &str, slashes: EncodedSlash) -> Result<(), TestCaseError> {
    let Ok(normal) = normalise(raw, slashes) else { return Ok(()) };
    let out = normal.as_str();
    let again = normalise(out, slashes);
    prop_assert_eq!(again.as_ref().map(NormalPath::as_str), Ok(out), "not idempotent");
    prop_assert!(matches!(again.unwrap().into_cow(), Cow::Borrowed(_)), "copied for nothing");
    prop_assert!(out.starts_with('/') && !out.contains("//") && !out.contains('\\'));
    prop_assert!(out.bytes().all(|b| b.is_ascii_graphic()));
    prop_assert!(lenient::decode(out.as_bytes()).iter().all(|b| !b.is_ascii_control()));
    prop_assert!(out.split('/').all(|part| part != "." && part != ".."));
    match slashes {
        Refuse => agrees(raw.as_bytes(), out)?,
        Keep => {
            // Who decodes the kept slashes reads both spellings alike.
            for parser in [lenient::decode_then_dots, lenient::decode_then_dots_then_merge] {
                prop_assert_eq!(parser(raw.as_bytes()), parser(out.as_bytes()));
            }
        }
    }
    Ok(())
}

/// Whoever reads the normal path finds the same names in it; who decodes first finds them in `raw` too.
fn agrees(raw: &[u8], out: &str) -> Result<(), TestCaseError> {
    let ours = names(out);
    let sent = out.as_bytes();
    prop_assert_eq!(lenient::dots_then_decode(sent), ours.clone());
    for path in [raw, sent] {
        prop_assert_eq!(lenient::decode_then_dots(path), ours.clone());
        prop_assert_eq!(lenient::decode_then_dots_then_merge(path), ours.clone());
        prop_assert_eq!(lenient::backslash_is_slash(path), ours.clone());
        for first in [true, false] {
            let read = lenient::strip_parameters_then_dots(path, first);
            prop_assert_eq!(stripped(read), stripped(ours.clone()));
        }
        prop_assert_eq!(lenient::trim_spaces(path), trimmed(ours.clone()));
    }
    let deeper: Vec<_> = ours.iter().map(|name| lenient::decode(name)).collect();
    prop_assert_eq!(lenient::decode_twice(sent), deeper);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn every_parser_reads_an_accepted_path_alike(raw in prop_oneof![tricky(), mostly_good()]) {
        holds(&raw, Refuse)?;
        holds(&raw, Keep)?;
    }

    #[test]
    fn routing_before_the_switch_changes_nothing(raw in prop_oneof![tricky(), mostly_good()]) {
        let at_once = normalise(&raw, Refuse).ok();
        let later = normalise(&raw, Keep).and_then(|normal| normal.with_slashes(Refuse)).ok();
        prop_assert_eq!(at_once, later);
    }

    #[test]
    fn any_bytes_are_answered(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        let Ok(normal) = normalise_bytes(&raw, Keep) else { return Ok(()) };
        prop_assert!(normal.as_str().starts_with('/'));
    }
}
