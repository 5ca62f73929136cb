//! A file that is the whole list of an app: what it does not name goes.

use super::job::{Job, Pass, Stop};
use super::{decode, encode};
use crate::admin::ATTEMPTS_MAX;
use crate::admin::keys::remove;
use crate::admin::steps::prefetch_whole;
use crate::admin::txn::Txn;
use crate::store::{Kind, RecordKey, StoreError};
use crate::wire::imports::options::Mode;
use crate::wire::portal::fields::Ref;

/// Credentials deleted by one commit.
const BATCH: usize = 64;

impl Job {
    /// Finds the app that the file is to be the whole list of.
    pub(super) async fn find_replaced(&mut self) -> Result<(), Stop> {
        if self.options.mode != Mode::ReplaceApp {
            return Ok(());
        }
        let named = self.options.app.as_deref().and_then(Ref::parse);
        let state = self.state.clone();
        let found = match named {
            Some(named) => Txn::new(&state.catalog).resolve(Kind::App, &named).await?,
            None => None,
        };
        let app = found.ok_or_else(|| Stop::File("app names no app".to_owned()))?;
        self.replaced = Some(app);
        Ok(())
    }

    /// Deletes the app's tokens that no line named. While a line has a fault nothing is deleted:
    /// it may be the one that should have named it.
    pub(super) async fn delete_rest(&mut self) -> Result<(), Stop> {
        let Some(app) = self.replaced else { return Ok(()) };
        if 0 < self.import.counts.failed {
            let text = "no credential was deleted, since lines have faults";
            self.import.notes.push(text.to_owned());
            return Ok(());
        }
        let state = self.state.clone();
        let all = Txn::new(&state.catalog);
        let mut ids = all.members((Kind::App, app), Kind::Credential, usize::MAX).await?;
        ids.retain(|id| !self.kept.contains(id));
        for some in ids.chunks(BATCH) {
            self.delete(some).await?;
        }
        Ok(())
    }

    async fn delete(&mut self, ids: &[u64]) -> Result<(), Stop> {
        let state = self.state.clone();
        for _ in 0..ATTEMPTS_MAX {
            let mut txn = Txn::new(&state.catalog);
            let key = RecordKey::number(Kind::Import, self.import.id);
            let value = txn.get(&key).await?;
            let stored = value.as_deref().map(decode).transpose()?;
            if stored.is_none_or(|stored| stored.cancel) {
                return Err(Stop::Cancelled);
            }
            let mut next = self.import.clone();
            prefetch_whole(&mut txn, ids).await?;
            for id in ids {
                let object = txn.object(Kind::Credential, *id).await?;
                // A pair for display is no token, and stands in no list of them.
                let Some(object) = object.filter(|object| object.links.token.is_some()) else {
                    continue;
                };
                next.counts.deleted += 1;
                if self.pass() != Pass::Check {
                    remove(&mut txn, &object).await?;
                }
            }
            next.updated_ms = state.clock.unix().0;
            txn.put(key, Some(encode(&next))).await?;
            if txn.commit().await? {
                self.import = next;
                return Ok(());
            }
        }
        Err(StoreError::io("written", "others were faster").into())
    }
}
