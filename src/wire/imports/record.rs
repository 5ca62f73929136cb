//! An import as it lies in the store, and as it is shown.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Fault;
use super::options::{Format, Mode, OnError, Options};
use crate::domain::time::UnixMs;
use crate::wire::portal::moment;

/// An import that says nothing for so long is over: its gateway ended. In milliseconds.
pub const SILENCE_MAX_MS: u64 = 15_000;

/// How an import stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Lines are being read or applied.
    #[default]
    Running,
    /// All lines are applied.
    Completed,
    /// All lines without faults are applied.
    CompletedWithErrors,
    /// A line had a fault when all were checked, and so none was applied.
    Aborted,
    /// Somebody ended it.
    Cancelled,
    /// The file broke off, or the gateway ended.
    Interrupted,
    /// The file or the store could not be used.
    Failed,
}

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Lines that are not empty.
    pub total: u64,
    /// Credentials made.
    pub created: u64,
    /// Credentials changed.
    pub updated: u64,
    /// Credentials that were as their line says.
    pub unchanged: u64,
    /// Credentials deleted, because no line named them.
    #[serde(default)]
    pub deleted: u64,
    /// Lines with faults.
    pub failed: u64,
    /// Lines with warnings.
    pub warnings: u64,
    /// Lines, among the failed, that could not be read at all.
    pub unreadable: u64,
}

impl Counts {
    /// Lines that are as they say.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.created.saturating_add(self.updated).saturating_add(self.unchanged)
    }
}

/// One import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its number.
    pub id: u64,
    /// How it stands.
    pub status: Status,
    /// Whether somebody wants it to end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// All lines were right, and they are being applied: from here on nobody ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub applying: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who began it.
    pub by: String,
    /// What its `Idempotency-Key` hashes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// How it was asked to go.
    pub asked: Asked,
    /// What became of its lines so far.
    pub counts: Counts,
    /// A generation of the store with all that it applied, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
    /// Commits made so far, each with a part of the report.
    pub batches: u64,
    /// Warnings about the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When it began, in unix milliseconds.
    pub started_ms: u64,
    /// When it last said something.
    pub updated_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
}

/// The options that are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Asked {
    format: Format,
    mode: Mode,
    on_error: OnError,
    dry_run: bool,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            format: Format::Ndjson,
            mode: Mode::default(),
            on_error: OnError::default(),
            dry_run: false,
        }
    }
}

impl From<&Options> for Asked {
    fn from(options: &Options) -> Self {
        let Options { format, mode, on_error, dry_run, .. } = *options;
        Self { format, mode, on_error, dry_run }
    }
}

/// What became of the lines of one commit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Part {
    /// Lines with faults or warnings.
    #[serde(default)]
    pub entries: Vec<Entry>,
    /// Lines and their credentials.
    #[serde(default)]
    pub results: Vec<(u64, u64)>,
}

/// A line with a fault or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub line: u64,
    /// What its file calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// What is wrong.
    #[serde(flatten)]
    pub fault: Fault,
    /// Whether it was applied all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
    /// What is shown of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_mask: Option<String>,
}

impl Import {
    /// Whether it goes on, as far as one knows at `now`.
    #[must_use]
    pub fn runs(&self, now: UnixMs) -> bool {
        self.status == Status::Running && now.0 < self.updated_ms.saturating_add(SILENCE_MAX_MS)
    }

    /// As it is shown.
    #[must_use]
    pub fn shown(&self, now: UnixMs) -> Value {
        let silent = self.status == Status::Running && !self.runs(now);
        let status = if silent { Status::Interrupted } else { self.status };
        let at = |ms| moment::exact(UnixMs(ms));
        let ended = self.finished_ms.unwrap_or(self.updated_ms);
        let took_ms = ended.saturating_sub(self.started_ms).max(1);
        let Counts { total, created, updated, unchanged, deleted, failed, warnings, .. } =
            self.counts;
        let mut shown = json!({
            "ID": self.id,
            "Status": status,
            "By": self.by,
            // Lines taken in so far: all of them once it has ended.
            "Received": total,
            "Total": total,
            "Created": created,
            "Updated": updated,
            "Unchanged": unchanged,
            "Deleted": deleted,
            "Failed": failed,
            "Warnings": warnings,
            "LinesPerSecond": total.saturating_mul(1_000) / took_ms,
            "StartedAt": at(self.started_ms),
            "FinishedAt": self.finished_ms.map(at),
            "AppliedGeneration": self.applied,
            "ErrorsURL": format!("/v1/imports/{}/errors", self.id),
            "ResultsURL": format!("/v1/imports/{}/results", self.id),
        });
        let asked = serde_json::to_value(&self.asked).ok();
        if let (Some(members), Some(Value::Object(asked))) = (shown.as_object_mut(), asked) {
            members.extend(asked);
            let reason = self.reason.as_deref().map(Into::into);
            members.extend(reason.map(|reason| ("Reason".to_owned(), reason)));
            let mut notes = self.notes.clone();
            notes.extend(self.partly(status));
            if !notes.is_empty() {
                members.insert("Notes".to_owned(), notes.into());
            }
        }
        shown
    }

    /// What is to be said of one that was to apply all lines or none, and applied some.
    fn partly(&self, status: Status) -> Option<String> {
        let Counts { total, failed, .. } = self.counts;
        let applied = self.counts.applied();
        let why = match status {
            Status::Running | Status::Completed | Status::Aborted => return None,
            Status::CompletedWithErrors => format!("{failed} found a fault only then"),
            Status::Cancelled | Status::Interrupted | Status::Failed => {
                "import the file again for the rest".to_owned()
            }
        };
        let text = format!("all lines were right, but {applied} of {total} are applied: {why}");
        self.applying.then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_broke_off_while_it_was_applied_says_how_far_it_was() {
        let counts = Counts { total: 10, created: 2, updated: 1, ..Counts::default() };
        let import = Import { counts, updated_ms: 1_000, ..Import::default() };
        let over = UnixMs(1_000 + SILENCE_MAX_MS);
        let notes = |import: &Import, now| import.shown(now)["Notes"].clone();
        assert_eq!(notes(&import, over), Value::Null, "it was only checked");
        let import = Import { applying: true, ..import };
        assert_eq!(notes(&import, UnixMs(1_000)), Value::Null, "it goes on");
        let text =
            "all lines were right, but 3 of 10 are applied: import the file again for the rest";
        assert_eq!(import.shown(over)["Status"], "interrupted");
        assert_eq!(notes(&import, over), json!([text]));
        let import = Import { status: Status::Failed, ..import };
        assert_eq!(notes(&import, UnixMs(1_000)), json!([text]));
    }
}
