//! Reading of bodies: one pass that coerces what can be coerced, names everything that cannot, and
//! keeps what it does not know.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde_json::{Map, Value};

use super::moment;
pub use super::values::{ApiRef, Faults, Flag, Moment, Ref, is_cid};
use super::values::{described, scalar_text};
use crate::domain::id::InvalidId;
use crate::domain::time::UnixMs;
use crate::domain::token::Token;
use crate::wire::decimal::Decimal;

/// A JSON object.
pub type Members = Map<String, Value>;

/// The longest name, alias or other text of one line, in characters (portal-api, B2).
pub const LINE_CHARS_MAX: usize = 255;
/// The longest free text, in characters: a page of description, no store of files.
const TEXT_CHARS_MAX: usize = 65_536;
/// The most entries in one list: a credential of that many products is a mistake.
const LIST_MAX: usize = 10_000;
/// The members of one object, each taken once.
///
/// What is read goes out in its canonical form; what is left at the end goes out as it came.
/// `null` reads as absent.
#[derive(Debug)]
pub struct Fields<'f> {
    rest: Members,
    out: Members,
    path: String,
    faults: &'f mut Faults,
}

impl<'f> Fields<'f> {
    /// The members of a body.
    #[must_use]
    pub fn of(members: Members, faults: &'f mut Faults) -> Self {
        Self { rest: members, out: Members::new(), path: String::new(), faults }
    }

    /// The canonical members, and the unknown ones.
    #[must_use]
    pub fn finish(mut self) -> Members {
        for (name, value) in self.rest {
            self.out.entry(name).or_insert(value);
        }
        self.out
    }

    /// Names a fault of a member.
    pub fn fault(&mut self, name: &str, what: impl Display) {
        let path = format!("{}{name}", self.path);
        self.faults.add(&path, what);
    }

    /// Whether a fault of that member was found.
    #[must_use]
    pub fn faulted(&self, name: &str) -> bool {
        let begin = format!("{}{name} ", self.path);
        self.faults.begins_with(&begin)
    }

    /// Forgets a member: it is neither kept nor shown.
    pub fn discard(&mut self, name: &str) {
        self.rest.remove(name);
        self.out.remove(name);
    }

