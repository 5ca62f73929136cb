//! Records, numbers and the generation, in one redb file.
//!
//! redb locks its file while it is open; the lock stands for the whole folder.

mod new;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::domain::id::ID_LEN_MAX;
use crate::store::{
    Committed, Expect, Generation, Kind, Page, Record, RecordKey, StoreError, Write,
};

/// (kind, id) to generation (eight bytes, little-endian) and value.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Kind to the last number handed out.
const NUMBERS: TableDefinition<'_, u8, u64> = TableDefinition::new("numbers");
/// The generation of the last commit.
const GENERATION: TableDefinition<'_, (), u64> = TableDefinition::new("generation");

/// Room for the kind and an id of the usual bound; longer ids only cost a reallocation.
const KEY_LEN: usize = 1 + ID_LEN_MAX;

#[derive(Debug)]
pub(in crate::store) struct Records {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` while the file could not be opened again after the disk had refused a write, and
    /// once it was released.
    db: RwLock<Option<Database>>,
    released: AtomicBool,
}

impl Records {
    /// Opens the file, and makes it if there is none.
    pub(in crate::store) fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let db = open(file.open(path), cache_bytes)?;
        let tx = begin_write(&db)?;
        tx.open_table(RECORDS).map_err(written)?;
        tx.open_table(NUMBERS).map_err(written)?;
        tx.open_table(GENERATION).map_err(written)?;
        tx.commit().map_err(written)?;
        let released = AtomicBool::new(false);
        Ok(Self { path: path.to_owned(), cache_bytes, db: RwLock::new(Some(db)), released })
    }

    /// The opened file. Transactions must end before this is dropped.
    fn db(&self) -> Result<MappedRwLockReadGuard<'_, Database>, StoreError> {
        let closed = |_| StoreError::io("opened", "it is not open again after a failed write yet");
        RwLockReadGuard::try_map(self.db.read(), Option::as_ref).map_err(closed)
    }

    /// Opens the file again. After a disk has refused a write, redb answers nothing from it any
    /// more, also when there is room again. What was committed is there, what was not is not.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut db = self.db.write();
        if self.released.load(Ordering::SeqCst) {
            return Err(StoreError::io("opened", "the store was given away"));
        }
        // First, because the file is locked while it is open.
        *db = None;
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        *db = Some(open(file, self.cache_bytes)?);
        tracing::warn!("the record file was opened again after a failed write");
        Ok(())
    }

    /// Closes the file, which frees its lock, and never opens it again.
    pub(super) fn release(&self) {
        let mut db = self.db.write();
        self.released.store(true, Ordering::SeqCst);
        *db = None;
    }

    pub(in crate::store) fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        Ok(self.get_all(std::slice::from_ref(key))?.pop().flatten())
    }

    pub(in crate::store) fn get_all(
        &self,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<Record>>, StoreError> {
        let db = self.db()?;
        let tx = db.begin_read().map_err(read)?;
        let table = tx.open_table(RECORDS).map_err(read)?;
        let get = |key: &RecordKey| {
            let found = table.get(raw(key.kind, &key.id).as_slice()).map_err(read)?;
            found.map(|value| record(value.value())).transpose()
        };
        keys.iter().map(get).collect()
    }

    pub(in crate::store) fn list(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let db = self.db()?;
        let tx = db.begin_read().map_err(read)?;
        let table = tx.open_table(RECORDS).map_err(read)?;
        let first = raw(kind, prefix);
        let after = after.map(|id| raw(kind, id)).filter(|after| first <= *after);
        let from = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(first.as_slice()),
        };
        let mut page = Page::default();
        for entry in table.range::<&[u8]>((from, Bound::Unbounded)).map_err(read)? {
            let (key, value) = entry.map_err(read)?;
            let Some(id) = key.value().strip_prefix(first.as_slice()) else { break };
            if page.records.len() == limit {
                page.more = true;
                break;
            }
            let key = RecordKey { kind, id: [prefix, id].concat().into() };
            page.records.push((key, record(value.value())?));
        }
        Ok(page)
    }

    /// One durable transaction. `fill` puts commits into it, and says whether it shall be kept.
    pub(in crate::store) fn write(
        &self,
        fill: impl FnOnce(&mut Batch<'_>) -> bool,
    ) -> Result<(), StoreError> {
        if self.db.read().is_none() {
            self.reopen()?;
        }
        let done = self.write_once(fill);
        if done.is_err()
            && let Err(error) = self.reopen()
        {
            tracing::error!(%error, "the record file cannot be opened again");
        }
        done
    }

    fn write_once(&self, fill: impl FnOnce(&mut Batch<'_>) -> bool) -> Result<(), StoreError> {
        let db = self.db()?;
        let tx = begin_write(&db)?;
        let keep = {
            let mut batch = Batch {
                records: tx.open_table(RECORDS).map_err(written)?,
                numbers: tx.open_table(NUMBERS).map_err(written)?,
                generation: tx.open_table(GENERATION).map_err(written)?,
            };
            fill(&mut batch)
        };
        if keep {
            tx.commit().map_err(written)
        } else {
            tx.abort().map_err(written)?;
            Err(StoreError::io("written", "a commit of the same transaction failed"))
        }
    }

    pub(super) fn generation(&self) -> Result<Generation, StoreError> {
        let db = self.db()?;
        let tx = db.begin_read().map_err(read)?;
        let table = tx.open_table(GENERATION).map_err(read)?;
        let last = table.get(()).map_err(read)?;
        Ok(Generation(last.map_or(0, |value| value.value())))
    }
}

fn open(file: io::Result<File>, cache_bytes: usize) -> Result<Database, StoreError> {
    let file = file.map_err(|e| StoreError::io("opened", e))?;
    // The check reads the whole file; without it a damaged one may panic when it is used.
    let backend = FileBackend::new(file).map_err(open_error)?;
    let db = redb::Builder::new()
        .set_cache_size(cache_bytes)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend);
    db.map_err(open_error)
}

fn begin_write(db: &Database) -> Result<redb::WriteTransaction, StoreError> {
    let mut tx = db.begin_write().map_err(written)?;
    // A commit that was answered survives the loss of power.
    tx.set_durability(Durability::Immediate).map_err(written)?;
    Ok(tx)
}

/// Commits on their way into one transaction. Each sees those before it.
pub(in crate::store) struct Batch<'tx> {
    records: redb::Table<'tx, &'static [u8], &'static [u8]>,
    numbers: redb::Table<'tx, u8, u64>,
    generation: redb::Table<'tx, (), u64>,
}

impl Batch<'_> {
    /// All conditions are checked against what was there before, and everything is written, or
    /// nothing.
    pub(in crate::store) fn commit(&mut self, writes: &[Write]) -> Result<Committed, StoreError> {
        let is_new = |write: &&Write| write.expect == Expect::Absent && write.value.is_some();
        let (new, other): (Vec<&Write>, Vec<&Write>) = writes.iter().partition(is_new);
        for write in &other {
            if !self.holds(write)? {
                return self.conflict(writes);
            }
        }
        let before = self.generation.get(()).map_err(read)?.map_or(0, |value| value.value());
        let generation = next(before, 1)?;
        // Whether they are there is seen when they are written, so that each is looked for once.
        if !new::insert(&mut self.records, &new, Generation(generation))? {
            return self.conflict(writes);
        }
        self.generation.insert((), generation).map_err(written)?;
        for write in other {
            let key = raw(write.key.kind, &write.key.id);
            match &write.value {
                Some(value) => {
                    let value = [&generation.to_le_bytes(), value.as_ref()].concat();
                    self.records.insert(key.as_slice(), value.as_slice()).map_err(written)?;
                }
                None => {
                    self.records.remove(key.as_slice()).map_err(written)?;
                }
            }
        }
        Ok(Committed::At(Generation(generation)))
    }

    fn holds(&self, Write { key, expect, .. }: &Write) -> Result<bool, StoreError> {
        let found = self.records.get(raw(key.kind, &key.id).as_slice()).map_err(read)?;
        let found = found.map(|value| generation(value.value())).transpose()?;
        Ok(match *expect {
            Expect::Anything => true,
            Expect::Absent => found.is_none(),
            Expect::Unchanged(generation) => found == Some(generation),
            Expect::Ahead => false,
        })
    }

    /// Which condition is the first that does not hold.
    fn conflict(&self, writes: &[Write]) -> Result<Committed, StoreError> {
        for (index, write) in writes.iter().enumerate() {
            if !self.holds(write)? {
                return Ok(Committed::Conflict(index));
            }
        }
        Err(StoreError::Damaged { what: "a record" })
    }

    /// The first of `count` numbers that nobody else gets.
    pub(super) fn numbers(&mut self, kind: Kind, count: u64) -> Result<u64, StoreError> {
        let kind = kind_byte(kind);
        let last = self.numbers.get(kind).map_err(read)?.map_or(0, |value| value.value());
        self.numbers.insert(kind, next(last, count.max(1))?).map_err(written)?;
        next(last, 1)
    }
}

fn next(last: u64, count: u64) -> Result<u64, StoreError> {
    last.checked_add(count).ok_or(StoreError::Damaged { what: "a sequence of numbers" })
}

#[expect(clippy::as_conversions, reason = "the discriminant of a `repr(u8)` enum")]
fn kind_byte(kind: Kind) -> u8 {
    kind as u8
}

fn raw(kind: Kind, id: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(KEY_LEN.max(1 + id.len()));
    raw.push(kind_byte(kind));
    raw.extend_from_slice(id);
    raw
}

fn generation(raw: &[u8]) -> Result<Generation, StoreError> {
    let (generation, _) = split(raw)?;
    Ok(generation)
}

fn record(raw: &[u8]) -> Result<Record, StoreError> {
    let (generation, value) = split(raw)?;
    Ok(Record { generation, value: Arc::from(value) })
}

fn split(raw: &[u8]) -> Result<(Generation, &[u8]), StoreError> {
    let (head, value) = raw.split_first_chunk().ok_or(StoreError::Damaged { what: "a record" })?;
    Ok((Generation(u64::from_le_bytes(*head)), value))
}

fn open_error(error: DatabaseError) -> StoreError {
    if matches!(error, DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) {
        return StoreError::InUse;
    }
    classify("opened", error.into())
}

fn read(error: impl Into<redb::Error>) -> StoreError {
    classify("read", error.into())
}

fn written(error: impl Into<redb::Error>) -> StoreError {
    classify("written", error.into())
}

fn classify(doing: &'static str, error: redb::Error) -> StoreError {
    if matches!(error, redb::Error::Corrupted(_)) {
        tracing::error!(%error, "the record file is damaged");
        return StoreError::Damaged { what: "the record file" };
    }
    StoreError::io(doing, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_write_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.redb");
        let records = Records::open(&path, 1 << 20).unwrap();
        let write = |id: u64, keep: bool| {
            let key = RecordKey::number(Kind::App, id);
            let value = Some(Arc::from(b"v".as_slice()));
            let writes = [Write { key, expect: Expect::Absent, value }];
            records.write(|batch| batch.commit(&writes).is_ok() && keep)
        };
        let has = |id| records.get(&RecordKey::number(Kind::App, id)).map(|found| found.is_some());
        write(1, true).unwrap();
        assert!(write(2, false).is_err());
        assert!(has(1).unwrap() && !has(2).unwrap());
        // The file is gone: nothing is made in its place, and nothing is said to be unknown.
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        assert!(write(2, false).is_err());
        assert!(has(1).is_err());
        assert!(write(2, true).is_err());
        std::fs::rename(folder.path().join("elsewhere"), &path).unwrap();
        write(2, true).unwrap();
        assert!(has(1).unwrap() && has(2).unwrap());
    }
}
