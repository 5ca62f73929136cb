//! Records as strings, their ids as sorted sets, commits as one script.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::Cmd;

use crate::clock::Clock;
use crate::store::redis::chain::Chain;
use crate::store::redis::commit::{Commit, Part};
use crate::store::redis::keys::Keys;
use crate::store::redis::link::Link;
use crate::store::redis::script::{Answer, Script};
use crate::store::{Committed, Generation, Kind, Page, Record, RecordKey, StoreError, Write};

/// Records read by one script, of those that many are wanted of: some 100 KB, and well under a
/// millisecond in which the server does nothing else.
const LIST_STEP: usize = 256;
/// Such scripts on their way at once: who wants one record comes in between.
const AT_ONCE: usize = 2;

/// The scripts, and the connection they run on.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) link: Link,
    /// For reads of one record, which requests wait for.
    deadline: Duration,
    /// For commits and lists, which may be large and which nobody's request waits for.
    pub(super) deadline_long: Duration,
    pub(super) feed_len: u64,
    pub(super) commit: Script,
    pub(super) chain: Chain,
    get: Script,
    has: Script,
    list: Script,
    next: Script,
}

impl Records {
    pub(super) fn new(
        link: Link,
        deadlines: (Duration, Duration),
        feed_len: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (deadline, deadline_long) = deadlines;
        Self {
            link,
            deadline,
            deadline_long,
            feed_len,
            commit: Script::new(include_str!("commit.lua")),
            chain: Chain::new(clock),
            get: Script::new(include_str!("get.lua")),
            has: Script::new(include_str!("has.lua")),
            list: Script::new(include_str!("list.lua")),
            next: Script::new(include_str!("next.lua")),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    pub(super) async fn get(
        &self,
        keys: &Keys,
        key: &RecordKey,
    ) -> Result<Option<Record>, StoreError> {
        if key.kind.is_bare() {
            return self.bare(keys, key).await;
        }
        let name = keys.record(key.kind, &key.id);
        let mut answer = self.link.script(&self.get, &[name], self.deadline, |_| {}).await?;
        answer.bytes()?.map(|raw| record(&raw)).transpose()
    }

    /// A record that is there or not: its index tells.
    async fn bare(&self, keys: &Keys, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let arguments = |cmd: &mut Cmd| {
            cmd.arg(key.id.as_ref());
        };
        let names = [keys.ids(key.kind)];
        let mut answer = self.link.script(&self.has, &names, self.deadline, arguments).await?;
        Ok(answer.bytes()?.map(|_score| bare()))
    }

    pub(super) async fn get_all(
        &self,
        keys: &Keys,
        all: &[RecordKey],
    ) -> Result<Vec<Option<Record>>, StoreError> {
        let some = all.chunks(LIST_STEP).map(|some| self.get_some(keys, some));
        let some: Vec<_> = some.collect();
        stream::iter(some).buffered(AT_ONCE).try_concat().await
    }

    async fn get_some(
        &self,
        keys: &Keys,
        some: &[RecordKey],
    ) -> Result<Vec<Option<Record>>, StoreError> {
        let whole = some.iter().filter(|key| !key.kind.is_bare());
        let names: Vec<_> = whole.map(|key| keys.record(key.kind, &key.id)).collect();
        let mut answer = Answer::default();
        if !names.is_empty() {
            let asked = self.link.script(&self.get, &names, self.deadline_long, |_| {});
            answer = asked.await?;
        }
        let mut found = Vec::with_capacity(some.len());
        for key in some {
            found.push(match key.kind.is_bare() {
                true => self.bare(keys, key).await?,
                false => answer.bytes()?.map(|raw| record(&raw)).transpose()?,
            });
        }
        Ok(found)
    }

    pub(super) async fn list(
        &self,
        keys: &Keys,
        kind: Kind,
        span: (&[u8], Option<&[u8]>),
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (prefix, after) = span;
        let mut names = vec![keys.ids(kind)];
        names.extend((!kind.is_bare()).then(|| keys.records(kind)));
        let mut from = match after.filter(|after| prefix <= *after) {
            Some(after) => [b"(", after].concat(),
            None => [b"[", prefix].concat(),
        };
        let to = above(prefix);
        let mut page = Page::default();
        loop {
            let wanted = limit.saturating_sub(page.records.len());
            // One more than is wanted tells whether there is more.
            let count = wanted.saturating_add(1).min(LIST_STEP);
            let arguments = |cmd: &mut Cmd| {
                cmd.arg(from.as_slice()).arg(to.as_slice()).arg(count);
            };
            let ran = self.link.script(&self.list, &names, self.deadline_long, arguments).await;
            let (mut answer, mut found) = (ran?, 0_usize);
            while !answer.is_empty() {
                let id = answer.bytes()?.unwrap_or_default();
                let raw = if kind.is_bare() { None } else { answer.bytes()? };
                found = found.saturating_add(1);
                if page.records.len() == limit {
                    page.more = true;
                    return Ok(page);
                }
                from = [b"(", id.as_slice()].concat();
                let record = match raw {
                    Some(raw) => record(&raw)?,
                    None if kind.is_bare() => bare(),
                    None => return Err(StoreError::Damaged { what: "an index of records" }),
                };
                page.records.push((RecordKey { kind, id: id.into() }, record));
            }
            if found < count {
                return Ok(page);
            }
        }
    }

    /// A commit after that at `ahead`, if one is named.
    pub(super) async fn commit(
        &self,
        keys: &Keys,
        writes: &[Write],
        ahead: Option<Generation>,
    ) -> Result<Committed, StoreError> {
        let commit = Commit::of(writes);
        if let Some(at) = self.commit_next(keys, &commit, ahead).await? {
            return Ok(Committed::At(at));
        }
        let (names, ahead) = (commit.names(keys, Part::All), ahead.unwrap_or_default());
        let arguments = |cmd: &mut Cmd| commit.arguments(cmd, Part::All, self.feed_len, ahead);
        let ran = self.link.write(&self.commit, &names, self.deadline_long, arguments).await;
        let mut answer = ran?;
        let (conflict, number) = (answer.number()?, answer.number()?);
        let at = || usize::try_from(number).ok().and_then(|at| commit.order().nth(at));
        if conflict != 0 {
            return Ok(Committed::Conflict(at().unwrap_or(usize::MAX)));
        }
        self.chain.landed(Generation(number), answer.connection);
        Ok(Committed::At(Generation(number)))
    }

    pub(super) async fn next_id(
        &self,
        keys: &Keys,
        kind: Kind,
        count: u64,
    ) -> Result<u64, StoreError> {
        let (names, count) = ([keys.numbers(kind)], count.max(1));
        let arguments = |cmd: &mut Cmd| {
            cmd.arg(count);
        };
        let ran = self.link.write(&self.next, &names, self.deadline_long, arguments).await;
        let last = ran?.number()?;
        let first = last.checked_sub(count).and_then(|before| before.checked_add(1));
        first.ok_or(StoreError::Damaged { what: "a sequence of numbers" })
    }

    pub(super) async fn generation(&self, keys: &Keys) -> Result<Generation, StoreError> {
        let names = [&keys.generation];
        let mut answer = self.link.script(&self.get, &names, self.deadline, |_| {}).await?;
        let Some(text) = answer.bytes()? else { return Ok(Generation::default()) };
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        number.map(Generation).ok_or(StoreError::Damaged { what: "the generation" })
    }
}

/// The least of what does not begin with `prefix` and sorts after what does, as ZRANGEBYLEX takes
/// it.
fn above(prefix: &[u8]) -> Vec<u8> {
    let mut above = prefix.to_vec();
    while let Some(last) = above.pop() {
        if let Some(next) = last.checked_add(1) {
            above.push(next);
            return [b"(", above.as_slice()].concat();
        }
    }
    b"+".to_vec()
}

/// What there is of a record that is there or not.
fn bare() -> Record {
    Record { generation: Generation::default(), value: Arc::from([]) }
}

fn record(raw: &[u8]) -> Result<Record, StoreError> {
    let (head, value) = raw.split_first_chunk().ok_or(StoreError::Damaged { what: "a record" })?;
    let generation = Generation(u64::from_be_bytes(*head));
    Ok(Record { generation, value: Arc::from(value) })
}

#[cfg(test)]
mod tests {
    use super::above;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(above(b"a/"), b"(a0");
        assert_eq!(above(b"a\xff\xff"), b"(b");
        assert_eq!(above(b"\xff"), b"+");
        assert_eq!(above(b""), b"+");
    }
}
