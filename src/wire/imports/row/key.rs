//! The token of a line: in the clear, or as its SHA-256.

use serde_json::Value;

use super::{AppNamed, Row};
use crate::domain::token::{Pepper, TOKEN_LEN_MAX, TOKEN_LEN_MIN, Token, TokenHash};
use crate::wire::imports::{Code, Fault};
use crate::wire::portal::credential::{WEAK_TOKEN_LEN, mask};

/// What is shown of a token that came as a hash.
const HIDDEN: &str = "…";

/// What is kept of a token.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) hash: TokenHash,
    pub(super) mask: String,
    pub(super) weak: bool,
}

impl Key {
    /// Hashes what the line has. Where it has nothing that can be used, the hash means nothing,
    /// and the faults say so.
    pub(super) fn read(
        token: Option<&Token>,
        hash: Option<&Value>,
        pepper: &Pepper,
        faults: &mut Vec<Fault>,
    ) -> Self {
        let hash = hash.filter(|hash| !hash.is_null());
        match (token, hash) {
            (Some(token), None) => {
                check(token, faults);
                let text = token.reveal();
                let weak = text.len() < WEAK_TOKEN_LEN;
                Self { hash: pepper.hash(text.as_bytes()), mask: mask(token), weak }
            }
            (None, Some(hash)) => {
                let sha256 = sha256(hash).unwrap_or_else(|fault| {
                    faults.push(fault);
                    [0; 32]
                });
                let hash = pepper.hash_sha256(&sha256);
                Self { hash, mask: HIDDEN.to_owned(), weak: false }
            }
            (token, _) => {
                let (code, text) = match token {
                    None => (Code::MissingField, "KeyID or KeyHash is required"),
                    Some(_) => (Code::BadType, "KeyID and KeyHash must not both be there"),
                };
                faults.push(Fault::new(code, "KeyID", text));
                Self { hash: TokenHash([0; 32]), mask: HIDDEN.to_owned(), weak: false }
            }
        }
    }
}

/// The rules of an imported token. No fault shows any of it, and nothing is trimmed.
fn check(token: &Token, faults: &mut Vec<Fault>) {
    let text = token.reveal();
    let mut fault = |code, text: String| faults.push(Fault::new(code, "KeyID", text));
    if text.len() < TOKEN_LEN_MIN {
        fault(Code::KeyTooShort, format!("must be at least {TOKEN_LEN_MIN} characters long"));
    }
    if TOKEN_LEN_MAX < text.len() {
        fault(Code::KeyTooLong, format!("must be at most {TOKEN_LEN_MAX} characters long"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        fault(Code::KeyBadChars, "must be visible ASCII characters without spaces".to_owned());
    }
    if text.starts_with(',') || text.ends_with(',') {
        fault(Code::KeyBadChars, "must not begin or end with a comma".to_owned());
    }
}

/// The SHA-256 of a token: as `{"Algorithm":"sha256","Encoding":"hex","Value":".."}`, or its value
/// alone; in hexadecimal digits or base 64.
fn sha256(hash: &Value) -> Result<[u8; 32], Fault> {
    let fault = |code, text: &str| Fault::new(code, "KeyHash", text);
    let part = |name| hash.get(name).and_then(Value::as_str).map(str::to_ascii_lowercase);
    let value = match hash {
        Value::String(value) => value.as_str(),
        Value::Object(_) => {
            let value = hash.get("Value").and_then(Value::as_str);
            value.ok_or_else(|| fault(Code::BadType, "must have a Value"))?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            return Err(fault(Code::BadType, "must be a text or an object"));
        }
    };
    let algorithm = part("Algorithm").unwrap_or_else(|| "sha256".to_owned());
    if algorithm.replace('-', "") != "sha256" || value.starts_with('$') {
        let text = "must be a SHA-256: others cannot be looked up by";
        return Err(fault(Code::HashNotIndexable, text));
    }
    let read = match part("Encoding").as_deref() {
        None => hex(value).or_else(|| base64(value)),
        Some("hex") => hex(value),
        Some("base64") => base64(value),
        Some(_) => None,
    };
    read.ok_or_else(|| fault(Code::BadType, "must be 32 bytes in hexadecimal digits or base64"))
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Either alphabet of base 64 (RFC 4648, 4 and 5), with or without padding.
fn base64(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim_end_matches('=');
    if digits.len() != 43 || 1 < text.len() - digits.len() {
        return None;
    }
    let (mut bytes, mut used, mut bits, mut pending) = ([0; 32], 0_usize, 0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        pending = (pending << 6 | u32::from(value)) & 0x3fff;
        bits += 6;
        if 8 <= bits {
            bits -= 8;
            *bytes.get_mut(used)? = u8::try_from(pending >> bits & 0xff).ok()?;
            used += 1;
        }
    }
    // The last digit has two bits to spare.
    (used == 32 && pending & 0b11 == 0).then_some(bytes)
}

/// Finds the token in what would be kept beside it.
pub(super) struct Tells<'a> {
    pub(super) token: Option<&'a Token>,
    pub(super) hash: TokenHash,
    pub(super) pepper: &'a Pepper,
}

impl Tells<'_> {
    /// Whether a text holds the token; where only its hash is known, whether it is the token.
    pub(super) fn text(&self, text: &str) -> bool {
        match self.token {
            Some(token) if token.reveal().is_empty() => false,
            Some(token) => text.contains(token.reveal()),
            None => !text.is_empty() && self.pepper.hash(text.as_bytes()) == self.hash,
        }
    }

    /// The members of a row that hold it.
    pub(super) fn fields_of(&self, row: &Row) -> Vec<&'static str> {
        let mut fields = Vec::new();
        let mut look = |field, text: &str| {
            if self.text(text) && !fields.contains(&field) {
                fields.push(field);
            }
        };
        look("Alias", &row.alias);
        look("Description", &row.description);
        if let AppNamed::Of { name, user } = &row.app {
            look("App", name);
            look("User", &user.email);
        }
        let user = match &row.app {
            AppNamed::Of { user, .. } => user.new.as_ref(),
            AppNamed::Id(_) => None,
        };
        for (field, members) in [("User", user), ("MetaData", row.metadata.as_ref())] {
            let holds = |(name, value): (&String, &Value)| self.text(name) || self.value(value);
            if members.is_some_and(|members| members.iter().any(holds)) && !fields.contains(&field)
            {
                fields.push(field);
            }
        }
        fields
    }

    fn value(&self, value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => self.text(&number.to_string()),
            Value::String(text) => self.text(text),
            Value::Array(values) => values.iter().any(|value| self.value(value)),
            Value::Object(members) => {
                members.iter().any(|(name, value)| self.text(name) || self.value(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_comes_in_hexadecimal_digits_or_base_64() {
        // printf abc | openssl dgst -sha256 -binary | base64
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let base64 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let pepper = Pepper::new([7; 32]);
        let url = base64.replace('+', "-").replace('/', "_");
        for value in [hex, &hex.to_uppercase(), base64, base64.trim_end_matches('='), &url] {
            let read = sha256(&value.into()).map(|sha256| pepper.hash_sha256(&sha256));
            assert_eq!(read, Ok(pepper.hash(b"abc")), "{value}");
        }
        for value in ["", "ba78", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa1=", "é"] {
            assert_eq!(sha256(&value.into()).map_err(|fault| fault.code), Err(Code::BadType));
        }
    }
}
