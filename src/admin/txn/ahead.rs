//! Transactions that come after one whose commit is on its way.

use std::sync::Arc;

use crate::store::{Record, RecordKey, Write};

/// What was there before the transaction.
#[derive(Debug)]
pub(super) enum Read {
    Nothing,
    /// Whatever was there.
    Unread,
    Stored(Record),
    /// What a commit that is on its way leaves: it has no generation yet.
    Ahead(Arc<[u8]>),
}

impl Read {
    /// The value that was there.
    pub(super) fn value(&self) -> Option<&Arc<[u8]>> {
        match self {
            Self::Nothing | Self::Unread => None,
            Self::Stored(record) => Some(&record.value),
            Self::Ahead(value) => Some(value),
        }
    }
}

impl From<Option<Record>> for Read {
    fn from(record: Option<Record>) -> Self {
        record.map_or(Self::Nothing, Self::Stored)
    }
}

/// The writes of a transaction, in the order of keys. Until they are through, who comes after it
/// reads them for what is stored.
#[derive(Debug)]
pub(crate) struct Sealed(Vec<Write>);

impl Sealed {
    pub(super) fn of(mut writes: Vec<Write>) -> Self {
        writes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Self(writes)
    }

    /// What they leave of a record, if they write it.
    pub(super) fn read(&self, key: &RecordKey) -> Option<Read> {
        let at = self.0.binary_search_by(|write| write.key.cmp(key)).ok()?;
        let value = self.0.get(at)?.value.clone();
        Some(value.map_or(Read::Nothing, Read::Ahead))
    }

    /// The writes.
    pub(crate) fn writes(&self) -> &[Write] {
        &self.0
    }
}
