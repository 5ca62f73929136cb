//! When a subject's rolling periods began: its first use, kept for ever. In Redis it lies with the
//! subject's counters, so that it is lost and asserted with them.

use std::collections::BTreeMap;

use crate::domain::counter::Subject;
use crate::domain::time::UnixMs;
use crate::store::{AnyStore, Expect, Kind, Record, RecordKey, RecordStore, StoreError, Write};

impl AnyStore {
    /// The instant of a subject's first use. The first who asks sets it, to `now`, or to the time
    /// of a store that has its own clock.
    ///
    /// # Errors
    /// When the store does not answer, is learning, or the record is not one of these.
    pub async fn anchor(&self, subject: &Subject, now: UnixMs) -> Result<UnixMs, StoreError> {
        let all = [(*subject, None)];
        self.anchors(&all, now).await?.pop().ok_or(StoreError::Damaged { what: "an anchor" })
    }

    /// The same of many, in their order. Those that were used elsewhere come with when their rolling
    /// periods began there: that holds if nobody has asked yet, whatever the time is now.
    ///
    /// # Errors
    /// As [`Self::anchor`].
    pub async fn anchors(
        &self,
        subjects: &[(Subject, Option<UnixMs>)],
        now: UnixMs,
    ) -> Result<Vec<UnixMs>, StoreError> {
        #[cfg(feature = "redis")]
        if let Self::Redis(store) = self {
            return store.anchors(subjects).await;
        }
        let keys: Vec<_> = subjects.iter().map(|(subject, _)| record(subject)).collect();
        // One to set and one to read, and another for each that somebody else sets meanwhile.
        for _ in 0..subjects.len().saturating_add(2) {
            let (mut instants, mut missing) = (Vec::new(), BTreeMap::new());
            let found = self.get_all(&keys).await?;
            for ((key, found), (_, begun)) in keys.iter().zip(found).zip(subjects) {
                match found {
                    Some(found) => instants.push(instant(&found)?),
                    None => drop(missing.entry(key).or_insert(begun.unwrap_or(now))),
                }
            }
            if missing.is_empty() {
                return Ok(instants);
            }
            let write = |(key, begun): (&RecordKey, UnixMs)| {
                let value = Some(begun.0.to_be_bytes().into());
                Write { key: key.clone(), expect: Expect::Absent, value }
            };
            self.commit(missing.into_iter().map(write).collect()).await?;
        }
        Err(StoreError::Damaged { what: "an anchor" })
    }

    /// The instant of a subject's first use; `None`: it was never used.
    ///
    /// # Errors
    /// When the store does not answer, or the record is not one of these.
    pub async fn first_use(&self, subject: &Subject) -> Result<Option<UnixMs>, StoreError> {
        #[cfg(feature = "redis")]
        if let Self::Redis(store) = self {
            return store.first_use(subject).await;
        }
        self.get(&record(subject)).await?.as_ref().map(instant).transpose()
    }
}

fn instant(record: &Record) -> Result<UnixMs, StoreError> {
    let bytes = <[u8; 8]>::try_from(record.value.as_ref());
    let bytes = bytes.map_err(|_not_eight| StoreError::Damaged { what: "an anchor" })?;
    Ok(UnixMs(u64::from_be_bytes(bytes)))
}

fn record(subject: &Subject) -> RecordKey {
    RecordKey::bytes(Kind::Anchor, subject.to_string())
}
