//! A file as a stream of chunks, cut into lines. Memory is bounded by the longest line.

use serde_json::Value;

use super::csv::Csv;
use super::options::Format;
use super::{Code, Fault};
use crate::wire::portal::fields::Members;

/// The longest line or row, in bytes: a token of the greatest length and generous metadata.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// One line that is not empty.
#[derive(Debug)]
pub struct Line {
    /// Its number, from 1, as an editor shows it.
    pub number: u64,
    /// What it says.
    pub members: Result<Members, Fault>,
}

/// A reader of one file.
#[derive(Debug)]
pub enum Lines {
    /// Of JSON objects.
    Ndjson(Ndjson),
    /// Of rows.
    Csv(Box<Csv>),
}

impl Lines {
    /// At the beginning of a file.
    #[must_use]
    pub fn new(format: Format) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson(Ndjson::default()),
            Format::Csv => Self::Csv(Box::default()),
        }
    }

    /// Reads a part of the file, and puts the lines that end in it into `lines`.
    ///
    /// # Errors
    /// When the file as a whole cannot be read: its header is wrong.
    pub fn feed(&mut self, chunk: &[u8], lines: &mut Vec<Line>) -> Result<(), String> {
        match self {
            Self::Ndjson(reader) => {
                reader.feed(chunk, lines);
                Ok(())
            }
            Self::Csv(reader) => reader.feed(chunk, lines),
        }
    }

    /// Reads the end of the file: its last line may have no line feed.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn end(&mut self, lines: &mut Vec<Line>) -> Result<(), String> {
        match self {
            Self::Ndjson(reader) => {
                reader.end(lines);
                Ok(())
            }
            Self::Csv(reader) => reader.end(lines),
        }
    }

    /// Warnings about the file as a whole.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Ndjson(_) => &[],
            Self::Csv(reader) => reader.warnings(),
        }
    }
}

/// A reader of JSON objects, one a line.
#[derive(Debug, Default)]
pub struct Ndjson {
    part: Vec<u8>,
    number: u64,
    too_long: bool,
}

impl Ndjson {
    fn feed(&mut self, chunk: &[u8], lines: &mut Vec<Line>) {
        let mut rest = chunk;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(at);
            self.take(line);
            self.finish(lines);
            rest = after.get(1..).unwrap_or_default();
        }
        self.take(rest);
    }

    fn take(&mut self, bytes: &[u8]) {
        if LINE_BYTES_MAX < self.part.len().saturating_add(bytes.len()) {
            self.too_long = true;
            self.part.clear();
        }
        if !self.too_long {
            self.part.extend_from_slice(bytes);
        }
    }

    fn finish(&mut self, lines: &mut Vec<Line>) {
        self.number = self.number.saturating_add(1);
        let number = self.number;
        let text = if number == 1 { without_mark(&self.part) } else { &self.part };
        if std::mem::take(&mut self.too_long) {
            lines.push(Line { number, members: Err(too_long()) });
        } else if !text.trim_ascii().is_empty() {
            lines.push(Line { number, members: object(text) });
        }
        self.part.clear();
    }

    fn end(&mut self, lines: &mut Vec<Line>) {
        if self.too_long || !self.part.is_empty() {
            self.finish(lines);
        }
    }
}

/// A byte order mark is no part of the first line.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

pub(super) fn too_long() -> Fault {
    let text = format!("the line is longer than {LINE_BYTES_MAX} bytes");
    Fault::new(Code::LineTooLong, "", text)
}

fn object(text: &[u8]) -> Result<Members, Fault> {
    let bad = |message: String| Fault::new(Code::BadJson, "", message);
    // Of the fault only where it is: the line holds a token.
    let at = |fault: serde_json::Error| bad(format!("not JSON (column {})", fault.column()));
    match serde_json::from_slice::<Value>(text).map_err(at)? {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(bad("must be a JSON object".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, text: &[u8], chunk: usize) -> Vec<String> {
        let (mut reader, mut lines) = (Lines::new(format), Vec::new());
        for part in text.chunks(chunk) {
            reader.feed(part, &mut lines).unwrap();
        }
        reader.end(&mut lines).unwrap();
        let shown = |line: Line| match line.members {
            Ok(members) => format!("{} {}", line.number, Value::from(members)),
            Err(fault) => format!("{} {:?} {}", line.number, fault.code, fault.message),
        };
        lines.into_iter().map(shown).collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does_however_they_arrive() {
        let text = b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"a\":\n[]\n\xff\n{\"b\":2}";
        let expect = [
            r#"1 {"a":1}"#,
            "4 BadJson not JSON (column 5)",
            "5 BadJson must be a JSON object",
            "6 BadJson not JSON (column 1)",
            r#"7 {"b":2}"#,
        ];
        for chunk in 1..40 {
            assert_eq!(read(Format::Ndjson, text, chunk), expect, "{chunk}");
        }
    }

    #[test]
    fn a_line_too_long_is_passed_over() {
        let mut text = vec![b'x'; LINE_BYTES_MAX + 1];
        text.extend(b"\n{}\n");
        for chunk in [1_000, LINE_BYTES_MAX, text.len()] {
            let lines = read(Format::Ndjson, &text, chunk);
            assert!(lines[0].starts_with("1 LineTooLong"), "{lines:?}");
            assert_eq!(lines[1..], ["2 {}"]);
        }
    }

    #[test]
    fn rows_are_numbered_by_their_first_line() {
        let text = b"Name,Key,products,metadata.tier,note\r\na,k-1,\"1;2\",gold,x\r\n\r\n\
            \"b\n\"\"c\"\"\",k-2,,,\r\nd,k-3\nlast,k-4,3,,";
        let expect = [
            r#"2 {"Alias":"a","KeyID":"k-1","MetaData":{"tier":"gold"},"ProductIDs":["1","2"]}"#,
            r#"4 {"Alias":"b\n\"c\"","KeyID":"k-2"}"#,
            "6 BadRow the row has 2 fields, the header 5",
            r#"7 {"Alias":"last","KeyID":"k-4","ProductIDs":["3"]}"#,
        ];
        for chunk in 1..80 {
            assert_eq!(read(Format::Csv, text, chunk), expect, "{chunk}");
        }
    }

    #[test]
    fn a_row_too_long_is_passed_over() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let text = format!("alias,key\na,\"{long}\n{long}\"\nb,k\n");
        for chunk in [777, text.len()] {
            let lines = read(Format::Csv, text.as_bytes(), chunk);
            assert!(lines[0].starts_with("2 LineTooLong"), "{}", &lines[0][..20]);
            assert_eq!(lines[1..], [r#"4 {"Alias":"b","KeyID":"k"}"#]);
        }
    }

    #[test]
    fn a_header_without_a_key_is_refused_and_not_shown() {
        let check = |text: &str, expect: &str| {
            let (mut reader, mut lines) = (Lines::new(Format::Csv), Vec::new());
            let fed = reader.feed(text.as_bytes(), &mut lines);
            let fault = fed.and_then(|()| reader.end(&mut lines)).unwrap_err();
            assert!(fault.contains(expect), "{fault}");
            assert!(!fault.contains("LEG"), "{fault}");
        };
        check("robot,LEG-00fa-91c2-77aa\n", "no column key or key_hash");
        check("key\nLEG\n", "no column alias or name");
        check("key,alias,Key\n", "several columns key");
        check("", "no header");
    }
}
