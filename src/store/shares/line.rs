//! One record of the journal: a line of JSON behind its checksum.

use serde::{Deserialize, Serialize};

use super::{Name, Taken};
use crate::domain::counter::{CounterKey, ProcessId, Window};
use crate::domain::time::UnixMs;

/// What one process may have admitted of one share.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: Name,
    pub(super) whole: u64,
    pub(super) process: ProcessId,
    pub(super) taken: Taken,
}

/// The same as it lies in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Shape {
    key: String,
    start: u64,
    end: Option<u64>,
    reset: u64,
    whole: u64,
    process: u64,
    first_call: u64,
    units: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paid: bool,
}

impl Line {
    pub(super) fn of(name: &Name, whole: u64, process: ProcessId, taken: &Taken) -> Self {
        Self { name: name.clone(), whole, process, taken: *taken }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (key, window) = &self.name;
        let shape = Shape {
            key: key.to_string(),
            start: window.start.0,
            end: window.end.map(|end| end.0),
            reset: window.reset,
            whole: self.whole,
            process: self.process.0,
            first_call: self.taken.first_call,
            units: self.taken.units,
            paid: self.taken.paid,
        };
        // Strings and numbers: there is nothing in it that could fail.
        let json = serde_json::to_string(&shape).unwrap_or_default();
        format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
    }

    /// `None` is no whole record.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sum, json) = bytes.strip_suffix(b"\n")?.split_at_checked(9)?;
        let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(json) {
            return None;
        }
        let shape: Shape = serde_json::from_slice(json).ok()?;
        let key: CounterKey = shape.key.parse().ok()?;
        let window =
            Window { start: UnixMs(shape.start), end: shape.end.map(UnixMs), reset: shape.reset };
        let Shape { whole, process, first_call, units, paid, .. } = shape;
        let taken = Taken { first_call, units, paid };
        Some(Self { name: (key, window), whole, process: ProcessId(process), taken })
    }
}
