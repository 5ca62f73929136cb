//! The closed set of stores.

use crate::domain::counter::{CounterKey, Window};
use crate::domain::limit::Rate;
use crate::domain::ratelog::RateAnswer;
use crate::domain::time::UnixMs;
use crate::store::embedded::EmbeddedStore;
#[cfg(feature = "redis")]
use crate::store::redis::RedisStore;
use crate::store::{
    Committed, CounterStore, Expect, Generation, Kind, Page, QuotaReserve, QuotaReserved,
    QuotaUsage, RateReserve, Record, RecordKey, RecordStore, StoreError, Write,
};

/// The stores there are.
#[derive(Debug)]
pub enum AnyStore {
    /// Files on this machine.
    Embedded(EmbeddedStore),
    /// A server that several gateways share.
    #[cfg(feature = "redis")]
    Redis(RedisStore),
}

impl AnyStore {
    /// Commits after the commit at `ahead`. Where none is known, conditions that rely on it do not hold.
    ///
    /// # Errors
    /// As [`RecordStore::commit`].
    pub async fn commit_after(
        &self,
        mut writes: Vec<Write>,
        ahead: Option<Generation>,
    ) -> Result<Committed, StoreError> {
        match self {
            Self::Embedded(store) => {
                let before = Expect::Unchanged(ahead.unwrap_or_default());
                let waiting = writes.iter_mut().filter(|write| write.expect == Expect::Ahead);
                waiting.for_each(|write| write.expect = before);
                store.commit(writes).await
            }
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.commit_after(&writes, ahead).await,
        }
    }

    /// Makes everything durable, at the end of a process. The store goes on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.close(),
            // What was answered is as durable as the server makes it.
            #[cfg(feature = "redis")]
            Self::Redis(_) => Ok(()),
        }
    }

    /// The same, and gives it free for the next process where only one can have it open: every
    /// later call fails then.
    ///
    /// # Errors
    /// When not everything could be made durable.
    pub fn release(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.release(),
            #[cfg(feature = "redis")]
            Self::Redis(_) => Ok(()),
        }
    }
}

impl RecordStore for AnyStore {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        match self {
            Self::Embedded(store) => store.get(key).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.get(key).await,
        }
    }

    async fn get_all(&self, keys: &[RecordKey]) -> Result<Vec<Option<Record>>, StoreError> {
        match self {
            Self::Embedded(store) => store.get_all(keys).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.get_all(keys).await,
        }
    }

    async fn list(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        match self {
            Self::Embedded(store) => store.list(kind, prefix, after, limit).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.list(kind, prefix, after, limit).await,
        }
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        match self {
            Self::Embedded(store) => store.commit(writes).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.commit(writes).await,
        }
    }

    async fn next_id(&self, kind: Kind, count: u64) -> Result<u64, StoreError> {
        match self {
            Self::Embedded(store) => store.next_id(kind, count).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.next_id(kind, count).await,
        }
    }

    async fn generation(&self) -> Result<Generation, StoreError> {
        match self {
            Self::Embedded(store) => store.generation().await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.generation().await,
        }
    }
}

impl CounterStore for AnyStore {
    async fn quota(&self, reserve: &QuotaReserve) -> Result<QuotaReserved, StoreError> {
        match self {
            Self::Embedded(store) => store.quota(reserve).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.quota(reserve).await,
        }
    }

    async fn reports(&self, calls: &[QuotaReserve]) -> Result<Vec<Option<UnixMs>>, StoreError> {
        match self {
            Self::Embedded(store) => store.reports(calls).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.reports(calls).await,
        }
    }

    async fn rate(&self, reserve: &RateReserve) -> Result<RateAnswer, StoreError> {
        match self {
            Self::Embedded(store) => store.rate(reserve).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.rate(reserve).await,
        }
    }

    async fn quota_usage(
        &self,
        key: &CounterKey,
        window: &Window,
    ) -> Result<QuotaUsage, StoreError> {
        match self {
            Self::Embedded(store) => store.quota_usage(key, window).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.quota_usage(key, window).await,
        }
    }

    async fn rate_usage(&self, key: &CounterKey, rate: Rate) -> Result<RateAnswer, StoreError> {
        match self {
            Self::Embedded(store) => store.rate_usage(key, rate).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.rate_usage(key, rate).await,
        }
    }
}
