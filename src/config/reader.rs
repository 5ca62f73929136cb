//! Reads a table key by key and collects what is wrong with it.
#![expect(clippy::wildcard_enum_match_arm, reason = "any other kind of value is the fault")]

use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::{Table, Value};

use crate::config::{Fault, Networks};
use crate::domain::api::Network;

/// One table on its way into a checked value. What nobody asked for is a fault in the end.
pub(super) struct Reader<'a> {
    path: String,
    table: Table,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &str, table: Table, faults: &'a mut Vec<Fault>) -> Self {
        Self { path: path.to_owned(), table, faults }
    }

    pub(super) fn fault(&mut self, key: &str, what: impl Into<String>) {
        let path = self.at(key);
        self.faults.push(Fault { path, what: what.into() });
    }

    fn at(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A number within bounds.
    pub(super) fn number(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        match self.table.remove(key) {
            None => default,
            Some(Value::Integer(n)) => match u64::try_from(n) {
                Ok(n) if range.contains(&n) => n,
                _ => {
                    let what = format!("must be {} to {}, is {n}", range.start(), range.end());
                    self.fault(key, what);
                    default
                }
            },
            Some(other) => {
                self.wrong_type(key, "a whole number", &other);
                default
            }
        }
    }

    /// The same, as a size of something in memory.
    pub(super) fn size(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> usize {
        usize::try_from(self.number(key, default, range)).unwrap_or(usize::MAX)
    }

    /// The same, as a count.
    pub(super) fn count(&mut self, key: &str, default: u32, range: RangeInclusive<u64>) -> u32 {
        u32::try_from(self.number(key, default.into(), range)).unwrap_or(u32::MAX)
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.table.remove(key) {
            None => default,
            Some(Value::Boolean(b)) => b,
            Some(other) => {
                self.wrong_type(key, "true or false", &other);
                default
            }
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key) {
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.wrong_type(key, "a text", &other);
                None
            }
        }
    }

    /// A text that is parsed; the parser's error says what it must be.
    pub(super) fn parsed<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let text = self.text(key)?;
        self.parse(key, &text)
    }

    pub(super) fn parse<T>(&mut self, key: &str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, error.to_string());
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text(key) else { return default };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.fault(key, format!("must be {}, is \"{text}\"", known.join(" or ")));
        default
    }

    /// A list of texts, each with the key to name it by.
    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<(String, String)>> {
        let items = match self.table.remove(key)? {
            Value::Array(items) => items,
            // The environment has no lists: there, commas part the items.
            Value::String(text) => {
                text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()
            }
            other => {
                self.wrong_type(key, "a list", &other);
                return None;
            }
        };
        let mut texts = Vec::new();
        for (n, item) in items.into_iter().enumerate() {
            let key = format!("{key}[{n}]");
            match item {
                Value::String(text) => texts.push((key, text)),
                other => self.wrong_type(&key, "a text", &other),
            }
        }
        Some(texts)
    }

    /// A list of numbers within bounds.
    pub(super) fn numbers(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<Vec<u64>> {
        let items = match self.table.remove(key)? {
            Value::Array(items) => items,
            other => {
                self.wrong_type(key, "a list", &other);
                return None;
            }
        };
        let mut below = Table::new();
        let keys: Vec<String> = (0..items.len()).map(|n| format!("{key}[{n}]")).collect();
        below.extend(keys.iter().cloned().zip(items));
        let mut reader = Reader::new(&self.path, below, self.faults);
        Some(keys.iter().map(|key| reader.number(key, *range.start(), range.clone())).collect())
    }

    /// A table of texts, each with the key to name it by: (key, name, text).
    pub(super) fn pairs(&mut self, key: &str) -> Vec<(String, String, String)> {
        let table = match self.table.remove(key) {
            None => return Vec::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong_type(key, "a table", &other);
                return Vec::new();
            }
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            let key = format!("{key}.{name}");
            match value {
                Value::String(text) => pairs.push((key, name, text)),
                other => self.wrong_type(&key, "a text", &other),
            }
        }
        pairs
    }

    /// A list of networks; none where it is left out.
    pub(super) fn networks(&mut self, key: &str) -> Networks {
        let texts = self.texts(key).unwrap_or_default();
        texts.iter().filter_map(|(key, text)| self.parse::<Network>(key, text)).collect()
    }

    /// A table below this one, read by `read`.
    pub(super) fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let table = match self.table.remove(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong_type(key, "a section", &other);
                Table::new()
            }
        };
        let mut below = Reader::new(&self.at(key), table, self.faults);
        let value = read(&mut below);
        below.finish();
        value
    }

    /// A list of tables, each read by `read`.
    pub(super) fn sections<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
    ) -> Vec<T> {
        let items = match self.table.remove(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong_type(key, "a list of sections", &other);
                return Vec::new();
            }
        };
        let mut values = Vec::new();
        for (n, item) in items.into_iter().enumerate() {
            let key = format!("{key}[{n}]");
            let Value::Table(table) = item else {
                self.wrong_type(&key, "a section", &item);
                continue;
            };
            let mut below = Reader::new(&self.at(&key), table, self.faults);
            values.extend(read(&mut below));
            below.finish();
        }
        values
    }

    /// Everything that was not asked for is unknown.
    pub(super) fn finish(&mut self) {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            self.fault(&key, "unknown key");
        }
    }

    fn wrong_type(&mut self, key: &str, wanted: &str, got: &Value) {
        self.fault(key, format!("must be {wanted}, is a {}", got.type_str()));
    }
}
