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

/// What a call of the script does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// All of it.
    All,
    /// Sees whether the conditions of records that are there hold, the last commit is the one that this
    /// comes after, and the server's time is not below this generation.
    Look(Generation),
    /// All but the conditions and the records that are new, under this generation.
    Rest(Generation),
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Look(_) => "look",
            Self::Rest(_) => "rest",
        }
    }
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

    /// How many records are new.
    pub(super) fn new_count(&self) -> usize {
        self.new.len()
    }

    /// The keys that the script is called with.
    pub(super) fn names(&self, keys: &Keys, part: Part) -> Vec<Vec<u8>> {
        let mut names = vec![keys.generation.clone(), keys.feed.clone(), keys.guard.clone()];
        let new = if matches!(part, Part::All) { 0 } else { self.new.len() };
        names.extend(self.records(keys, self.order().skip(new)).map(|(name, _)| name));
        if !matches!(part, Part::Look(_)) {
            names.extend(self.indexes.keys().map(|kind| keys.ids(*kind)));
        }
        names
    }

    /// The arguments behind the first, which is the connection's.
    pub(super) fn arguments(&self, cmd: &mut Cmd, part: Part, feed_len: u64, ahead: Generation) {
        let followed = self.writes.iter().map(|write| &write.key);
        let followed = followed.filter(|key| key.kind.is_followed());
        let looks = matches!(part, Part::Look(_));
        match looks {
            true => cmd.arg(""),
            false => cmd.arg(changes::encode(followed)),
        };
        let new: &[usize] = if matches!(part, Part::All) { &self.new } else { &[] };
        cmd.arg(feed_len).arg(new.len()).arg(self.changed.len()).arg(self.gone.len());
        let at = match part {
            Part::All => Generation::default(),
            Part::Look(at) | Part::Rest(at) => at,
        };
        cmd.arg(part.name()).arg(at.0);
        let value = |write: &'w Write| write.value.as_deref().unwrap_or_default();
        for write in self.at(new) {
            cmd.arg(value(write));
        }
        for write in self.at(&self.changed) {
            condition(cmd, write.expect);
            cmd.arg(if looks { &[] } else { value(write) });
        }
        for write in self.at(&self.gone) {
            condition(cmd, write.expect);
        }
        for Index { more, less } in self.indexes.values().filter(|_| !looks) {
            cmd.arg(more.len()).arg(less.len());
            for id in more.iter().chain(less) {
                cmd.arg(*id);
            }
        }
        cmd.arg(ahead.0.to_be_bytes().as_slice());
    }

    /// Writes the records that are new under a generation, and the guard; nothing, where one of them is
    /// there.
    pub(super) fn new_records(&self, keys: &Keys, at: Generation) -> Cmd {
        let mut cmd = redis::cmd("MSETNX");
        cmd.arg(keys.guard.as_slice()).arg("");
        for (name, Write { value, .. }) in self.records(keys, self.new.iter().copied()) {
            let value = value.as_deref().unwrap_or_default();
            cmd.arg(name).arg([at.0.to_be_bytes().as_slice(), value].concat());
        }
        cmd
    }

    /// Which write each of the script's records is.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> {
        self.new.iter().chain(&self.changed).chain(&self.gone).copied()
    }

    /// Some writes with the names of their records.
    fn records(
        &self,
        keys: &Keys,
        some: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = (Vec<u8>, &'w Write)> {
        let mut of_kinds = BTreeMap::new();
        some.into_iter().filter_map(|at| self.writes.get(at)).map(move |write| {
            let kind = write.key.kind;
            let of_kind = of_kinds.entry(kind).or_insert_with(|| keys.records(kind));
            ([of_kind.as_slice(), &write.key.id].concat(), write)
        })
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
