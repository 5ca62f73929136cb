//! Reads a journal back.
//!
//! What was synced must be whole: a fault in it is damage, and the store does not open, because
//! counters with holes in them would admit too much. What lies beyond may be torn, since nobody
//! promised that it survives the loss of power: it is cut off at the first fault, and logged.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::domain::counter::{CounterKey, ProcessId};
use crate::domain::lease::QuotaCounter;
use crate::domain::limit::Rate;
use crate::domain::ratelog::RateEffect;
use crate::domain::time::UnixMs;
use crate::store::StoreError;
use crate::store::embedded::codec::{self, Entry, FRAME_LEN};
use crate::store::embedded::counters::QuotaKey;
use crate::store::embedded::head::{HEAD_LEN, Head};

/// Cells a counter may have; each earlier run of the gateway left one. One place is for this run.
const CELLS_MAX: usize = 16;
/// Read at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// Everything that a journal said.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) quotas: HashMap<QuotaKey, QuotaImage>,
    pub(super) rates: HashMap<CounterKey, RateImage>,
    /// The number of the last record.
    pub(super) number: u64,
    /// The latest end of a window that was forgotten.
    pub(super) forgotten_until: UnixMs,
    /// The store's steady time at the end.
    pub(super) steady_ms: u64,
}

/// A quota counter and the record of its last change.
#[derive(Debug)]
pub(super) struct QuotaImage {
    pub(super) counter: QuotaCounter,
    pub(super) number: u64,
}

/// A rate counter and the record of its last change.
#[derive(Debug)]
pub(super) struct RateImage {
    pub(super) rate: Rate,
    pub(super) number: u64,
    /// By (process, call): when the lease's units leave at the latest, and how many they are.
    open: HashMap<(ProcessId, u64), (u64, u64)>,
    /// Units by the time they leave.
    counted: BTreeMap<u64, u64>,
}

impl RateImage {
    /// Units that count after `now_ms`, by the time they leave. Whoever held leases is gone and
    /// will never say what it spent, so they count in full.
    pub(super) fn counting(&self, now_ms: u64) -> impl Iterator<Item = (u64, u64)> {
        let counted = self.counted.iter().map(|(leaves_ms, units)| (*leaves_ms, *units));
        let all = counted.chain(self.open.values().copied());
        all.filter(move |(leaves_ms, _)| now_ms < *leaves_ms)
    }
}

/// Reads the journal at `path`; `None` if there is no such file.
pub(super) fn recover(path: &Path) -> Result<Option<Recovered>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("opened", error)),
    };
    let len = file.metadata().map_err(read_error)?.len();
    read(BufReader::with_capacity(CHUNK, file), len).map(Some)
}

/// Reads a journal of `len` bytes.
pub(super) fn read(mut from: impl Read, len: u64) -> Result<Recovered, StoreError> {
    let damaged = || StoreError::Damaged { what: "the journal of counters" };
    if len < HEAD_LEN {
        return Err(damaged());
    }
    let mut bytes = [0; 64];
    from.read_exact(&mut bytes).map_err(read_error)?;
    let (head, synced) = Head::read(&bytes).ok_or_else(damaged)?;
    let mut recovered = Recovered {
        number: head.number,
        forgotten_until: head.forgotten_until,
        steady_ms: head.steady_ms,
        ..Recovered::default()
    };
    let (mut at, mut copied, mut body) = (HEAD_LEN, false, Vec::new());
    while at < len {
        let left = len.saturating_sub(at);
        if !next_body(&mut from, left, &mut body).map_err(read_error)? {
            break;
        }
        // The checksum held, so this is what was written, by whatever version wrote it.
        let (number, entry) = codec::read(&body).ok_or_else(damaged)?;
        if copied && number != recovered.number.saturating_add(1) {
            break;
        }
        if copied {
            recovered.number = number;
        }
        copied |= entry == Entry::SnapshotEnd;
        recovered.apply(number, entry);
        at = at.saturating_add(whole_len(&body));
    }
    if !copied || at < synced {
        return Err(damaged());
    }
    if at < len {
        let (kept_bytes, cut_bytes) = (at, len.saturating_sub(at));
        tracing::warn!(kept_bytes, cut_bytes, "the journal ends in a torn record, cut off");
    }
    recovered.quotas.values_mut().for_each(|image| trim(&mut image.counter));
    Ok(recovered)
}

