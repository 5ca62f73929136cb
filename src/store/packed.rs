//! Commits made ready while the one before is on its way: what that takes is then not waited for.

use crate::store::{AnyStore, Committed, Expect, Generation, RecordStore, StoreError, Write};

/// Writes as their store takes them, but for the generation of the commit before.
#[derive(Debug)]
pub struct Packed(Form);

#[derive(Debug)]
enum Form {
    Plain(Vec<Write>),
    #[cfg(feature = "redis")]
    Redis(super::redis::Packed),
}

impl AnyStore {
    /// Makes a commit ready.
    #[must_use]
    pub fn pack(&self, writes: &[Write]) -> Packed {
        Packed(match self {
            Self::Embedded(_) => Form::Plain(writes.to_vec()),
            #[cfg(feature = "redis")]
            Self::Redis(store) => Form::Redis(store.pack(writes)),
        })
    }

    /// Commits what was made ready for this store, after the commit at `ahead`. Where none is known,
    /// conditions that rely on it do not hold.
    ///
    /// # Errors
    /// As [`RecordStore::commit`].
    pub async fn commit_packed(
        &self,
        packed: Packed,
        ahead: Option<Generation>,
    ) -> Result<Committed, StoreError> {
        let ahead = ahead.unwrap_or_default();
        match packed.0 {
            Form::Plain(mut writes) => {
                let waiting = writes.iter_mut().filter(|write| write.expect == Expect::Ahead);
                waiting.for_each(|write| write.expect = Expect::Unchanged(ahead));
                self.commit(writes).await
            }
            #[cfg(feature = "redis")]
            Form::Redis(packed) => match self {
                Self::Redis(store) => store.commit_packed(packed, ahead).await,
                Self::Embedded(_) => Err(StoreError::Damaged { what: "a commit" }),
            },
        }
    }
}
