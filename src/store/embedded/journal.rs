//! The journal: what counters became, in the order it happened, in one file.
//!
//! The file is a head of 64 bytes, a copy of every counter as of when the file was made, and
//! then a record per change. A change is written before it is answered, so the death of the
//! process loses nothing; the loss of power loses what was not synced. A new file replaces the
//! old one (`compact`) when it has grown, when the store opens, and when a sync has failed, for
//! after that nobody knows what the old one holds.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread::Thread;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::StoreError;
use crate::store::embedded::codec;
use crate::store::embedded::counters::{Counters, SHARDS};
use crate::store::embedded::head::{self, HEAD_LEN, Head};

const NAME: &str = "journal";
const NEW_NAME: &str = "journal.new";
/// A file this many times longer than the counters it was made of is worth making anew.
const GROWTH_MAX: u64 = 4;
/// Rounds in which a compaction catches up with appends before it holds them for the rest.
const CATCH_UP_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    /// One lock for the file: the kernel's own lock on it would serialise writers as well, and
    /// this one gives records their numbers and lets a failed write be overwritten.
    writer: Mutex<Writer>,
    synced: watch::Sender<Synced>,
    /// Sync every record before it is answered.
    sync_each: bool,
    compact_bytes: u64,
    /// The thread that syncs, to be woken when somebody waits.
    keeper: OnceLock<Thread>,
}

#[derive(Debug)]
struct Writer {
    file: Arc<File>,
    /// Bytes of whole records; what a failed write left beyond is overwritten.
    len: u64,
    /// Bytes when the file was made.
    copied_len: u64,
    /// The number of the last record.
    number: u64,
    /// Kept for its capacity.
    buffer: Vec<u8>,
    /// Everything appended since a compaction began.
    mirror: Option<Vec<u8>>,
    /// A sync failed: nothing is appended until the file is made anew.
    failed: bool,
    /// The file is another process's now.
    released: bool,
}

#[derive(Clone, Copy, Debug)]
struct Synced {
    number: u64,
    failures: u64,
}

impl Journal {
    /// The file that a journal in this folder has.
    pub(super) fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// Makes the journal of `counters`, in the place of any that is there. `number` is that of
    /// the last record that was read.
    pub(super) fn create(
        folder: &Path,
        number: u64,
        counters: &Counters,
        (sync_each, compact_bytes): (bool, u64),
    ) -> Result<Self, StoreError> {
        let made = copy(folder, number, counters).and_then(|(file, len)| {
            head::write_synced(&file, len)?;
            file.sync_all()?;
            publish(folder)?;
            sync_folder(folder)?;
            Ok((file, len))
        });
        let (file, len) = made.map_err(|e| StoreError::io("written", e))?;
        let writer = Writer {
            file: Arc::new(file),
            len,
            copied_len: len,
            number,
            buffer: Vec::new(),
            mirror: None,
            failed: false,
            released: false,
        };
        Ok(Self {
            folder: folder.to_owned(),
            writer: Mutex::new(writer),
            synced: watch::Sender::new(Synced { number, failures: 0 }),
            sync_each,
            compact_bytes,
            keeper: OnceLock::new(),
        })
    }

    /// Names the thread that calls [`Self::sync`].
    pub(super) fn kept_by(&self, keeper: Thread) {
        // There is one keeper per store, so the cell is empty.
        let _ = self.keeper.set(keeper);
    }

    /// Writes one record, with one system call, and answers its number.
    ///
    /// After an error the record is not there: a half-written one is overwritten by the next, and
    /// cut off by a reader that comes first.
    pub(super) fn append(&self, body: impl FnOnce(u64, &mut Vec<u8>)) -> Result<u64, StoreError> {
        let mut writer = self.writer.lock();
        let Writer { file, len, number, buffer, mirror, failed, released, .. } = &mut *writer;
        if *released {
            return Err(StoreError::io("written", "the store was given away"));
        }
        if *failed {
            return Err(failed_before());
        }
        let next = number.saturating_add(1);
        buffer.clear();
        codec::frame(buffer, |buffer| body(next, buffer));
        if let Err(error) = file.write_all_at(buffer, *len) {
            let _ = file.set_len(*len);
            return Err(StoreError::io("written", error));
        }
        if let Some(mirror) = mirror {
            mirror.extend_from_slice(buffer);
        }
        *len = len.saturating_add(length(buffer));
        *number = next;
        Ok(next)
    }

    /// Waits until a record is as durable as the options ask for: not at all, unless every
    /// record is to be synced.
    pub(super) async fn durable(&self, number: u64) -> Result<(), StoreError> {
        if !self.sync_each || number <= self.synced.borrow().number {
            return Ok(());
        }
        let mut synced = self.synced.subscribe();
        let failures = synced.borrow().failures;
        // Callers that come while the disk is busy share the next sync.
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
        let done = |now: &Synced| number <= now.number || now.failures != failures;
        match synced.wait_for(done).await {
            Ok(now) if number <= now.number => Ok(()),
            Ok(_) | Err(_) => Err(failed_before()),
        }
    }

