//! When a subject's rolling periods began: its first use, kept for ever. In Redis it lies with the
//! subject's counters, so that it is lost and asserted with them.

use crate::domain::counter::Subject;
use crate::domain::time::UnixMs;
use crate::store::{AnyStore, Committed, Expect, Kind, RecordKey, RecordStore, StoreError, Write};

impl AnyStore {
    /// The instant of a subject's first use. The first who asks sets it, to `now`, or to the time
    /// of a store that has its own clock.
    ///
    /// # Errors
    /// When the store does not answer, is learning, or the record is not one of these.
    pub async fn anchor(&self, subject: &Subject, now: UnixMs) -> Result<UnixMs, StoreError> {
        self.anchor_from(subject, now, None).await
    }

    /// The same for a subject that was used elsewhere: if nobody has asked yet, its rolling periods
    /// began at `begun`, whatever the time is now.
    ///
    /// # Errors
    /// As [`Self::anchor`].
    pub async fn anchor_from(
        &self,
        subject: &Subject,
        now: UnixMs,
        begun: Option<UnixMs>,
    ) -> Result<UnixMs, StoreError> {
        #[cfg(feature = "redis")]
        if let Self::Redis(store) = self {
            return store.anchor(subject, begun).await;
        }
        let begun = begun.unwrap_or(now);
        // A second round when another gateway was first.
        for _ in 0..2 {
            if let Some(first) = self.first_use(subject).await? {
                return Ok(first);
            }
            let value = Some(begun.0.to_be_bytes().into());
            let write = Write { key: record(subject), expect: Expect::Absent, value };
            if let Committed::At(_) = self.commit(vec![write]).await? {
                return Ok(begun);
            }
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
        let Some(record) = self.get(&record(subject)).await? else { return Ok(None) };
        let bytes = <[u8; 8]>::try_from(record.value.as_ref());
        let bytes = bytes.map_err(|_not_eight| StoreError::Damaged { what: "an anchor" })?;
        Ok(Some(UnixMs(u64::from_be_bytes(bytes))))
    }
}

fn record(subject: &Subject) -> RecordKey {
    RecordKey::bytes(Kind::Anchor, subject.to_string())
}
