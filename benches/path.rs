//! Normalising a path, checking it against an allow list, and routing it, each beside what is usually
//! written: decode into a new string, split, join, compare.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up should stop")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

use turnpike::domain::path::{EncodedSlash, normalise};
use turnpike::domain::pattern::{AllowList, Methods, Pattern, TykMatching};
use turnpike::domain::route::Router;

/// As sent: already normal, normal with escapes and parameters, and needing work.
const PATHS: [(&str, &str); 3] = [
    ("normal", "/inv/customers/4711/invoices/2026-11/lines"),
    ("escaped", "/inv/customers/4711/invoices/M%C3%A4rz%20;v=1"),
    ("unresolved", "/inv//customers/./4711/x/%2e%2e/invoices/%32026-11/lines"),
];

/// Ten entries. The last is the first to match; as Tyk patterns, which float at the end, the fourth is.
const PATTERNS: [&str; 10] = [
    "/inv/health",
    "/inv/products/*",
    "/inv/products/{id}/prices",
    "/inv/customers",
    "/inv/customers/{id}",
    "/inv/customers/{id}/addresses/{n}",
    "/inv/orders/**",
    "/inv/customers/{id}/notes/**",
    "/inv/reports/{year}/{month}",
    "/inv/customers/{id}/invoices/**",
];

const APIS: usize = 2_000;

mod naive {
    pub(crate) fn normalise(raw: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut rest = raw.as_bytes();
        while let [first, after @ ..] = rest {
            match (first, after) {
                (b'%', [high, low, after @ ..]) => {
                    let digits = [*high, *low];
                    let text = std::str::from_utf8(&digits).ok()?;
                    bytes.push(u8::from_str_radix(text, 16).ok()?);
                    rest = after;
                }
                (byte, after) => {
                    bytes.push(*byte);
                    rest = after;
                }
            }
        }
        let text = String::from_utf8(bytes).ok()?;
        let mut kept: Vec<String> = Vec::new();
        for part in text.split('/').map(str::to_owned) {
            match part.as_str() {
                "" | "." => {}
                ".." => drop(kept.pop()?),
                _ => kept.push(part),
            }
        }
        Some(format!("/{}", kept.join("/")))
    }

    pub(crate) fn allows(list: &[(String, Vec<String>)], method: &str, path: &str) -> bool {
        list.iter().any(|(pattern, methods)| {
            let pattern: Vec<&str> = pattern.split('/').collect();
            let path: Vec<&str> = path.split('/').collect();
            methods.iter().any(|name| name == method) && matches(&pattern, &path)
        })
    }

    fn matches(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["**", after @ ..], _) => {
                (0..=path.len()).any(|n| path.get(n..).is_some_and(|rest| matches(after, rest)))
            }
            ([first, after @ ..], [head, tail @ ..]) => {
                let any = *first == "*" || first.starts_with('{');
                (any || first == head) && matches(after, tail)
            }
            _ => false,
        }
    }

    pub(crate) fn route<'a>(routes: &'a [(String, usize)], path: &str) -> Option<&'a usize> {
        let fits = |listen: &str| path == listen || path.starts_with(&format!("{listen}/"));
        let found = routes.iter().filter(|(listen, _)| fits(listen));
        found.max_by_key(|(listen, _)| listen.len()).map(|(_, value)| value)
    }
}

fn methods() -> Methods {
    Methods::only(["GET", "POST"]).unwrap()
}

fn normalising(c: &mut Criterion) {
    let mut group = c.benchmark_group("normalise");
    for (name, raw) in PATHS {
        group.bench_function(name, |b| {
            b.iter(|| normalise(black_box(raw), EncodedSlash::Refuse).map(|n| n.as_str().len()));
        });
        group.bench_function(format!("{name}/naive"), |b| {
            b.iter(|| naive::normalise(black_box(raw)).map(|n| n.len()));
        });
    }
    group.finish();
}

fn checking(c: &mut Criterion) {
    let ours = PATTERNS.map(|text| (Pattern::parse(text).unwrap(), methods()));
    let ours = AllowList::only(ours.into()).unwrap();
    let ends = TykMatching { prefix: true, suffix: false };
    let tyk = PATTERNS.map(|text| (Pattern::parse_tyk(text, ends).unwrap(), methods()));
    let tyk = AllowList::only(tyk.into()).unwrap();
    let naive = PATTERNS.map(|text| (text.to_owned(), vec!["GET".to_owned(), "POST".to_owned()]));

    let mut group = c.benchmark_group("normalise_and_allow");
    for (name, raw) in PATHS {
        let both = |list: &AllowList| {
            let path = normalise(black_box(raw), EncodedSlash::Refuse);
            path.is_ok_and(|path| list.allows(black_box("POST"), path.as_str()))
        };
        assert!(both(&ours) && both(&tyk));
        group.bench_function(name, |b| b.iter(|| both(&ours)));
        group.bench_function(format!("{name}/tyk"), |b| b.iter(|| both(&tyk)));
        group.bench_function(format!("{name}/naive"), |b| {
            b.iter(|| {
                let path = naive::normalise(black_box(raw));
                path.is_some_and(|path| naive::allows(&naive, black_box("POST"), &path))
            });
        });
    }
    group.finish();
}

fn routing(c: &mut Criterion) {
    let mut router = Router::new();
    let mut naive = Vec::new();
    for n in 0..APIS {
        let listen = format!("/org{}/api{n}", n % 50);
        router.insert(None, &listen.parse().unwrap(), n).unwrap();
        naive.push((listen, n));
    }
    let path = "/org49/api1999/customers/4711/invoices";
    assert_eq!(router.find(None, path).map(|found| *found.value), Some(1999));

    let mut group = c.benchmark_group("route_2000_apis");
    group.bench_function("any_host", |b| {
        b.iter(|| router.find(Some(black_box("api.example.test:443")), black_box(path)).is_some());
    });
    group.bench_function("any_host/naive", |b| b.iter(|| naive::route(&naive, black_box(path))));
    group.finish();
}

criterion_group!(benches, normalising, checking, routing);
criterion_main!(benches);
