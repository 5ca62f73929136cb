//! How many requests each credential sent on each day, for people to look at. No limit looks here.
//!
//! A request counts in memory, in what its session points to. Once a minute the counts are added to
//! records that hold a day of a 64th of all credentials each: what that costs the store grows with
//! the credentials in use and not with their requests. A crash loses the last minute.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::clock::Clock;
use crate::domain::id::CredentialId;
use crate::domain::time::{BootNs, UnixMs};
use crate::store::{AnyStore, Committed, Expect, Kind, RecordKey, RecordStore, StoreError, Write};

/// Days that are kept, with the current one.
pub const HISTORY_DAYS: u64 = 30;
/// How often counts are stored, in milliseconds.
const FLUSH_EVERY_MS: u64 = 60_000;
/// Records of one day: 100,000 credentials in use are 50 KB in each.
const GROUPS: u64 = 64;
/// How often a record is tried that other gateways write too.
const ATTEMPTS_MAX: usize = 16;
/// Records of old days that are deleted in one go.
const PRUNE_PAGE: usize = 256;
const DAY_MS: u64 = 86_400_000;
/// One credential in a record: four numbers, big-endian.
const ENTRY_LEN: usize = 32;

/// Requests of one credential, since they were last stored.
#[derive(Debug, Default)]
pub(super) struct Tally {
    admitted: AtomicU64,
    refused: AtomicU64,
    last_ms: AtomicU64,
}

/// Requests of one credential in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That went upstream.
    pub admitted: u64,
    /// That did not.
    pub refused: u64,
    /// When the last of them came, to the second.
    pub last: UnixMs,
}

/// Requests of one credential by day: the day's number since 1970 (UTC), ascending.
pub type Days = BTreeMap<u64, Counts>;

/// The tallies of all credentials in memory.
#[derive(Debug)]
pub(super) struct History {
    tallies: DashMap<CredentialId, Arc<Tally>>,
    /// The time, to the second: requests read it here and leave the clock alone.
    now_ms: AtomicU64,
    flushed: AtomicU64,
}

impl Tally {
    /// Counts one request.
    pub(super) fn note(&self, admitted: bool, history: &History) {
        let count = if admitted { &self.admitted } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.last_ms.store(history.now_ms.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        Counts {
            admitted: self.admitted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last: UnixMs(self.last_ms.load(Ordering::Relaxed)),
        }
    }

    fn take(&self) -> Counts {
        Counts {
            admitted: self.admitted.swap(0, Ordering::Relaxed),
            refused: self.refused.swap(0, Ordering::Relaxed),
            last: UnixMs(self.last_ms.load(Ordering::Relaxed)),
        }
    }

    fn give_back(&self, counts: Counts) {
        self.admitted.fetch_add(counts.admitted, Ordering::Relaxed);
        self.refused.fetch_add(counts.refused, Ordering::Relaxed);
    }
}

impl Counts {
    fn is_none(&self) -> bool {
        self.admitted == 0 && self.refused == 0
    }

    /// Takes in counts of the same time.
    pub fn add(&mut self, more: Self) {
        self.admitted = self.admitted.saturating_add(more.admitted);
        self.refused = self.refused.saturating_add(more.refused);
        self.last = self.last.max(more.last);
    }
}

impl History {
    pub(super) fn new(clock: &dyn Clock) -> Self {
        let now_ms = AtomicU64::new(clock.unix().0);
        let flushed = AtomicU64::new(clock.boot().0);
        Self { tallies: DashMap::new(), now_ms, flushed }
    }

    /// Where a credential's requests are counted.
    pub(super) fn tally(&self, credential: CredentialId) -> Arc<Tally> {
        Arc::clone(&self.tallies.entry(credential).or_default())
    }

    /// Stores what was counted, once a minute and before a new day begins.
    pub(super) async fn sweep(&self, store: &AnyStore, clock: &dyn Clock) {
        let (now, boot) = (clock.unix(), clock.boot());
        let before = UnixMs(self.now_ms.swap(now.0, Ordering::Relaxed));
        let flushed = BootNs(self.flushed.load(Ordering::Relaxed));
        let next_day = before.0 / DAY_MS != now.0 / DAY_MS;
        if !next_day && boot.since_ms(flushed) < FLUSH_EVERY_MS {
            return;
        }
        self.flushed.store(boot.0, Ordering::Relaxed);
        self.flush(store, before).await;
        if next_day && let Err(error) = prune(store, now).await {
            tracing::warn!(%error, "old days of the usage history could not be deleted");
        }
    }

