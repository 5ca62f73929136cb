//! How the journal spells counters: effects with absolute values, never calls.
//!
//! A record is a frame (length of the body, CRC-32 of the body, each four bytes) and a body. All
//! numbers are little-endian and of fixed width. The body begins with a type byte and the
//! record's number, which rises by one from record to record.

use std::num::NonZeroU64;

use crate::domain::counter::{CounterKey, ProcessId, Subject, Window};
use crate::domain::id::{AppId, ConsumerOrgId, CredentialId, UserId};
use crate::domain::lease::{Cell, QuotaCounter};
use crate::domain::limit::Rate;
use crate::domain::ratelog::RateEffect;
use crate::domain::time::UnixMs;

/// Length and checksum before each body, in bytes.
pub(super) const FRAME_LEN: usize = 8;

const QUOTA: u8 = 1;
const RATE: u8 = 2;
const SNAPSHOT_END: u8 = 3;

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A quota counter after a change. `counter` has the cells that changed; a snapshot has all.
    Quota { key: CounterKey, window: Window, counter: QuotaCounter },
    /// A rate counter's changes, and the store's steady time when they were made.
    Rate { key: CounterKey, rate: Rate, now_ms: u64, effects: Vec<RateEffect> },
    /// What was copied when the file was made ends here; what follows was appended.
    SnapshotEnd,
}

/// Appends a frame around what `body` writes.
pub(super) fn frame(buffer: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_LEN]);
    body(buffer);
    let Some((head, body)) =
        buffer.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut::<FRAME_LEN>())
    else {
        return;
    };
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let sum = crc32fast::hash(body);
    let both = u64::from(len) | (u64::from(sum) << 32);
    *head = both.to_le_bytes();
}

/// The length and the checksum that a frame's head states.
pub(super) fn split_head(head: [u8; FRAME_LEN]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = head;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

pub(super) fn put_u64(buffer: &mut Vec<u8>, number: u64) {
    buffer.extend_from_slice(&number.to_le_bytes());
}

/// The state of a quota counter with some of its cells.
pub(super) fn put_quota<'a>(
    buffer: &mut Vec<u8>,
    number: u64,
    (key, window): (&CounterKey, &Window),
    counter: &QuotaCounter,
    cells: impl Iterator<Item = (&'a ProcessId, &'a Cell)>,
) {
    buffer.push(QUOTA);
    put_u64(buffer, number);
    put_key(buffer, key);
    put_u64(buffer, window.start.0);
    buffer.push(u8::from(window.end.is_some()));
    put_u64(buffer, window.end.unwrap_or_default().0);
    put_u64(buffer, window.reset);
    for total in [counter.version, counter.limit, counter.generation, counter.folded] {
        put_u64(buffer, total);
    }
    for (process, cell) in cells {
        let Cell { first_call, last_call, granted, returned, spent, local } = *cell;
        for total in [process.0, first_call, last_call, granted, returned, spent, local] {
            put_u64(buffer, total);
        }
    }
}

/// The head of a rate record; [`put_effect`] follows, any number of times.
pub(super) fn put_rate(
    buffer: &mut Vec<u8>,
    number: u64,
    key: &CounterKey,
    rate: Rate,
    now_ms: u64,
) {
    buffer.push(RATE);
    put_u64(buffer, number);
    put_key(buffer, key);
    put_u64(buffer, rate.requests.get());
    put_u64(buffer, rate.per_ms.get());
    put_u64(buffer, now_ms);
}

/// One effect of a rate record.
pub(super) fn put_effect(buffer: &mut Vec<u8>, effect: &RateEffect) {
    let (tag, process, q, leaves_ms, units) = match *effect {
        RateEffect::Opened { process, q, leaves_ms, units } => (1, process.0, q, leaves_ms, units),
        RateEffect::Closed { process, q, leaves_ms, units } => (2, process.0, q, leaves_ms, units),
        RateEffect::Counted { leaves_ms, units } => (3, 0, 0, leaves_ms, units),
    };
    buffer.push(tag);
    for number in [process, q, leaves_ms, units] {
        put_u64(buffer, number);
    }
}

/// The end of the copied part.
pub(super) fn put_snapshot_end(buffer: &mut Vec<u8>, number: u64) {
    buffer.push(SNAPSHOT_END);
    put_u64(buffer, number);
}

fn put_key(buffer: &mut Vec<u8>, key: &CounterKey) {
    let (tag, id) = match key.subject {
        Subject::Credential(id) => (1, id.0),
        Subject::App(id) => (2, id.0),
        Subject::Developer(id) => (3, id.0),
        Subject::Organisation(id) => (4, id.0),
    };
    buffer.push(tag);
    put_u64(buffer, id);
    put_u64(buffer, u64::try_from(key.definition.len()).unwrap_or(u64::MAX));
    buffer.extend_from_slice(key.definition.as_bytes());
}

/// Reads a body whose checksum held: the record's number and what it says. `None` when it says
/// nothing that this version knows.
pub(super) fn read(body: &[u8]) -> Option<(u64, Entry)> {
    let mut body = Body(body);
    let kind = body.u8()?;
    let number = body.u64()?;
    let entry = match kind {
        QUOTA => body.quota()?,
        RATE => body.rate()?,
        SNAPSHOT_END => Entry::SnapshotEnd,
        _ => return None,
    };
    body.0.is_empty().then_some((number, entry))
}

/// What is left to read.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    fn key(&mut self) -> Option<CounterKey> {
        let (tag, id) = (self.u8()?, self.u64()?);
        let subject = match tag {
            1 => Subject::Credential(CredentialId(id)),
            2 => Subject::App(AppId(id)),
            3 => Subject::Developer(UserId(id)),
            4 => Subject::Organisation(ConsumerOrgId(id)),
            _ => return None,
        };
        let len = usize::try_from(self.u64()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(CounterKey { subject, definition: std::str::from_utf8(text).ok()?.into() })
    }

    fn quota(&mut self) -> Option<Entry> {
        let key = self.key()?;
        let start = UnixMs(self.u64()?);
        let (ends, end) = (self.u8()?, UnixMs(self.u64()?));
        let window = Window { start, end: (ends == 1).then_some(end), reset: self.u64()? };
        let mut counter = QuotaCounter {
            version: self.u64()?,
            limit: self.u64()?,
            generation: self.u64()?,
            folded: self.u64()?,
            ..QuotaCounter::default()
        };
        while !self.0.is_empty() {
            let process = ProcessId(self.u64()?);
            let cell = Cell {
                first_call: self.u64()?,
                last_call: self.u64()?,
                granted: self.u64()?,
                returned: self.u64()?,
                spent: self.u64()?,
                local: self.u64()?,
            };
            counter.cells.insert(process, cell);
        }
        Some(Entry::Quota { key, window, counter })
    }

    fn rate(&mut self) -> Option<Entry> {
        let key = self.key()?;
        let requests = NonZeroU64::new(self.u64()?)?;
        let rate = Rate { requests, per_ms: NonZeroU64::new(self.u64()?)? };
        let now_ms = self.u64()?;
        let mut effects = Vec::new();
        while !self.0.is_empty() {
            let tag = self.u8()?;
            let (process, q) = (ProcessId(self.u64()?), self.u64()?);
            let (leaves_ms, units) = (self.u64()?, self.u64()?);
            effects.push(match tag {
                1 => RateEffect::Opened { process, q, leaves_ms, units },
                2 => RateEffect::Closed { process, q, leaves_ms, units },
                3 => RateEffect::Counted { leaves_ms, units },
                _ => return None,
            });
        }
        Some(Entry::Rate { key, rate, now_ms, effects })
    }
}
