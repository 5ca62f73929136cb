//! Rows with a header: names in any case and order. Amazon's API key files are such rows.

use csv_core::{ReadRecordResult, Reader};
use serde_json::Value;

use super::lines::{LINE_BYTES_MAX, Line, too_long, without_mark};
use super::options::names;
use super::{Code, Fault};
use crate::wire::portal::fields::Members;

/// The most columns.
const COLUMNS_MAX: usize = 256;

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    /// A member of that name.
    Member(&'static str),
    /// Names in a list.
    List(&'static str),
    /// One member of the metadata.
    Meta(String),
    Unknown,
}

/// A reader of rows.
pub struct Csv {
    reader: Reader,
    columns: Vec<Column>,
    /// The fields of the row that is being read, one after the other, and where each ends.
    row: Vec<u8>,
    filled: usize,
    ends: Vec<usize>,
    ended: usize,
    /// The line that is being read, and the one that the row began on.
    line: u64,
    began: Option<u64>,
    too_long: bool,
    /// The first bytes, until it is known whether they are a byte order mark.
    head: Option<Vec<u8>>,
    warnings: Vec<String>,
}

impl Default for Csv {
    fn default() -> Self {
        Self {
            reader: Reader::new(),
            columns: Vec::new(),
            row: vec![0; LINE_BYTES_MAX],
            filled: 0,
            ends: vec![0; COLUMNS_MAX],
            ended: 0,
            line: 1,
            began: None,
            too_long: false,
            head: Some(Vec::new()),
            warnings: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Csv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Csv").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Csv {
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn feed(&mut self, chunk: &[u8], lines: &mut Vec<Line>) -> Result<(), String> {
        let Some(mut head) = self.head.take() else { return self.read(chunk, lines) };
        head.extend_from_slice(chunk);
        if head.len() < 3 {
            self.head = Some(head);
            return Ok(());
        }
        self.read(without_mark(&head), lines)
    }

    pub(super) fn end(&mut self, lines: &mut Vec<Line>) -> Result<(), String> {
        if let Some(head) = self.head.take() {
            self.read(&head, lines)?;
        }
        if self.began.is_some() {
            self.step(&[], lines)?;
        }
        if self.columns.is_empty() {
            return Err("the file has no header".to_owned());
        }
        Ok(())
    }

    fn read(&mut self, chunk: &[u8], lines: &mut Vec<Line>) -> Result<(), String> {
        let mut rest = chunk;
        loop {
            if self.began.is_none() {
                // Between rows: empty lines, and the second half of a line's end.
                let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                let (skipped, after) = rest.split_at(blank);
                self.count(skipped);
                rest = after;
            }
            if rest.is_empty() {
                return Ok(());
            }
            let read = self.step(rest, lines)?;
            rest = rest.get(read..).unwrap_or_default();
        }
    }

    /// Reads up to the end of a row or of the input; an empty input is the end of the file.
    fn step(&mut self, input: &[u8], lines: &mut Vec<Line>) -> Result<usize, String> {
        self.began.get_or_insert(self.line);
        let row = self.row.get_mut(self.filled..).unwrap_or_default();
        let ends = self.ends.get_mut(self.ended..).unwrap_or_default();
        let (result, read, wrote, ended) = self.reader.read_record(input, row, ends);
        self.filled = self.filled.saturating_add(wrote);
        self.ended = self.ended.saturating_add(ended);
        self.count(input.get(..read).unwrap_or_default());
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                self.too_long = true;
                (self.filled, self.ended) = (0, 0);
            }
            ReadRecordResult::Record | ReadRecordResult::End => self.finish(lines)?,
        }
        Ok(read)
    }

    fn count(&mut self, bytes: &[u8]) {
        let feeds = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.line = self.line.saturating_add(u64::try_from(feeds).unwrap_or(u64::MAX));
    }

    fn finish(&mut self, lines: &mut Vec<Line>) -> Result<(), String> {
        let number = self.began.take().unwrap_or(self.line);
        let too_long_row = std::mem::take(&mut self.too_long);
        let ends = self.ends.get(..self.ended).unwrap_or_default();
        let mut from = 0;
        let mut fields = Vec::with_capacity(ends.len());
        for end in ends {
            fields.push(String::from_utf8_lossy(self.row.get(from..*end).unwrap_or_default()));
            from = *end;
        }
        if self.columns.is_empty() {
            if too_long_row {
                return Err("the header is too long".to_owned());
            }
            (self.columns, self.warnings) = header(&fields)?;
        } else if too_long_row {
            lines.push(Line { number, members: Err(too_long()) });
        } else {
            lines.push(Line { number, members: members(&self.columns, &fields) });
        }
        (self.filled, self.ended) = (0, 0);
        Ok(())
    }
}

/// Nothing of a header is shown but the names that are known: a file without one has a token there.
fn header(names: &[std::borrow::Cow<'_, str>]) -> Result<(Vec<Column>, Vec<String>), String> {
    let columns: Vec<_> = names.iter().map(|name| column(name.trim())).collect();
    let known: Vec<_> = columns.iter().filter(|column| **column != Column::Unknown).collect();
    for (at, column) in known.iter().enumerate() {
        if known.iter().take(at).any(|other| other == column) {
            return Err(format!("the header has several columns {}", shown(column)));
        }
    }
    let has = |name| known.contains(&&Column::Member(name));
    let seen = || known.iter().map(|column| shown(column)).collect::<Vec<_>>().join(", ");
    for (one, other, names) in
        [("KeyID", "KeyHash", "key or key_hash"), ("Alias", "Alias", "alias or name")]
    {
        if !has(one) && !has(other) {
            let strange = columns.len().saturating_sub(known.len());
            let seen = format!("it has {} and {strange} that mean nothing here", seen());
            return Err(format!("the header has no column {names}; {seen}"));
        }
    }
    let strange = columns.iter().enumerate().filter(|(_, column)| **column == Column::Unknown);
    let warnings = strange.map(|(at, _)| format!("column {} means nothing here", at + 1));
    Ok((columns.clone(), warnings.collect()))
}

fn column(name: &str) -> Column {
    let plain = name.to_ascii_lowercase().replace(['_', ' '], "");
    Column::Member(match plain.as_str() {
        "alias" | "name" => "Alias",
        "key" | "keyid" => "KeyID",
        "keyhash" => "KeyHash",
        "appid" => "AppID",
        "app" => "App",
        "useremail" => "User",
        "plan" | "planid" => "Plan",
        "expires" => "Expires",
        "enabled" | "active" => "Active",
        "quotaused" => "QuotaUsed",
        "quotarenews" => "QuotaRenews",
        "description" => "Description",
        "line" => "Line",
        "products" | "productids" => return Column::List("ProductIDs"),
        "usageplanids" => return Column::List("UsagePlanIds"),
        _ => {
            let begin = name.get(..9).filter(|begin| begin.eq_ignore_ascii_case("metadata."));
            let rest = begin.and_then(|_| name.get(9..)).filter(|rest| !rest.is_empty());
            return rest.map_or(Column::Unknown, |rest| Column::Meta(rest.to_owned()));
        }
    })
}

/// The name of a column as the header may have it. Names of metadata are the file's own.
fn shown(column: &Column) -> &'static str {
    match column {
        Column::Member("KeyID") => "key",
        Column::Member("KeyHash") => "key_hash",
        Column::Member("AppID") => "app_id",
        Column::Member("Alias") => "alias",
        Column::Member("User") => "user_email",
        Column::Member("Active") => "enabled",
        Column::Member("QuotaUsed") => "quota_used",
        Column::Member("QuotaRenews") => "quota_renews",
        Column::Member(name) => name,
        Column::List("ProductIDs") => "products",
        Column::List(name) => name,
        Column::Meta(_) => "metadata",
        Column::Unknown => "unknown",
    }
}

fn members(columns: &[Column], fields: &[std::borrow::Cow<'_, str>]) -> Result<Members, Fault> {
    if fields.len() != columns.len() {
        let (has, header) = (fields.len(), columns.len());
        let text = format!("the row has {has} fields, the header {header}");
        return Err(Fault::new(Code::BadRow, "", text));
    }
    let mut members = Members::new();
    let mut metadata = Members::new();
    for (column, field) in columns.iter().zip(fields) {
        // An empty field says nothing.
        if field.is_empty() {
            continue;
        }
        match column {
            Column::Member(name) => {
                members.insert((*name).to_owned(), field.as_ref().into());
            }
            Column::List(name) => {
                let unquoted = field.trim().trim_matches('\'');
                members.insert((*name).to_owned(), names(unquoted).into());
            }
            Column::Meta(name) => {
                metadata.insert(name.clone(), field.as_ref().into());
            }
            Column::Unknown => {}
        }
    }
    if !metadata.is_empty() {
        members.insert("MetaData".to_owned(), Value::from(metadata));
    }
    Ok(members)
}
