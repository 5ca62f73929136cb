//! The change feed as a stream.
//!
//! An entry's id is its commit's generation, and it names the generation before: so a follower
//! sees whether anything is missing between two entries, be it trimmed or lost with a server.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::Mutex;

use crate::store::feed::{Change, Changes};
use crate::store::redis::fault::RedisFault;
use crate::store::redis::keys::{Keys, kind_byte};
use crate::store::redis::link::Link;
use crate::store::{Generation, Kind, RecordKey, StoreError};

/// How long a follower waits on the server for something to happen, before it looks whether it
/// still follows the right history.
const WAIT_MS: u64 = 500;
/// Commits in one answer.
const COMMITS_MAX: usize = 256;

/// The connection that waits.
#[derive(Debug)]
pub(super) struct Feed {
    /// One waits at a time: a second would wait behind the first.
    link: Mutex<Link>,
    timeout: Duration,
}

/// An entry as it lies in the stream.
struct Entry {
    before: Generation,
    change: Change,
}

impl Feed {
    pub(super) fn new(link: Link, timeout: Duration) -> Self {
        Self { link: Mutex::new(link), timeout }
    }

    /// Waits until something was committed after `after`, for half a second at most.
    ///
    /// `generation` reads the generation of the last commit.
    pub(super) async fn changes(
        &self,
        keys: &Keys,
        after: Generation,
        generation: impl Future<Output = Result<Generation, StoreError>>,
    ) -> Result<Changes, StoreError> {
        let link = self.link.lock().await;
        let entries = self.read(&link, keys, after, Some(WAIT_MS)).await?;
        if !entries.is_empty() {
            return match chain(after, entries) {
                Some(changes) => Ok(Changes::Next(changes)),
                None => Ok(Changes::Gap(generation.await?)),
            };
        }
        // Nothing new, or this server knows nothing of what we follow.
        let now = generation.await?;
        if now == after {
            return Ok(Changes::Next(vec![]));
        }
        let entries = self.read(&link, keys, after, None).await?;
        match chain(after, entries) {
            Some(changes) if !changes.is_empty() => Ok(Changes::Next(changes)),
            Some(_) | None => Ok(Changes::Gap(now)),
        }
    }

    async fn read(
        &self,
        link: &Link,
        keys: &Keys,
        after: Generation,
        wait_ms: Option<u64>,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut cmd = Cmd::new();
        cmd.arg("XREAD").arg("COUNT").arg(COMMITS_MAX);
        if let Some(wait_ms) = wait_ms {
            cmd.arg("BLOCK").arg(wait_ms);
        }
        cmd.arg("STREAMS").arg(&keys.feed).arg(format!("{}-0", after.0));
        let deadline = self.timeout.saturating_add(Duration::from_millis(wait_ms.unwrap_or(0)));
        let value = link.command(&cmd, deadline).await?;
        let entries = entries(value, &keys.feed);
        entries.ok_or_else(|| RedisFault::Mismatch.met("read"))
    }
}

/// The commits, if each follows the one before without a gap.
fn chain(after: Generation, entries: Vec<Entry>) -> Option<Vec<Change>> {
    let mut last = after;
    let linked = entries.into_iter().map(|Entry { before, change }| {
        let follows = before == last;
        last = change.generation;
        follows.then_some(change)
    });
    linked.collect()
}

fn entries(value: Value, feed: &[u8]) -> Option<Vec<Entry>> {
    if value == Value::Nil {
        return Some(vec![]);
    }
    // A map in RESP3, a list of pairs in RESP2.
    let stream = if let Value::Map(streams) = value {
        let (name, entries) = streams.into_iter().next()?;
        [name, entries]
    } else {
        let Value::Array(streams) = value else { return None };
        let Value::Array(stream) = streams.into_iter().next()? else { return None };
        stream.try_into().ok()?
    };
    let [Value::BulkString(name), Value::Array(entries)] = stream else { return None };
    if name != feed {
        return None;
    }
    entries.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = <[Value; 2]>::try_from(parts).ok()? else {
        return None;
    };
    let [_p, Value::BulkString(before), _k, Value::BulkString(keys)] =
        <[Value; 4]>::try_from(fields).ok()?
    else {
        return None;
    };
    let generation = number(id.split(|b| *b == b'-').next()?)?;
    let change = Change { generation, keys: decode(&keys)? };
    Some(Entry { before: number(&before)?, change })
}

fn number(text: &[u8]) -> Option<Generation> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Generation)
}

/// Record keys for the feed: kind, length (four bytes, big-endian), id; one after the other.
pub(super) fn encode<'a>(keys: impl Iterator<Item = &'a RecordKey>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for RecordKey { kind, id } in keys {
        bytes.push(kind_byte(*kind));
        bytes.extend_from_slice(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(id);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Vec<RecordKey>> {
    let mut keys = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        let (len, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        // A kind of a later version is none that this one has read.
        if let Some(kind) = kind_of(*kind) {
            keys.push(RecordKey { kind, id: Arc::from(id) });
        }
        bytes = rest;
    }
    Some(keys)
}

fn kind_of(byte: u8) -> Option<Kind> {
    const KINDS: [Kind; 24] = [
        Kind::Meta,
        Kind::Organisation,
        Kind::Team,
        Kind::User,
        Kind::App,
        Kind::Product,
        Kind::Plan,
        Kind::Policy,
        Kind::Credential,
        Kind::Token,
        Kind::Unique,
        Kind::AccessRequest,
        Kind::Anchor,
        Kind::Api,
        Kind::TykKey,
        Kind::Catalogue,
        Kind::AdminToken,
        Kind::Member,
        Kind::Import,
        Kind::ImportPart,
        Kind::Audit,
        Kind::Audience,
        Kind::Usage,
        Kind::Answer,
    ];
    KINDS.into_iter().find(|kind| kind_byte(*kind) == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let keys = [RecordKey::number(Kind::Meta, 7), RecordKey::bytes(Kind::Member, "")];
        let bytes = encode(keys.iter());
        assert_eq!(decode(&bytes).unwrap(), keys);
        for end in 1..bytes.len() {
            let cut = decode(&bytes[..end]);
            assert!(cut.is_none_or(|keys| keys.len() == 1), "cut at {end}");
        }
        assert_eq!(decode(b"\xee\0\0\0\x01x").unwrap(), []);
    }

    #[test]
    fn a_missing_commit_breaks_the_chain() {
        let entry = |before, generation| Entry {
            before: Generation(before),
            change: Change { generation: Generation(generation), keys: vec![] },
        };
        let chain = |after, entries| chain(Generation(after), entries).map(|list| list.len());
        assert_eq!(chain(3, vec![entry(3, 9), entry(9, 10)]), Some(2));
        assert_eq!(chain(3, vec![entry(3, 9), entry(10, 11)]), None);
        assert_eq!(chain(2, vec![entry(3, 9)]), None);
        assert_eq!(chain(2, vec![]), Some(0));
    }
}