fn read_error(error: io::Error) -> StoreError {
    StoreError::io("read", error)
}

fn whole_len(body: &[u8]) -> u64 {
    u64::try_from(body.len().saturating_add(FRAME_LEN)).unwrap_or(u64::MAX)
}

/// Reads the body of the next record; false if it is not whole.
fn next_body(from: &mut impl Read, left: u64, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut head = [0; FRAME_LEN];
    let Some(left) = left.checked_sub(whole_len(&[])) else { return Ok(false) };
    from.read_exact(&mut head)?;
    let (len, sum) = codec::split_head(head);
    if len == 0 || left < u64::from(len) {
        return Ok(false);
    }
    body.clear();
    from.take(u64::from(len)).read_to_end(body)?;
    Ok(crc32fast::hash(body) == sum)
}

impl Recovered {
    /// Applies one record, unless the copy at the start of the file was made after it.
    fn apply(&mut self, number: u64, entry: Entry) {
        match entry {
            Entry::Quota { key, window, mut counter } => {
                let known = self.quotas.remove(&(key.clone(), window));
                let image = match known {
                    Some(known) if number <= known.number => known,
                    Some(known) => {
                        let mut cells = known.counter.cells;
                        cells.append(&mut counter.cells);
                        QuotaImage { counter: QuotaCounter { cells, ..counter }, number }
                    }
                    None => QuotaImage { counter, number },
                };
                self.quotas.insert((key, window), image);
            }
            Entry::Rate { key, rate, now_ms, effects } => {
                self.steady_ms = self.steady_ms.max(now_ms);
                let fresh = || {
                    let (open, counted) = (HashMap::new(), BTreeMap::new());
                    RateImage { rate, number: 0, open, counted }
                };
                let image = self.rates.entry(key).or_insert_with(fresh);
                if image.number < number {
                    image.apply(rate, number, now_ms, effects);
                }
            }
            Entry::SnapshotEnd => {}
        }
    }
}

impl RateImage {
    fn apply(&mut self, rate: Rate, number: u64, now_ms: u64, effects: Vec<RateEffect>) {
        (self.rate, self.number) = (rate, number);
        for effect in effects {
            let (leaves_ms, units) = match effect {
                RateEffect::Opened { process, q, leaves_ms, units } => {
                    self.open.insert((process, q), (leaves_ms, units));
                    continue;
                }
                RateEffect::Closed { process, q, leaves_ms, units } => {
                    self.open.remove(&(process, q));
                    (leaves_ms, units)
                }
                RateEffect::Counted { leaves_ms, units } => (leaves_ms, units),
            };
            let slot = self.counted.entry(leaves_ms).or_insert(0);
            *slot = slot.saturating_add(units);
        }
        // What has left by the time of this record counts for nobody who reads on.
        self.counted = self.counted.split_off(&now_ms.saturating_add(1));
        self.open.retain(|_, (leaves_ms, _)| now_ms < *leaves_ms);
    }
}

/// Folds cells of earlier runs beyond the bound, those first that hold the least: what they hold
/// is shown as lost as long as they are there.
fn trim(counter: &mut QuotaCounter) {
    if counter.cells.len() < CELLS_MAX {
        return;
    }
    let held = counter.cells.iter().map(|(process, cell)| (cell.unspent(), *process));
    let mut held: Vec<(u64, ProcessId)> = held.collect();
    held.sort_unstable();
    held.truncate(held.len().saturating_sub(CELLS_MAX.saturating_sub(1)));
    counter.fold(|process| held.iter().any(|(_, folded)| *folded == process));
}