    /// Whether a member is there and not yet read; `null` is not there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.rest.get(name).is_some_and(|value| !value.is_null())
    }

    /// Sets what goes out for a member.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.out.insert(name.to_owned(), value.into());
    }

    /// The member's path and the name of the API it holds; faults are named.
    pub fn api(&mut self, name: &str) -> Option<ApiRef> {
        let text = self.scalar(name)?;
        self.out.insert(name.to_owned(), text.clone().into());
        match text.parse() {
            Ok(id) => Some(ApiRef { path: format!("{}{name}", self.path), id }),
            Err(InvalidId::Length { len: 0 }) => None,
            Err(fault) => {
                self.fault(name, fault);
                None
            }
        }
    }

    /// Takes a secret: it does not go out. A number counts as the text of its digits.
    pub fn secret(&mut self, name: &str) -> Option<Token> {
        let text = self.scalar(name)?;
        Some(Token::new(text)).filter(|token| !token.reveal().is_empty())
    }

    /// A text of one line, at most [`LINE_CHARS_MAX`] characters; absent reads as empty.
    pub fn line(&mut self, name: &str) -> String {
        let text = self.bounded(name, LINE_CHARS_MAX);
        if text.chars().any(char::is_control) {
            self.fault(name, "must not contain control characters");
        }
        text
    }

    /// A text of one line that must be there.
    pub fn required_line(&mut self, name: &str) -> String {
        let text = self.line(name);
        if text.trim().is_empty() && !self.faulted(name) {
            self.fault(name, "is required");
        }
        text
    }

    /// A free text; absent reads as empty.
    pub fn text(&mut self, name: &str) -> String {
        self.bounded(name, TEXT_CHARS_MAX)
    }

    fn bounded(&mut self, name: &str, chars_max: usize) -> String {
        let text = self.scalar(name).unwrap_or_default();
        if chars_max < text.chars().count() {
            self.fault(name, format_args!("must be at most {chars_max} characters long"));
        }
        self.out.insert(name.to_owned(), text.clone().into());
        text
    }

    /// Yes or no; also `"true"`, `"1"`, 1. Absent reads as `default`.
    pub fn flag(&mut self, name: &str, default: Flag) -> bool {
        let flag = match self.scalar(name).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None | Some("") => default == Flag::On,
            Some("true" | "1" | "on" | "yes") => true,
            Some("false" | "0" | "off" | "no") => false,
            Some(_) => {
                self.fault(name, "must be true or false");
                false
            }
        };
        self.out.insert(name.to_owned(), flag.into());
        flag
    }

    /// A decimal number; absent reads as 0.
    pub fn decimal(&mut self, name: &str) -> Decimal {
        let text = self.scalar(name).unwrap_or_default();
        if text.trim().is_empty() {
            self.out.insert(name.to_owned(), 0.into());
            return Decimal::default();
        }
        match text.trim().parse::<Decimal>() {
            Ok(number) => {
                let shown = serde_json::from_str(&number.to_string());
                self.out.insert(name.to_owned(), shown.unwrap_or(Value::Null));
                number
            }
            Err(fault) => {
                self.fault(name, fault);
                Decimal::default()
            }
        }
    }

    /// A whole number; absent reads as 0.
    pub fn whole(&mut self, name: &str) -> i64 {
        match self.decimal(name).whole() {
            Some(number) => number,
            None => {
                self.fault(name, "must be a whole number");
                0
            }
        }
    }

    /// One of `choices`, as the caller spelled it; absent or empty is `None` and does not go out.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.scalar(name)?;
        if text.is_empty() {
            return None;
        }
        let found = choices.iter().find(|(spelling, _)| *spelling == text).map(|(_, what)| *what);
        if found.is_none() {
            let all: Vec<_> = choices.iter().map(|(spelling, _)| *spelling).collect();
            self.fault(name, format_args!("must be one of {}", all.join(", ")));
        }
        self.out.insert(name.to_owned(), text.into());
        found
    }

    /// Another object, by number or custom id; absent, empty and 0 are `None`.
    pub fn reference(&mut self, name: &str) -> Option<Ref> {
        let value = self.take(name)?;
        let read = self.as_ref(name, &value);
        let shown = match &read {
            Some(Ref::Id(id)) => (*id).into(),
            Some(Ref::Cid(_)) | None => Value::Null,
        };
        self.out.insert(name.to_owned(), shown);
        read.filter(|named| *named != Ref::Id(0))
    }

    /// Several other objects, each once; one alone may stand without a list around it.
    pub fn references(&mut self, name: &str) -> Vec<Ref> {
        let values = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(values)) => values,
            Some(Value::String(text)) => text.split(',').map(Value::from).collect(),
            Some(one) => vec![one],
        };
        self.check_len(name, values.len());
        let (mut refs, mut known) = (Vec::new(), BTreeSet::new());
        for value in values.iter().take(LIST_MAX) {
            refs.extend(self.as_ref(name, value).filter(|named| known.insert(named.clone())));
        }
        refs
    }

    fn as_ref(&mut self, name: &str, value: &Value) -> Option<Ref> {
        let member = described(value);
        let text = scalar_text(member).unwrap_or_default();
        let read = Ref::parse(&text);
        let empty = text.trim().is_empty() && !matches!(member, Value::Array(_) | Value::Object(_));
        if read.is_none() && !empty {
            self.fault(name, "must be an id");
        }
        read
    }

    /// A list of texts; also one text with commas, or one alone without a list around it. What
    /// describes an object stands for its number.
    pub fn lines(&mut self, name: &str) -> Vec<String> {
        let values = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(Value::String(text)) => text.split(',').map(|t| t.trim().into()).collect(),
            Some(one) => vec![one],
        };
        self.check_len(name, values.len());
        let texts = values.iter().map(|value| scalar_text(described(value)));
        if texts.clone().any(|text| text.is_none()) {
            self.fault(name, "must be a list of texts");
        }
        let texts: Vec<_> = texts.flatten().filter(|text| !text.is_empty()).collect();
        if texts.iter().any(|text| LINE_CHARS_MAX < text.chars().count()) {
            self.fault(
                name,
                format_args!("must hold texts of at most {LINE_CHARS_MAX} characters"),
            );
        }
        self.out.insert(name.to_owned(), texts.clone().into());
        texts
    }

    /// An object as it is; absent reads as empty.
    pub fn object(&mut self, name: &str) -> Members {
        let members = match self.take(name) {
            None => Members::new(),
            Some(Value::Object(members)) => members,
            Some(Value::String(text)) if text.trim().is_empty() => Members::new(),
            Some(_) => {
                self.fault(name, "must be an object");
                Members::new()
            }
        };
        self.out.insert(name.to_owned(), members.clone().into());
        members
    }

    /// A time; see [`moment::parse`].
    pub fn moment(&mut self, name: &str) -> Moment {
        let Some(text) = self.scalar(name).filter(|text| !text.trim().is_empty()) else {
            return Moment::Absent;
        };
        let unix_s = text.trim().parse::<i64>().ok();
        let read = match unix_s {
            Some(unix_s) => Ok(u64::try_from(unix_s).ok().filter(|s| 0 < *s).map(seconds)),
            None => moment::parse(&text),
        };
        match read {
            Ok(None) => Moment::Never,
            Ok(Some(at)) => {
                self.out.insert(name.to_owned(), moment::exact(at).into());
                Moment::At(at)
            }
            Err(fault) => {
                self.fault(name, fault);
                Moment::Absent
            }
        }
    }

    /// One object inside, read by `read`; absent is `None` and does not go out.
    pub fn nested<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        match self.take(name)? {
            Value::Object(members) => {
                let (value, members) = self.inside(format!("{name}."), members, read);
                self.out.insert(name.to_owned(), members.into());
                Some(value)
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                self.fault(name, "must be an object");
                None
            }
        }
    }

    /// A list of objects, each read by `read`; absent reads as empty and does not go out.
    pub fn each<T>(&mut self, name: &str, mut read: impl FnMut(&mut Fields<'_>) -> T) -> Vec<T> {
        let values = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(values)) => values,
            Some(one) => vec![one],
        };
        self.check_len(name, values.len());
        let (mut all, mut shown) = (Vec::new(), Vec::new());
        for (at, value) in values.into_iter().take(LIST_MAX).enumerate() {
            if let Value::Object(members) = value {
                let (one, members) = self.inside(format!("{name}[{at}]."), members, &mut read);
                all.push(one);
                shown.push(Value::from(members));
            } else {
                self.fault(&format!("{name}[{at}]"), "must be an object");
            }
        }
        self.out.insert(name.to_owned(), shown.into());
        all
    }

    /// An object of objects, each read by `read`; absent reads as empty and does not go out.
    pub fn by_name<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&str, &mut Fields<'_>) -> T,
    ) -> Vec<T> {
        let entries = self.nested(name, |fields| {
            let names: Vec<_> = fields.rest.keys().take(LIST_MAX).cloned().collect();
            names.iter().filter_map(|key| fields.nested(key, |inner| read(key, inner))).collect()
        });
        entries.unwrap_or_default()
    }

    fn inside<T>(
        &mut self,
        step: String,
        members: Members,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> (T, Members) {
        let path = format!("{}{step}", self.path);
        let mut fields =
            Fields { rest: members, out: Members::new(), path, faults: &mut *self.faults };
        let value = read(&mut fields);
        (value, fields.finish())
    }

    fn check_len(&mut self, name: &str, len: usize) {
        if LIST_MAX < len {
            self.fault(name, format_args!("must have at most {LIST_MAX} entries"));
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    fn scalar(&mut self, name: &str) -> Option<String> {
        let value = self.take(name)?;
        let text = scalar_text(&value);
        if text.is_none() {
            self.fault(name, "must not be a list or an object");
        }
        text
    }
}

fn seconds(unix_s: u64) -> UnixMs {
    UnixMs(unix_s.saturating_mul(1_000))
}
