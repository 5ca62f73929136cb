//! Following the lives of the store: when it has lost writes, it is told what is remembered here.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use crate::domain::ratelog::is_told;
use crate::domain::time::BootNs;
use crate::enforce::ledger::Ledger;
use crate::enforce::slot::{InHand, Slot};
use crate::store::StoreError;
use crate::store::shards::{AssertBatch, Remembered, RememberedRate, ShardId};

/// Counters in one batch: a script that takes a millisecond at the most.
const BATCH_MAX: usize = 32;
/// Shards that are told at the same time.
const TOLD_AT_ONCE_MAX: usize = 16;

impl Ledger {
    /// Looks which life each shard is in, and tells those that began a new one what is remembered
    /// of them. Runs about once a second, and when a call finds a new life.
    pub(in crate::enforce) async fn keep_up(&self) {
        if let Err(error) = self.store.poll().await {
            // Whoever needs the store finds out for himself.
            tracing::debug!(%error, "the store's shards could not be looked at");
            return;
        }
        let mut lost: BTreeMap<ShardId, Vec<Arc<Slot>>> =
            self.store.unasserted().into_iter().map(|shard| (shard, Vec::new())).collect();
        if lost.is_empty() {
            return;
        }
        for slot in &self.slots {
            if let Some(slots) = lost.get_mut(&self.store.shard(&slot.key)) {
                slots.push(Arc::clone(&slot));
            }
        }
        let counters: usize = lost.values().map(Vec::len).sum();
        tracing::warn!(shards = lost.len(), counters, "telling the store what it may have lost");
        stream::iter(lost)
            .for_each_concurrent(TOLD_AT_ONCE_MAX, async |(shard, slots)| {
                if let Err(error) = self.tell(shard, &slots).await {
                    tracing::warn!(shard = shard.0, %error, "the store could not be told");
                }
            })
            .await;
    }

    pub(super) async fn tell(&self, shard: ShardId, slots: &[Arc<Slot>]) -> Result<(), StoreError> {
        let live = self.peers.listed().unwrap_or_default();
        let mut batches = slots.chunks(BATCH_MAX).peekable();
        loop {
            let now = self.clock.boot();
            let slots = batches.next().unwrap_or_default();
            let known = slots.iter().filter_map(|slot| self.remembered(slot, now));
            let counters: Vec<Remembered> = known.collect();
            let known = slots.iter().filter_map(|slot| remembered_rate(slot, now));
            let rates: Vec<RememberedRate> = known.collect();
            let last = batches.peek().is_none();
            let batch = AssertBatch {
                process: self.process,
                live: &live,
                counters: &counters,
                rates: &rates,
                last,
            };
            self.store.assert(shard, &batch).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// What is remembered of a quota counter whose window is not over.
    fn remembered(&self, slot: &Slot, now: BootNs) -> Option<Remembered> {
        let mut state = slot.state.lock();
        let InHand::Quota(quota) = &mut state.hand else { return None };
        let (window, ends) = quota.window?;
        if ends.is_some_and(|ends| ends <= now) {
            return None;
        }
        let anchor = quota.anchor;
        let assertion = quota.held.assertion(self.next_q());
        Some(Remembered { key: slot.key.clone(), window, anchor, assertion })
    }
}

/// What is remembered of a rate counter, where that is of use to the store.
fn remembered_rate(slot: &Slot, now: BootNs) -> Option<RememberedRate> {
    let state = slot.state.lock();
    let InHand::Rate(held) = &state.hand else { return None };
    let rate = held.rate.filter(|rate| is_told(*rate))?;
    let told = held.spent.told(&held.hand, rate, now);
    (!told.is_empty()).then(|| RememberedRate { key: slot.key.clone(), told })
}
