//! Which life each shard is in, and telling it what it has lost.

use parking_lot::Mutex;
use redis::Cmd;
use tokio::sync::Notify;

use crate::domain::counter::{CounterKey, Window};
use crate::domain::lease::Cell;
use crate::domain::shard::{CounterCopy, Incarnation, Member};
use crate::store::redis::counters::{NUMBER_MAX, SPAN_MS_MAX, time};
use crate::store::redis::keys::{self, SHARDS};
use crate::store::shards::{AssertBatch, Remembered, RememberedRate, ShardId};

/// A counter is kept so long past its window at the most, in milliseconds; `quota.lua` says it too.
const KEPT_MS_MAX: u64 = 86_400_000;

/// This process's standing at all shards.
#[derive(Debug)]
pub(in crate::store) struct Shards {
    members: Vec<Mutex<Member>>,
    /// Some shard began a new life: whoever asserts is woken.
    lost: Notify,
    /// Some shard may be open again: requests that wait are woken.
    told: Notify,
}

impl Shards {
    pub(super) fn new() -> Self {
        let members = (0..SHARDS).map(|_| Mutex::new(Member::default())).collect();
        Self { members, lost: Notify::new(), told: Notify::new() }
    }

    pub(super) fn all() -> impl Iterator<Item = ShardId> {
        (0..=u8::MAX).take_while(|shard| u32::from(*shard) < SHARDS).map(ShardId)
    }

    pub(in crate::store) fn of(&self, key: &CounterKey) -> ShardId {
        keys::shard(&key.subject)
    }

    pub(in crate::store) fn member(&self, shard: ShardId) -> Member {
        self.members.get(usize::from(shard.0)).map(|member| *member.lock()).unwrap_or_default()
    }

    pub(in crate::store) fn unasserted(&self) -> Vec<ShardId> {
        Self::all().filter(|shard| !self.member(*shard).may_reserve()).collect()
    }

    pub(in crate::store) async fn until_lost(&self) {
        self.lost.notified().await;
    }

    pub(in crate::store) async fn until_told(&self) {
        self.told.notified().await;
    }

    /// Takes in which life a shard is in, and whether it learns.
    pub(super) fn heard(&self, shard: ShardId, incarnation: Incarnation, learning: bool) {
        let Some(member) = self.members.get(usize::from(shard.0)) else { return };
        let mut member = member.lock();
        if member.incarnation() == Incarnation(0) {
            // The first that is heard of it: no call was made, so there is nothing to assert.
            *member = Member::begun(incarnation, learning);
        } else {
            member.learn(incarnation);
        }
        let waits = !member.may_reserve();
        drop(member);
        if waits {
            self.lost.notify_one();
        }
    }

    /// Takes in that the last batch of an assert was executed in the life it named.
    pub(super) fn acknowledged(&self, shard: ShardId, named: Incarnation) {
        if let Some(member) = self.members.get(usize::from(shard.0)) {
            member.lock().acknowledge(named);
            self.told.notify_waiters();
        }
    }
}

/// The arguments of `assert.lua` after the caller's name.
pub(super) fn arguments(cmd: &mut Cmd, batch: &AssertBatch<'_>) {
    cmd.arg(u8::from(batch.last)).arg(batch.counters.len()).arg(batch.live.len());
    for process in batch.live {
        cmd.arg(process.0.to_be_bytes().as_slice());
    }
    for Remembered { window, anchor, assertion, .. } in batch.counters {
        forgotten_at(cmd, window);
        match anchor {
            Some(anchor) => time(cmd, *anchor),
            None => {
                cmd.arg("");
            }
        }
        match &assertion.cell {
            Some(own) => {
                cmd.arg(1);
                cell(cmd, own);
            }
            None => {
                cmd.arg(0);
            }
        }
        match &assertion.copy {
            Some(copy) => {
                cmd.arg(1);
                counter(cmd, copy);
            }
            None => {
                cmd.arg(0);
            }
        }
    }
    for RememberedRate { told, .. } in batch.rates {
        cmd.arg(told.len());
        for (in_ms, units) in told {
            cmd.arg((*in_ms).min(SPAN_MS_MAX)).arg((*units).min(NUMBER_MAX));
        }
    }
}

fn forgotten_at(cmd: &mut Cmd, window: &Window) {
    match window.end {
        Some(end) => time(cmd, end.plus_ms(end.since_ms(window.start).min(KEPT_MS_MAX))),
        None => {
            cmd.arg("");
        }
    }
}

fn counter(cmd: &mut Cmd, copy: &CounterCopy) {
    let CounterCopy { written_in, counter } = copy;
    for number in [written_in.0, counter.version, counter.limit, counter.generation, counter.folded]
    {
        cmd.arg(number.min(NUMBER_MAX));
    }
    cmd.arg(counter.cells.len());
    for (process, totals) in &counter.cells {
        cmd.arg(process.0.to_be_bytes().as_slice());
        cell(cmd, totals);
    }
}

/// The totals of a process, as scripts take them.
pub(super) fn cell(cmd: &mut Cmd, totals: &Cell) {
    let Cell { first_call, last_call, granted, returned, spent, local } = *totals;
    for total in [first_call, last_call, granted, returned, spent, local] {
        cmd.arg(total.min(NUMBER_MAX));
    }
}
