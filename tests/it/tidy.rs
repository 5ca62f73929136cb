//! Rules of the house that a compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

/// What each layer may name beside itself: the table "Layers" in ARCHITECTURE.md.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("wire", &["domain"]),
    ("metrics", &["domain"]),
    ("telemetry", &["domain", "config", "metrics"]),
    ("store", &["domain", "clock", "metrics"]),
    ("catalog", &["domain", "clock", "wire", "store", "metrics"]),
    ("enforce", &["domain", "clock", "catalog", "store", "metrics"]),
    ("proxy", &["domain", "clock", "enforce", "catalog", "metrics", "telemetry", "config"]),
    ("admin", &["domain", "clock", "wire", "catalog", "store", "metrics", "telemetry", "enforce"]),
    ("client", &[]),
    ("config", &["domain", "store"]),
    (
        "app",
        &[
            "domain",
            "clock",
            "wire",
            "metrics",
            "telemetry",
            "store",
            "catalog",
            "enforce",
            "proxy",
            "admin",
            "config",
        ],
    ),
];

/// Longest source file, in lines, with its tests.
const LINES_MAX: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let hidden = path.file_name().unwrap().to_string_lossy().starts_with('.');
            if hidden || path.ends_with("target") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} below {folder}");
    found.sort();
    found
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn layers_name_only_those_below_them() {
    let mut faults = Vec::new();
    for (path, text) in files("src", "rs") {
        let second = path.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
        let layer = second.trim_end_matches(".rs");
        if layer == "lib" || layer == "main" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            faults.push(format!("{}: {layer} is no layer", path.display()));
            continue;
        };
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let word = |rest: &str| -> String {
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
            };
            for name in code.split("crate::").skip(1).map(word) {
                if !name.is_empty() && name != layer && !allowed.contains(&name.as_str()) {
                    faults.push(format!("{}:{}: may not use crate::{name}", path.display(), n + 1));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn the_domain_knows_no_input_output_and_no_clock() {
    const BANNED: &[&str] = &[
        "std::fs",
        "std::net",
        "std::io",
        "tokio::",
        "tracing::",
        "serde",
        "http::",
        "hyper",
        "SystemTime",
        "Instant::",
        "async ",
    ];
    let mut faults = Vec::new();
    for (path, text) in files("src/domain", "rs") {
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for banned in BANNED.iter().filter(|banned| code.contains(*banned)) {
                faults.push(format!("{}:{}: {banned}", path.display(), n + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn files_are_short_enough_to_read() {
    let long = |(path, text): &(PathBuf, String)| {
        let lines = text.lines().count();
        (LINES_MAX < lines).then(|| format!("{}: {lines} lines", path.display()))
    };
    let faults: Vec<String> = files("src", "rs").iter().filter_map(long).collect();
    none(&faults);
}

#[test]
fn documents_link_to_what_is_there() {
    let mut faults = Vec::new();
    for (path, text) in files(".", "md") {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            let outside = target.is_empty() || target.contains("://");
            let folder = root().join(path.parent().unwrap());
            if !outside && !folder.join(target).exists() {
                faults.push(format!("{}: {target} is not there", path.display()));
            }
        }
    }
    none(&faults);
}