    /// Makes everything durable that was appended before the call. Appends go on meanwhile.
    ///
    /// Callers see to it that no other sync or compaction runs.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let (file, len, number) = {
            let writer = self.writer.lock();
            if writer.failed {
                return Err(failed_before());
            }
            (Arc::clone(&writer.file), writer.len, writer.number)
        };
        if number <= self.synced.borrow().number {
            return Ok(());
        }
        // What is synced is marked in the head. The mark itself becomes durable with the next
        // sync; until then a reader takes a little more of the end for unsynced than is.
        if let Err(error) = file.sync_data().and_then(|()| head::write_synced(&file, len)) {
            self.writer.lock().failed = true;
            self.synced.send_modify(|synced| {
                synced.failures = synced.failures.saturating_add(1);
            });
            return Err(StoreError::io("written", error));
        }
        self.synced.send_modify(|synced| synced.number = number);
        Ok(())
    }

    /// Whether the file is due to be made anew.
    pub(super) fn is_due(&self) -> bool {
        let writer = self.writer.lock();
        let grown = writer.copied_len.saturating_mul(GROWTH_MAX) < writer.len;
        !writer.released && (writer.failed || (grown && self.compact_bytes < writer.len))
    }

    /// Makes everything durable and leaves the file alone from then on: every later append fails.
    ///
    /// Callers see to it that no other sync or compaction runs.
    pub(super) fn release(&self) -> Result<(), StoreError> {
        self.writer.lock().released = true;
        self.sync()
    }

    /// Makes the file anew from the counters, while calls go on.
    ///
    /// Callers see to it that no other sync, compaction or sweep runs.
    pub(super) fn compact(&self, counters: &Counters) -> Result<(), StoreError> {
        let number = {
            let mut writer = self.writer.lock();
            if writer.released {
                return Err(StoreError::io("written", "the store was given away"));
            }
            writer.mirror = Some(Vec::new());
            writer.number
        };
        let done = self.replace(number, counters);
        if done.is_err() {
            self.writer.lock().mirror = None;
        }
        done.map_err(|e| StoreError::io("written", e))
    }

    fn replace(&self, number: u64, counters: &Counters) -> io::Result<()> {
        let (file, mut len) = copy(&self.folder, number, counters)?;
        let copied_len = len;
        for _ in 0..CATCH_UP_MAX {
            let more = self.writer.lock().mirror.as_mut().map(std::mem::take).unwrap_or_default();
            if more.is_empty() {
                break;
            }
            file.write_all_at(&more, len)?;
            len = len.saturating_add(length(&more));
        }
        head::write_synced(&file, len)?;
        file.sync_all()?;
        let mut writer = self.writer.lock();
        let rest = writer.mirror.take().unwrap_or_default();
        file.write_all_at(&rest, len)?;
        if self.sync_each {
            // Some of the rest may have been answered as durable in the old file. Otherwise it
            // was written after the last sync, and the next one is time enough.
            file.sync_data()?;
        }
        publish(&self.folder)?;
        let file = Arc::new(file);
        writer.file = Arc::clone(&file);
        writer.len = len.saturating_add(length(&rest));
        writer.copied_len = copied_len;
        let number = writer.number;
        let settled = if self.sync_each {
            let settled = sync_folder(&self.folder);
            drop(writer);
            settled
        } else {
            drop(writer);
            file.sync_data().and_then(|()| sync_folder(&self.folder))
        };
        self.settle(number, settled)
    }

    /// Notes how the sync after a replacement went.
    fn settle(&self, number: u64, settled: io::Result<()>) -> io::Result<()> {
        self.writer.lock().failed = settled.is_err();
        self.synced.send_modify(|synced| match settled {
            Ok(()) => synced.number = synced.number.max(number),
            Err(_) => synced.failures = synced.failures.saturating_add(1),
        });
        settled
    }

    /// How long the file is, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.writer.lock().len
    }
}

fn failed_before() -> StoreError {
    StoreError::io("written", "the journal could not be synced and is not made anew yet")
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Writes head and copy into a new file, not synced.
fn copy(folder: &Path, number: u64, counters: &Counters) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(folder.join(NEW_NAME))?;
    let (forgotten_until, steady_ms) = (counters.forgotten_until(), counters.steady_ms());
    let mut buffer = Head { number, forgotten_until, steady_ms }.to_bytes().to_vec();
    debug_assert_eq!(length(&buffer), HEAD_LEN);
    let mut len = 0;
    for index in 0..=SHARDS {
        if index < SHARDS {
            counters.copy_shard(index, &mut buffer);
        } else {
            codec::frame(&mut buffer, |body| codec::put_snapshot_end(body, number));
        }
        file.write_all_at(&buffer, len)?;
        len = len.saturating_add(length(&buffer));
        buffer.clear();
    }
    Ok((file, len))
}

/// Gives the new file its name.
fn publish(folder: &Path) -> io::Result<()> {
    fs::rename(folder.join(NEW_NAME), folder.join(NAME))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
