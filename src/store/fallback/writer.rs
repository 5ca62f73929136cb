//! The thread that writes a copy. It takes what is waiting into one transaction.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::store::embedded::records::Records;
use crate::store::fallback::{PAGE, STANDS, Taken, decode, encode};
use crate::store::{Expect, Generation, Kind, Record, RecordKey, StoreError, Write};

/// Jobs of one transaction, at most.
const BATCH_MAX: usize = 1_024;
/// Which commit the copy stands for is not written with every commit that changes nothing in it,
/// such as those of an import, but after so many. After a crash these are gone through once more.
const UNWRITTEN_MAX: u32 = 256;

/// Tokens looked at to find one to forget: only those of the same transaction will not do.
const NEIGHBOURS: usize = 16;

type Done = oneshot::Sender<Result<(), StoreError>>;

pub(super) enum Job {
    /// Put a token in, if that is still what the store has.
    Copy { key: RecordKey, record: Record, still: Box<dyn Fn() -> bool + Send> },
    /// Take changes in.
    Take { taken: Taken, done: Done },
    /// These records and no others.
    Begin { records: Vec<(RecordKey, Record)>, done: Done },
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy { .. } => "Copy",
            Self::Take { .. } => "Take",
            Self::Begin { .. } => "Begin",
        })
    }
}

/// Looks what there is; what is returned runs until its channel is closed.
pub(super) fn prepare(
    records: Arc<Records>,
    tokens_max: usize,
) -> Result<impl FnOnce(mpsc::Receiver<Job>) + Send + 'static, StoreError> {
    let tokens = keys(&records, Kind::Token)?.len();
    let mut writer = Writer { records, tokens, tokens_max, unwritten: 0 };
    Ok(move |mut waiting: mpsc::Receiver<Job>| {
        let mut jobs = Vec::new();
        while 0 < waiting.blocking_recv_many(&mut jobs, BATCH_MAX) {
            writer.execute(jobs.drain(..));
        }
    })
}

#[derive(Debug)]
struct Writer {
    records: Arc<Records>,
    tokens: usize,
    tokens_max: usize,
    /// Commits since what the copy stands for was written.
    unwritten: u32,
}

/// What one transaction will change.
#[derive(Debug, Default)]
struct Changes {
    written: BTreeMap<RecordKey, Option<Record>>,
    tokens: usize,
    stands: Option<Generation>,
}

impl Writer {
    fn execute(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut waiting = Vec::new();
        let mut changes = Changes { tokens: self.tokens, ..Changes::default() };
        let mut filled = Ok(());
        for job in jobs {
            let of_job = match job {
                Job::Copy { key, record, still } => match still() {
                    true => self.copy(&mut changes, key, record),
                    false => Ok(()),
                },
                Job::Take { taken, done } => {
                    waiting.push(done);
                    self.take(&mut changes, taken)
                }
                Job::Begin { records, done } => {
                    waiting.push(done);
                    self.begin(&mut changes, records)
                }
            };
            filled = filled.and(of_job);
        }
        let done = filled.and_then(|()| self.write(changes));
        if let Err(error) = &done {
            tracing::error!(%error, "the copy of the store cannot be written");
        }
        for waits in waiting {
            let failed = |error: &StoreError| StoreError::io("written", error.to_string());
            let _missed = waits.send(done.as_ref().copied().map_err(failed));
        }
    }

    fn copy(
        &self,
        changes: &mut Changes,
        key: RecordKey,
        record: Record,
    ) -> Result<(), StoreError> {
        let known = self.generation(changes, &key)?;
        if known.is_some_and(|known| record.generation <= known) {
            return Ok(());
        }
        if known.is_none() && self.tokens_max <= changes.tokens {
            self.forget_one(changes, &key)?;
        }
        changes.put(key, known, Some(record));
        Ok(())
    }

