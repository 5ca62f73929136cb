//! Percent-escapes: every character of a path in its one spelling (RFC 3986, 6.2.2.1 and 6.2.2.2).

use std::borrow::Cow;

use crate::domain::path::{Ambiguous, EncodedSlash};

/// By byte, whether it stands for itself in a path: a look-up is three times as fast as comparing.
const RAW: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    let mut rest: &mut [bool] = &mut table;
    while let Some((entry, after)) = rest.split_first_mut() {
        *entry = is_pchar(byte);
        byte = byte.wrapping_add(1);
        rest = after;
    }
    table
};

/// Whether a byte stands for itself in a segment: [`is_pchar`].
pub(super) fn may_stay_raw(byte: u8) -> bool {
    RAW.get(usize::from(byte)).is_some_and(|raw| *raw)
}

/// Rewrites the escapes of a path. Segments are left as they are.
///
/// # Errors
/// A byte or an escape that no path of ours may have.
pub(super) fn rewrite(raw: &str, slashes: EncodedSlash) -> Result<Cow<'_, str>, Ambiguous> {
    // The start of what is not copied yet; `out` is empty as long as all of it can be kept.
    let (mut pending, mut at) = (0, 0);
    let mut out = String::new();
    let mut utf8 = Utf8::default();
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'/' || may_stay_raw(byte) {
            utf8.end()?;
            at += 1;
            continue;
        }
        let (len, spelling) = if byte == b'%' {
            let (high, low) = (bytes.next(), bytes.next());
            let value = hex_pair(high, low).ok_or(Ambiguous::BadEscape)?;
            check_escaped(value, slashes)?;
            utf8.take(value)?;
            let upper = |digit: Option<u8>| digit.is_some_and(|d| !d.is_ascii_lowercase());
            let kept = !is_unreserved(value) && upper(high) && upper(low);
            (3, if kept { None } else { Some(value) })
        } else {
            utf8.end()?;
            check_raw(byte)?;
            (1, Some(byte))
        };
        if let Some(value) = spelling {
            out.reserve(raw.len());
            out.push_str(raw.get(pending..at).unwrap_or_default());
            spell(value, &mut out);
            pending = at + len;
        }
        at += len;
    }
    utf8.end()?;
    if pending == 0 {
        return Ok(Cow::Borrowed(raw));
    }
    out.push_str(raw.get(pending..).unwrap_or_default());
    Ok(Cow::Owned(out))
}

/// The text after as many further decodings of `%25` as there can be, if one gives an escape.
///
/// `%252E` and `%25252E` give `%2E`; `100%25` gives nothing to worry about.
pub(super) fn unwrap_percent(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut found = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%25") {
        out.push_str(before);
        let mut inner = after;
        while let Some(deeper) = inner.strip_prefix("25") {
            inner = deeper;
        }
        let mut digits = inner.bytes();
        if hex_pair(digits.next(), digits.next()).is_some() {
            found = true;
            out.push('%');
        } else {
            out.push_str("%25");
        }
        rest = inner;
    }
    out.push_str(rest);
    found.then_some(out)
}

/// `pchar` without escapes (RFC 3986, 3.3).
const fn is_pchar(byte: u8) -> bool {
    let sub_delim =
        matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
    is_unreserved(byte) || sub_delim || matches!(byte, b':' | b'@')
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn check_raw(byte: u8) -> Result<(), Ambiguous> {
    match byte {
        b'\\' => Err(Ambiguous::Backslash),
        b'#' => Err(Ambiguous::Fragment),
        b'?' => Err(Ambiguous::Query),
        0..=b' ' | 0x7f => Err(Ambiguous::Control),
        0x80.. => Err(Ambiguous::NonAscii),
        _ => Ok(()),
    }
}

fn check_escaped(value: u8, slashes: EncodedSlash) -> Result<(), Ambiguous> {
    match (value, slashes) {
        (b'/', EncodedSlash::Refuse) => Err(Ambiguous::EncodedSlash),
        (b'\\', _) => Err(Ambiguous::Backslash),
        (0..=0x1f | 0x7f, _) => Err(Ambiguous::Control),
        _ => Ok(()),
    }
}

/// Writes one decoded byte in its one spelling.
fn spell(value: u8, out: &mut String) {
    if is_unreserved(value) {
        out.push(char::from(value));
        return;
    }
    let digit =
        |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'A' + (nibble - 10) });
    out.extend(['%', digit(value >> 4), digit(value & 15)]);
}

fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    Some(nibble(high?)? << 4 | nibble(low?)?)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Follows escaped bytes as UTF-8: no overlong forms, no surrogates, nothing cut (RFC 3629, 4).
#[derive(Default)]
struct Utf8 {
    /// Continuation bytes to come.
    missing: u8,
    /// The range of the next one.
    low: u8,
    high: u8,
    /// Whether the next one completes U+0080 to U+009F if it is below 0xA0.
    control: bool,
}

impl Utf8 {
    fn take(&mut self, byte: u8) -> Result<(), Ambiguous> {
        if 0 < self.missing {
            if byte < self.low || self.high < byte {
                return Err(Ambiguous::NotUtf8);
            }
            if self.control && byte < 0xa0 {
                return Err(Ambiguous::Control);
            }
            *self = Self { missing: self.missing - 1, low: 0x80, high: 0xbf, control: false };
            return Ok(());
        }
        let (missing, low, high) = match byte {
            0..=0x7f => (0, 0, 0),
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            0x80..=0xc1 | 0xf5.. => return Err(Ambiguous::NotUtf8),
        };
        *self = Self { missing, low, high, control: byte == 0xc2 };
        Ok(())
    }

    fn end(&self) -> Result<(), Ambiguous> {
        if self.missing == 0 { Ok(()) } else { Err(Ambiguous::NotUtf8) }
    }
}
