//! What of a configuration cannot change while the gateway runs: everything but the APIs.

use std::fmt;

use toml::{Table, Value};

/// The values of those keys, as they were written and overridden. Among them is the admin secret,
/// so nothing of it is shown.
#[derive(Clone)]
pub struct Fixed(Table);

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixed(..)")
    }
}

impl Fixed {
    pub(super) fn of(table: &Table) -> Self {
        let mut fixed = table.clone();
        fixed.remove("apis");
        Self(fixed)
    }

    /// The keys whose values differ, such as `proxy.threads`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut keys = Vec::new();
        compare("", &self.0, &other.0, &mut keys);
        keys.sort();
        keys
    }
}

fn compare(path: &str, before: &Table, after: &Table, keys: &mut Vec<String>) {
    let empty = Table::new();
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (before.get(name), after.get(name)) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => {
                compare(&path, before, after, keys);
            }
            // A section that is not there is an empty one.
            (Some(Value::Table(before)), None) => compare(&path, before, &empty, keys),
            (None, Some(Value::Table(after))) => compare(&path, &empty, after, keys),
            (before, after) if before == after => {}
            _ => keys.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_named_and_apis_do_not_count() {
        let check = |before: &str, after: &str, expect: &[&str]| {
            let fixed = |text: &str| Fixed::of(&toml::from_str(text).unwrap());
            assert_eq!(fixed(before).differences(&fixed(after)), expect, "{before} | {after}");
        };
        let one = "[proxy]\nthreads = 1\nlisten = [\"a\"]\n[[apis]]\nid = \"a\"";
        check(one, one, &[]);
        check(one, "[proxy]\nlisten = [\"a\"]\nthreads = 1\n[log]\n[[apis]]\nid = \"b\"", &[]);
        check(
            one,
            "[proxy]\nlisten = [\"a\", \"b\"]\n[admin]\nsecret = \"s\"",
            &["admin.secret", "proxy.listen", "proxy.threads"],
        );
        check("[admin]\nsecret = \"a\"", "[admin]\nsecret = \"b\"", &["admin.secret"]);
    }
}