    /// Makes room for a token. Hashes are uniform, so that the next one is any one.
    fn forget_one(&self, changes: &mut Changes, key: &RecordKey) -> Result<(), StoreError> {
        for after in [Some(key.id.as_ref()), None] {
            let page = self.records.list(Kind::Token, &[], after, NEIGHBOURS)?;
            for (key, record) in page.records {
                if !changes.written.contains_key(&key) {
                    changes.put(key, Some(decode(&record)?.generation), None);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn take(&self, changes: &mut Changes, taken: Taken) -> Result<(), StoreError> {
        for (key, at) in taken.changed {
            let known = self.generation(changes, &key)?;
            if known.is_some_and(|known| known < at) {
                changes.put(key, known, None);
            }
        }
        for (key, record) in taken.records {
            let known = self.generation(changes, &key)?;
            if known.is_none_or(|known| known < record.generation) {
                changes.put(key, known, Some(record));
            }
        }
        changes.stands = taken.stands.max(changes.stands);
        Ok(())
    }

    fn begin(
        &self,
        changes: &mut Changes,
        records: Vec<(RecordKey, Record)>,
    ) -> Result<(), StoreError> {
        *changes = Changes::default();
        for kind in [Kind::Meta, Kind::Token, Kind::Product, Kind::Plan, Kind::Policy] {
            changes.written.extend(keys(&self.records, kind)?.into_iter().map(|key| (key, None)));
        }
        changes.written.extend(records.into_iter().map(|(key, record)| (key, Some(record))));
        Ok(())
    }

    /// The generation of a record, as it will be.
    fn generation(
        &self,
        changes: &Changes,
        key: &RecordKey,
    ) -> Result<Option<Generation>, StoreError> {
        let record = match changes.written.get(key) {
            Some(written) => return Ok(written.as_ref().map(|record| record.generation)),
            None => self.records.get(key)?,
        };
        record.map(|record| Ok(decode(&record)?.generation)).transpose()
    }

    fn write(&mut self, mut changes: Changes) -> Result<(), StoreError> {
        if let Some(at) = changes.stands {
            self.unwritten = self.unwritten.saturating_add(1);
            if self.unwritten <= UNWRITTEN_MAX && changes.written.is_empty() {
                return Ok(());
            }
            let key = RecordKey::bytes(Kind::Meta, STANDS);
            let known = match changes.written.get(&key) {
                Some(written) => written.clone(),
                None => self.records.get(&key)?.map(|record| decode(&record)).transpose()?,
            };
            // Before it was begun it stands for nothing.
            if let Some(Record { generation, value }) = known {
                let record = Record { generation: generation.max(at), value };
                changes.written.insert(key, Some(record));
            }
        }
        if changes.written.is_empty() {
            return Ok(());
        }
        let writes: Vec<Write> = changes
            .written
            .into_iter()
            .map(|(key, record)| {
                let value = record.as_ref().map(encode);
                Write { key, expect: Expect::Anything, value }
            })
            .collect();
        self.records.write(|batch| batch.commit(&writes).is_ok())?;
        self.unwritten = 0;
        self.tokens = changes.tokens;
        Ok(())
    }
}

impl Changes {
    /// What becomes of a record that was or was not there.
    fn put(&mut self, key: RecordKey, known: Option<Generation>, record: Option<Record>) {
        if key.kind == Kind::Token {
            let (before, after) = (usize::from(known.is_some()), usize::from(record.is_some()));
            self.tokens = self.tokens.saturating_add(after).saturating_sub(before);
        }
        self.written.insert(key, record);
    }
}

fn keys(records: &Records, kind: Kind) -> Result<Vec<RecordKey>, StoreError> {
    let mut keys: Vec<RecordKey> = Vec::new();
    loop {
        let after = keys.last().map(|key| Arc::clone(&key.id));
        let page = records.list(kind, &[], after.as_deref(), PAGE)?;
        keys.extend(page.records.into_iter().map(|(key, _)| key));
        if !page.more {
            return Ok(keys);
        }
    }
}
