//! What happens without requests: idle units go back, forgotten slots go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use crate::domain::shard::LEARN_MS_MAX;
use crate::domain::time::BootNs;
use crate::enforce::ledger::Ledger;
use crate::enforce::slot::{Asking, InHand, Slot, Turn};
use crate::store::shards::ShardId;

/// Units of a slot that was not used for so long go back to the store.
const IDLE_MS: u64 = 1_000;
/// The same while at least half of the limit is free: nobody is short of units.
const IDLE_RELAXED_MS: u64 = 10_000;
/// Slots given back at the same time.
const RETURNED_AT_ONCE_MAX: usize = 64;
/// Calls waited for, per counter, before a stop goes on without it: what the last of them is
/// granted would be lost.
const CALLS_AWAITED_MAX: usize = 3;
/// How long a stop waits for a store that is away, in milliseconds, and how often it tries; one that
/// is learning is waited for as long as that lasts.
const RELEASE_MS_MAX: u64 = 2_000;
const RELEASE_PAUSE: Duration = Duration::from_millis(50);
/// A counter that is not in use is remembered to the end of its window, in case the store forgets
/// it, while there are no more than so many: some 100 MB.
const REMEMBERED_MAX: usize = 200_000;

impl Ledger {
    /// Returns what is idle and forgets what nobody refers to. Runs about once a second.
    pub(in crate::enforce) async fn sweep(&self) {
        self.round_trip.fade();
        self.sweep_shares().await;
        let now = self.clock.boot();
        self.return_all(|slot| is_idle(slot, now), 0).await;
        let crowded = REMEMBERED_MAX < self.slots.len();
        // Sessions hold their slots; a slot that only the map holds is not in use. Its hand must
        // be empty, or its units would be taken without anybody to spend or return them.
        self.slots
            .retain(|_, slot| 1 < Arc::strong_count(slot) || !is_forgettable(slot, now, crowded));
    }

    /// Returns everything: a graceful stop. What an answer brings, granted by a call whose own
    /// answer was lost, goes back too. A store that is away for a moment is waited for, and one
    /// that is learning until it takes units back.
    pub(in crate::enforce) async fn release_all(&self) {
        let began = self.clock.boot();
        let mut told = false;
        loop {
            self.return_all(|_| true, CALLS_AWAITED_MAX).await;
            let now = self.clock.boot();
            let left = self.slots.iter().filter(|slot| is_left(slot, now));
            let left: Vec<Arc<Slot>> = left.map(|slot| Arc::clone(&slot)).collect();
            if left.is_empty() || !self.store.may_forget() {
                return;
            }
            // First of everything: a store that is learning awaits that.
            self.keep_up().await;
            told = told || self.tell_what_is_left(&left).await;
            let patience_ms = if told { LEARN_MS_MAX } else { RELEASE_MS_MAX };
            if patience_ms <= now.since_ms(began) {
                let counters = left.len();
                tracing::warn!(counters, told, "the store did not take back what was in hand");
                return;
            }
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
    }

    /// A store that is learning takes nothing back, but hears what was, once: each telling makes
    /// it go on learning. Says whether it heard.
    async fn tell_what_is_left(&self, left: &[Arc<Slot>]) -> bool {
        let mut shards: BTreeMap<ShardId, Vec<Arc<Slot>>> = BTreeMap::new();
        for slot in left {
            shards.entry(self.store.shard(&slot.key)).or_default().push(Arc::clone(slot));
        }
        let tell = async |(shard, slots): (ShardId, Vec<Arc<Slot>>)| {
            self.store.member(shard).may_reserve() && self.tell(shard, &slots).await.is_ok()
        };
        let heard = stream::iter(shards).map(tell).buffer_unordered(RETURNED_AT_ONCE_MAX);
        heard.all(async |heard| heard).await
    }

    /// Of counters that are being asked about, at most `awaited` calls are waited for.
    async fn return_all(&self, which: impl Fn(&Slot) -> bool, awaited: usize) {
        let slots: Vec<Arc<Slot>> =
            self.slots.iter().filter(|slot| which(slot)).map(|slot| Arc::clone(&slot)).collect();
        stream::iter(slots)
            .for_each_concurrent(RETURNED_AT_ONCE_MAX, async |slot| {
                let Some(_asking) = self.turn_within(&slot, awaited).await else { return };
                if let Err(error) = self.give_back(&slot).await {
                    tracing::debug!(counter = %slot.key, %error, "could not return units");
                }
            })
            .await;
    }

    async fn turn_within(&self, slot: &Arc<Slot>, awaited: usize) -> Option<Asking> {
        for _ in 0..awaited {
            match slot.turn(0) {
                (_, Turn::Call(asking)) => return Some(asking),
                (_, Turn::Wait(wait)) => {
                    let _over = tokio::time::timeout(self.timeout, wait.for_answer()).await;
                }
            }
        }
        slot.try_ask()
    }

    /// Slots, and quota units in hand.
    pub(in crate::enforce) fn totals(&self) -> (usize, u64) {
        let units = |slot: &Slot| match &slot.state.lock().hand {
            InHand::Quota(quota) => quota.held.hand.units(),
            InHand::Rate(_) => 0,
        };
        let held = self.slots.iter().map(|slot| units(&slot)).fold(0, u64::saturating_add);
        (self.slots.len(), held)
    }
}

/// Whether a stop now would lose something of a window that goes on: units in hand, units that an
/// answer still to come may bring, or a count that the store has not heard of.
fn is_left(slot: &Slot, now: BootNs) -> bool {
    let InHand::Quota(quota) = &slot.state.lock().hand else { return false };
    let open = quota.window.is_some_and(|(_, ends)| ends.is_none_or(|ends| now < ends));
    let hand = &quota.held.hand;
    open && !(hand.may_be_forgotten() && hand.is_heard())
}

fn is_idle(slot: &Slot, now: BootNs) -> bool {
    let state = slot.state.lock();
    let InHand::Quota(quota) = &state.hand else { return false };
    let hand = &quota.held.hand;
    let relaxed = hand.units() <= hand.remaining_at_store();
    let pause = if relaxed { IDLE_RELAXED_MS } else { IDLE_MS };
    let over = quota.window.is_some_and(|(_, ends)| ends.is_some_and(|ends| ends <= now));
    (0 < hand.units() || !hand.is_heard())
        && !state.asking
        && !over
        && state.used.plus_ms(pause) <= now
}

fn is_forgettable(slot: &Slot, now: BootNs, crowded: bool) -> bool {
    let mut state = slot.state.lock();
    let empty = match &mut state.hand {
        InHand::Quota(quota) => {
            let hand = &quota.held.hand;
            let over = quota.window.is_none_or(|(_, ends)| ends.is_some_and(|ends| ends <= now));
            let reported = hand.may_be_forgotten() && hand.is_heard();
            over || (reported && (crowded || quota.held.copy().is_none()))
        }
        InHand::Rate(held) => {
            // What was spent of a long rate may still have to be told.
            let told = |rate| !held.spent.told(&held.hand, rate, now).is_empty();
            // What was admitted without the store counts in no other memory.
            let away = held.rate.is_some_and(|rate| !held.away.is_idle(rate, now));
            held.hand.units(now) == 0 && !away && (crowded || !held.rate.is_some_and(told))
        }
    };
    empty && !state.asking && state.waiting == 0
}
