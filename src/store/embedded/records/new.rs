//! Records that are new: those that follow one another in the file are written together.
//!
//! An import writes hundreds of records with every commit, most of them in a few runs: numbers that
//! rise, names of one owner. A run costs one way down the tree, and each of its pages is written once.

use std::ops::{Bound, Range};

use redb::{CursorError, Table};

use super::{kind_byte, written};
use crate::store::{Generation, Kind, StoreError, Write};

type Records<'tx> = Table<'tx, &'static [u8], &'static [u8]>;

/// A record as it lies in the file: the key, and behind it the value.
struct New<'b> {
    key: &'b [u8],
    value: &'b [u8],
    /// Its neighbours in the file are no neighbours among what is written with it.
    lone: bool,
}

/// Writes records, none of which may be there. If one is, nothing is written, and the answer is no.
pub(super) fn insert(
    table: &mut Records<'_>,
    writes: &[&Write],
    Generation(generation): Generation,
) -> Result<bool, StoreError> {
    let mut buffer = Vec::new();
    let place = |write: &&Write| {
        let from = buffer.len();
        buffer.push(kind_byte(write.key.kind));
        buffer.extend_from_slice(&write.key.id);
        let middle = buffer.len();
        buffer.extend_from_slice(&generation.to_le_bytes());
        buffer.extend_from_slice(write.value.as_deref().unwrap_or_default());
        // Tokens are named by hashes.
        (from..middle, middle..buffer.len(), write.key.kind == Kind::Token)
    };
    let places: Vec<_> = writes.iter().map(place).collect();
    let bytes = |place: Range<usize>| buffer.get(place).unwrap_or_default();
    let places = places.into_iter();
    let new = |(key, value, lone)| New { key: bytes(key), value: bytes(value), lone };
    let mut all: Vec<_> = places.map(new).collect();
    all.sort_by_key(|new| new.key);
    // Of several of one record the last counts.
    all.dedup_by(|later, kept| {
        let same = later.key == kept.key;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    write(table, &all)
}

fn write(table: &mut Records<'_>, all: &[New<'_>]) -> Result<bool, StoreError> {
    let mut rest = all;
    while let Some(first) = rest.first() {
        let count =
            if first.lone { insert_one(table, first)? } else { insert_run(table, first, rest)? };
        if count == 0 {
            let done = all.len().saturating_sub(rest.len());
            return undo(table, all.get(..done).unwrap_or_default()).map(|()| false);
        }
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(true)
}

/// Writes records for as long as nothing lies between them; how many that were. None: the first is
/// there already.
fn insert_run(
    table: &mut Records<'_>,
    first: &New<'_>,
    all: &[New<'_>],
) -> Result<usize, StoreError> {
    let from = Bound::Included(first.key);
    let mut cursor = table.lower_bound_mut(from).map_err(written)?;
    let mut count = 0_usize;
    for New { key, value, lone } in all {
        if *lone {
            break;
        }
        match cursor.insert_before(*key, *value) {
            Ok(()) => count = count.saturating_add(1),
            Err(CursorError::UnorderedKey) => break,
            Err(error) => return Err(written(error)),
        }
    }
    cursor.close().map_err(written)?;
    Ok(count)
}

fn insert_one(table: &mut Records<'_>, new: &New<'_>) -> Result<usize, StoreError> {
    let before = table.insert(new.key, new.value).map_err(written)?;
    let before = before.map(|before| before.value().to_vec());
    let Some(before) = before else { return Ok(1) };
    table.insert(new.key, before.as_slice()).map_err(written)?;
    Ok(0)
}

fn undo(table: &mut Records<'_>, done: &[New<'_>]) -> Result<(), StoreError> {
    for new in done {
        table.remove(new.key).map_err(written)?;
    }
    Ok(())
}
