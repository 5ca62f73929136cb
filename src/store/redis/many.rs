//! Calls about many subjects in one script: what a call costs besides, it costs once.
//!
//! A script reaches the counters of several shards, unless the server is one of a cluster: there it takes
//! keys of one slot, and a subject has a script to itself.

use std::sync::atomic::Ordering;

use redis::Cmd;

use crate::domain::counter::Subject;
use crate::domain::shard::Incarnation;
use crate::domain::time::UnixMs;
use crate::store::redis::counters::{
    Counters, EXECUTED, GONE, LEARN, NUMBER_MAX, OTHER_WINDOW, quota_call,
};
use crate::store::redis::fault::RedisFault;
use crate::store::redis::keys::{self, Keys};
use crate::store::shards::ShardId;
use crate::store::{QuotaReserve, StoreError};

/// Calls of one script at most: it takes some 25 us for each, and nothing else is done meanwhile.
const CALLS_MAX: usize = 64;

impl Counters {
    /// When rolling periods of subjects began; where that was not set, it is: to what is said, or
    /// to now.
    pub(super) async fn anchors(
        &self,
        keys: &Keys,
        all: &[(Subject, Option<UnixMs>)],
    ) -> Result<Vec<UnixMs>, StoreError> {
        match self.anchors_by(self.calls_max(), keys, all).await {
            Err(error) if self.crosses_slots(&error) => self.anchors_by(1, keys, all).await,
            done => done,
        }
    }

    async fn anchors_by(
        &self,
        calls_max: usize,
        keys: &Keys,
        all: &[(Subject, Option<UnixMs>)],
    ) -> Result<Vec<UnixMs>, StoreError> {
        let mut instants = Vec::with_capacity(all.len());
        for some in all.chunks(calls_max) {
            let shards = self.open(some.iter().map(|(of, _)| keys::shard(of)))?;
            let named = some.iter().zip(&shards);
            let names = named.flat_map(|((of, _), (at, _))| [keys.shard(*at), keys.anchor(of)]);
            let names: Vec<_> = names.collect();
            let arguments = |cmd: &mut Cmd| {
                for ((_, begun), (_, known)) in some.iter().zip(&shards) {
                    cmd.arg(known.0.min(NUMBER_MAX));
                    match begun {
                        Some(begun) => cmd.arg(begun.0.min(NUMBER_MAX)),
                        None => cmd.arg(""),
                    };
                }
            };
            let called = self.link.script(&self.anchor, &names, self.deadline, arguments);
            let mut answer = called.await?;
            for (shard, _) in shards {
                let learn = answer.number()? != 0;
                let number = answer.number()?;
                if learn {
                    return Err(self.learning(shard, Incarnation(number)));
                }
                instants.push(UnixMs(number));
            }
        }
        Ok(instants)
    }

    /// Executes calls that ask for nothing. Of each whose window is another by now, the server's
    /// time.
    pub(super) async fn reports(
        &self,
        keys: &Keys,
        all: &[QuotaReserve],
    ) -> Result<Vec<Option<UnixMs>>, StoreError> {
        match self.reports_by(self.calls_max(), keys, all).await {
            Err(error) if self.crosses_slots(&error) => self.reports_by(1, keys, all).await,
            done => done,
        }
    }

    async fn reports_by(
        &self,
        calls_max: usize,
        keys: &Keys,
        all: &[QuotaReserve],
    ) -> Result<Vec<Option<UnixMs>>, StoreError> {
        let mut told = Vec::with_capacity(all.len());
        for some in all.chunks(calls_max) {
            let shards = self.open(some.iter().map(|reserve| self.shards.of(&reserve.key)))?;
            let named = some.iter().zip(&shards);
            let names = named.flat_map(|(QuotaReserve { key, window, .. }, (at, _))| {
                [keys.shard(*at), keys.quota(key, window)]
            });
            let names: Vec<_> = names.collect();
            let arguments = |cmd: &mut Cmd| {
                for (reserve, (_, known)) in some.iter().zip(&shards) {
                    quota_call(cmd, *known, reserve);
                }
            };
            let sent = self.clock.boot();
            let called = self.link.write(&self.quota, &names, self.deadline, arguments);
            let mut answer = called.await?;
            let now = UnixMs(answer.number()?);
            let _stepped = self.steps.note(sent, now, self.clock.boot());
            for (shard, _) in shards {
                let (what, number) = (answer.number()?, answer.number()?);
                told.push(match what {
                    EXECUTED | GONE => None,
                    OTHER_WINDOW => Some(now),
                    LEARN => return Err(self.learning(shard, Incarnation(number))),
                    _ => return Err(RedisFault::Mismatch.met("read")),
                });
            }
        }
        Ok(told)
    }

    fn calls_max(&self) -> usize {
        if self.has_slots.load(Ordering::Relaxed) { 1 } else { CALLS_MAX }
    }

    /// Whether this was because of keys of several slots: from then on it is known.
    fn crosses_slots(&self, error: &StoreError) -> bool {
        let StoreError::Io { source, .. } = error else { return false };
        let refused = source.downcast_ref::<RedisFault>();
        let crossed =
            matches!(refused, Some(RedisFault::Refused { code, .. }) if code == "CROSSSLOT");
        self.has_slots.fetch_or(crossed, Ordering::Relaxed);
        crossed
    }

    /// The shards with the lives that are known of them, if all of them can be asked.
    fn open(
        &self,
        shards: impl Iterator<Item = ShardId>,
    ) -> Result<Vec<(ShardId, Incarnation)>, StoreError> {
        let known = shards.map(|shard| {
            let member = self.shards.member(shard);
            member.may_reserve().then(|| (shard, member.incarnation()))
        });
        known.collect::<Option<_>>().ok_or(StoreError::Learning)
    }

    fn learning(&self, shard: ShardId, incarnation: Incarnation) -> StoreError {
        self.shards.heard(shard, incarnation, true);
        StoreError::Learning
    }
}