    /// Stores what was counted up to `at`.
    pub(super) async fn flush(&self, store: &AnyStore, at: UnixMs) {
        let mut groups: BTreeMap<u64, Vec<(CredentialId, Arc<Tally>, Counts)>> = BTreeMap::new();
        for tally in &self.tallies {
            let counts = tally.take();
            if !counts.is_none() {
                let group = groups.entry(tally.key().0 % GROUPS).or_default();
                group.push((*tally.key(), Arc::clone(tally.value()), counts));
            }
        }
        // What no session points to, and what is stored, needs no place here.
        self.tallies.retain(|_, tally| 1 < Arc::strong_count(tally) || !tally.counts().is_none());
        // Of a store that does not answer once is not asked again: whoever sweeps has more to do.
        let mut away = false;
        for (group, counted) in groups {
            let more: BTreeMap<u64, Counts> =
                counted.iter().map(|(credential, _, counts)| (credential.0, *counts)).collect();
            if !away && let Err(error) = add(store, at.0 / DAY_MS, group, &more).await {
                tracing::warn!(%error, "usage could not be stored; it is tried again");
                away = true;
            }
            if away {
                for (credential, tally, counts) in counted {
                    self.tallies.entry(credential).or_insert(tally).give_back(counts);
                }
            }
        }
    }

    /// The requests of credentials by day, with those that are not stored yet.
    pub(super) async fn read(
        &self,
        store: &AnyStore,
        credentials: &[CredentialId],
        now: UnixMs,
    ) -> Result<BTreeMap<CredentialId, Days>, StoreError> {
        let mut found: BTreeMap<CredentialId, Days> =
            credentials.iter().map(|id| (*id, Days::new())).collect();
        let mut groups: Vec<u64> = credentials.iter().map(|id| id.0 % GROUPS).collect();
        groups.sort_unstable();
        groups.dedup();
        let today = now.0 / DAY_MS;
        for day in today.saturating_sub(HISTORY_DAYS - 1)..=today {
            for group in &groups {
                let Some(record) = store.get(&key(day, *group)).await? else { continue };
                for (credential, counts) in decode(&record.value)? {
                    if let Some(days) = found.get_mut(&CredentialId(credential)) {
                        days.entry(day).or_default().add(counts);
                    }
                }
            }
        }
        for (credential, days) in &mut found {
            let tally = self.tallies.get(credential).map(|tally| tally.counts());
            if let Some(counts) = tally.filter(|counts| !counts.is_none()) {
                days.entry(today).or_default().add(counts);
            }
        }
        Ok(found)
    }
}

/// Adds counts to a record that other gateways add to as well.
async fn add(
    store: &AnyStore,
    day: u64,
    group: u64,
    more: &BTreeMap<u64, Counts>,
) -> Result<(), StoreError> {
    let key = key(day, group);
    for _ in 0..ATTEMPTS_MAX {
        let read = store.get(&key).await?;
        let mut all = match &read {
            Some(record) => decode(&record.value)?,
            None => BTreeMap::new(),
        };
        for (credential, counts) in more {
            all.entry(*credential).or_default().add(*counts);
        }
        let expect = read.map_or(Expect::Absent, |record| Expect::Unchanged(record.generation));
        let write = Write { key: key.clone(), expect, value: Some(encode(&all).into()) };
        if let Committed::At(_) = store.commit(vec![write]).await? {
            return Ok(());
        }
    }
    Err(StoreError::io("written", "others were faster, again and again"))
}

/// Deletes the days that are no longer kept.
async fn prune(store: &AnyStore, now: UnixMs) -> Result<(), StoreError> {
    let first = day_key((now.0 / DAY_MS).saturating_sub(HISTORY_DAYS - 1));
    loop {
        let page = store.list(Kind::Usage, &[], None, PRUNE_PAGE).await?;
        let old = page.records.into_iter().filter(|(key, _)| *key.id < first[..]);
        let deletes: Vec<Write> =
            old.map(|(key, _)| Write { key, expect: Expect::Anything, value: None }).collect();
        if deletes.is_empty() {
            return Ok(());
        }
        store.commit(deletes).await?;
    }
}

fn day_key(day: u64) -> [u8; 4] {
    u32::try_from(day).unwrap_or(u32::MAX).to_be_bytes()
}

fn key(day: u64, group: u64) -> RecordKey {
    let group = u8::try_from(group).unwrap_or(u8::MAX);
    RecordKey::bytes(Kind::Usage, [day_key(day).as_slice(), &[group]].concat())
}

fn encode(all: &BTreeMap<u64, Counts>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(all.len().saturating_mul(ENTRY_LEN));
    for (credential, counts) in all {
        for number in [*credential, counts.admitted, counts.refused, counts.last.0] {
            bytes.extend(number.to_be_bytes());
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<u64, Counts>, StoreError> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    if !rest.is_empty() {
        return Err(StoreError::Damaged { what: "the usage history" });
    }
    let entry = |entry: &[u8; ENTRY_LEN]| {
        let (numbers, _) = entry.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let mut next = || numbers.next().unwrap_or_default();
        (next(), Counts { admitted: next(), refused: next(), last: UnixMs(next()) })
    };
    Ok(entries.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_back_and_a_torn_record_does_not() {
        let counts = |n| Counts { admitted: n, refused: n + 1, last: UnixMs(n + 2) };
        let all: BTreeMap<u64, Counts> = [(1, counts(7)), (u64::MAX, counts(9))].into();
        let bytes = encode(&all);
        assert_eq!(decode(&bytes).unwrap(), all);
        assert!(decode(&bytes[1..]).is_err());
        assert!(decode(&[]).unwrap().is_empty());
    }
}
