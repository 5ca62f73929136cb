//! A commit as `commit.lua` takes it: records by what becomes of them, and by kind what the indexes
//! get and lose.

use std::collections::BTreeMap;

use redis::Cmd;

use crate::store::redis::changes;
use crate::store::redis::keys::Keys;
use crate::store::{Expect, Generation, Kind, Write};

/// The writes of a commit, sorted by what becomes of their records.
#[derive(Debug)]
pub(super) struct Commit<'w> {
    writes: &'w [Write],
    /// Where among the writes those are that make, change and delete a record.
    new: Vec<usize>,
    changed: Vec<usize>,
    gone: Vec<usize>,
    indexes: BTreeMap<Kind, Index<'w>>,
}

/// What an index gets and loses.
#[derive(Debug, Default)]
struct Index<'w> {
    more: Vec<&'w [u8]>,
    less: Vec<&'w [u8]>,
}

impl<'w> Commit<'w> {
    pub(super) fn of(writes: &'w [Write]) -> Self {
        let (new, changed, gone) = (Vec::new(), Vec::new(), Vec::new());
        let mut commit = Self { writes, new, changed, gone, indexes: BTreeMap::new() };
        for (at, Write { key, expect, value }) in writes.iter().enumerate() {
            match (value, expect) {
                // The index says all there is to say.
                _ if key.kind.is_bare() => {}
                (Some(_), Expect::Absent) => commit.new.push(at),
                (Some(_), Expect::Anything | Expect::Unchanged(_) | Expect::Ahead) => {
                    commit.changed.push(at)
                }
                (None, _) => commit.gone.push(at),
            }
            // What is unchanged so far is in its index already.
            let stays = value.is_some() && matches!(expect, Expect::Unchanged(_) | Expect::Ahead);
            if stays || !key.kind.is_listed() {
                continue;
            }
            let index = commit.indexes.entry(key.kind).or_default();
            let ids = if value.is_some() { &mut index.more } else { &mut index.less };
            ids.push(key.id.as_ref());
        }
        commit
    }

    /// The keys the script is called with.
    pub(super) fn names(&self, keys: &Keys) -> Vec<Vec<u8>> {
        let mut records = BTreeMap::new();
        let mut record = |Write { key, .. }: &Write| {
            let of_kind = records.entry(key.kind).or_insert_with(|| keys.records(key.kind));
            [of_kind.as_slice(), &key.id].concat()
        };
        let mut names = vec![keys.generation.clone(), keys.feed.clone()];
        names.extend(self.in_order().map(&mut record));
        names.extend(self.indexes.keys().map(|kind| keys.ids(*kind)));
        names
    }

    /// The arguments behind the first, which is the connection's, and before the last.
    pub(super) fn arguments(&self, cmd: &mut Cmd, feed_len: u64) {
        let followed =
            self.writes.iter().map(|write| &write.key).filter(|key| key.kind.is_followed());
        cmd.arg(changes::encode(followed)).arg(feed_len);
        for some in [&self.new, &self.changed, &self.gone] {
            cmd.arg(some.len());
        }
        let value = |write: &'w Write| write.value.as_deref().unwrap_or_default();
        for write in self.at(&self.new) {
            cmd.arg(value(write));
        }
        for write in self.at(&self.changed) {
            condition(cmd, write.expect);
            cmd.arg(value(write));
        }
        for write in self.at(&self.gone) {
            condition(cmd, write.expect);
        }
        for Index { more, less } in self.indexes.values() {
            cmd.arg(more.len()).arg(less.len());
            for id in more.iter().chain(less) {
                cmd.arg(*id);
            }
        }
    }

    /// Which write each of the script's records is.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> {
        self.new.iter().chain(&self.changed).chain(&self.gone).copied()
    }

    fn in_order(&self) -> impl Iterator<Item = &'w Write> {
        self.order().filter_map(|at| self.writes.get(at))
    }

    fn at(&self, some: &[usize]) -> impl Iterator<Item = &'w Write> {
        some.iter().filter_map(|at| self.writes.get(*at))
    }
}

fn condition(cmd: &mut Cmd, expect: Expect) {
    match expect {
        Expect::Anything => cmd.arg(""),
        Expect::Absent => cmd.arg("-"),
        Expect::Ahead => cmd.arg("="),
        Expect::Unchanged(Generation(number)) => cmd.arg(number.to_be_bytes().as_slice()),
    };
}
