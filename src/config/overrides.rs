//! What the environment says instead of the file: `TURNPIKE_SECTION__KEY`.

use toml::{Table, Value};

use crate::config::Fault;

const PREFIX: &str = "TURNPIKE_";

/// Keys and values from the environment, read once, at the start.
#[derive(Clone, Default)]
pub struct Overrides(Vec<(String, String)>);

impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Overrides {
    /// Those of the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_pairs(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// Those among some names and values.
    #[must_use]
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): (String, String)| {
            let rest = name.strip_prefix(PREFIX)?;
            rest.contains("__").then(|| (rest.to_ascii_lowercase(), value))
        };
        let mut all: Vec<_> = pairs.into_iter().filter_map(ours).collect();
        all.sort();
        Self(all)
    }

    /// Puts the values into the table, over what the file says.
    pub(super) fn apply(&self, table: &mut Table, faults: &mut Vec<Fault>) {
        for (name, text) in &self.0 {
            let Some((section, key)) = name.split_once("__") else { continue };
            let slot = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            match slot.as_table_mut() {
                Some(section) => {
                    section.insert(key.to_owned(), value(text));
                }
                None => faults.push(Fault {
                    path: format!("{PREFIX}{}", name.to_ascii_uppercase()),
                    what: "only keys of sections can be overridden".into(),
                }),
            }
        }
    }
}

/// A number, a truth value or a list where the text reads as one; else the text itself.
fn value(text: &str) -> Value {
    let parsed: Option<Table> = toml::from_str(&format!("v = {text}")).ok();
    match parsed.and_then(|mut table| table.remove("v")) {
        Some(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => value,
        _ => Value::String(text.trim_matches('"').to_owned()),
    }
}
