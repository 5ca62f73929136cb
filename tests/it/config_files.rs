//! The sample configuration is true: it loads, and what it comments out are the defaults.

use std::path::Path;

use turnpike::config::{Config, Overrides};

const SAMPLE: &str = include_str!("../../config/turnpike.toml");

fn parse(text: &str) -> String {
    let config = Config::parse(text, Path::new("/etc"), &Overrides::default());
    format!("{:#?}", config.unwrap_or_else(|error| panic!("{error:?}")))
}

#[test]
fn every_key_that_is_commented_out_is_at_its_default() {
    let all: Vec<&str> = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .collect();
    assert!(40 < all.iter().filter(|line| line.contains(" = ")).count());
    assert_eq!(parse(&all.join("\n")), parse(SAMPLE));
}
