//! The counters of this machine: in memory, in many small maps, with the journal behind them.
//!
//! The arithmetic is that of `domain::lease` and `domain::ratelog`; here are the locks, the time
//! and the order: change, journal, answer.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::domain::counter::{CounterKey, ProcessId, Window};
use crate::domain::lease::{Cell, QuotaAnswer, QuotaCounter};
use crate::domain::limit::Rate;
use crate::domain::ratelog::{RateAnswer, RateCall, RateLog};
use crate::domain::shard::Incarnation;
use crate::domain::time::{BootNs, UnixMs};
use crate::store::embedded::codec;
use crate::store::embedded::journal::Journal;
use crate::store::embedded::recovery::Recovered;
use crate::store::{QuotaReserve, QuotaReserved, QuotaUsage, RateReserve, StoreError};

/// Maps the counters are spread over. Each has its lock, and sweeping or copying one of them
/// holds up only its own callers: with a million counters, for 4,000 of them. As many as a byte
/// has values: one byte of a hash names a map.
pub(super) const SHARDS: usize = 256;
/// A window is kept at most this long past its end, in milliseconds.
const KEPT_MS_MAX: u64 = 24 * 3_600 * 1_000;

/// A quota counter is named by its key and its window.
pub(super) type QuotaKey = (CounterKey, Window);

#[derive(Debug)]
pub(super) struct Counters {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
    /// The latest end of a forgotten window. No earlier time is believed, so that a wall clock
    /// that steps back cannot open a forgotten window again, with fresh units.
    forgotten_until: AtomicU64,
    /// The steady time when the store was opened; see [`Self::steady_ms`].
    steady_base_ms: u64,
    opened_at: BootNs,
}

#[derive(Debug, Default)]
struct Shard {
    quotas: HashMap<QuotaKey, QuotaSlot>,
    rates: HashMap<CounterKey, RateSlot>,
    /// Effects on their way to the journal; kept for its capacity.
    effects: Vec<u8>,
}

#[derive(Debug, Default)]
struct QuotaSlot {
    counter: QuotaCounter,
    /// The journal record of its last change.
    number: u64,
    /// The steady time since which the window is over by the wall clock, once somebody looked.
    over_since_ms: Option<u64>,
}

#[derive(Debug)]
struct RateSlot {
    log: RateLog,
    rate: Rate,
    /// The journal record of its last change.
    number: u64,
}

impl Counters {
    /// The counters as a journal left them.
    pub(super) fn new(recovered: Recovered, clock: Arc<dyn Clock>) -> Self {
        let counters = Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            forgotten_until: AtomicU64::new(recovered.forgotten_until.0),
            steady_base_ms: clock.unix().0.max(recovered.steady_ms),
            opened_at: clock.boot(),
            clock,
        };
        let (wall, steady_ms) = (counters.wall(), counters.steady_ms());
        for (key, image) in recovered.quotas {
            let end = key.1.end.filter(|end| *end <= wall);
            let over_since_ms = end.map(|end| steady_ms.saturating_sub(wall.since_ms(end)));
            let slot = QuotaSlot { counter: image.counter, number: image.number, over_since_ms };
            counters.shard(&key.0).lock().quotas.insert(key, slot);
        }
        for (key, image) in recovered.rates {
            let mut slot =
                RateSlot { log: RateLog::default(), rate: image.rate, number: image.number };
            for (leaves_ms, units) in image.counting(counters.steady_base_ms) {
                slot.log.restore(leaves_ms, units);
            }
            counters.shard(&key).lock().rates.insert(key, slot);
        }
        counters
    }

    /// Executes a call, journals what it changed, and answers with the number of the record that
    /// must be durable first.
    pub(super) fn quota(
        &self,
        reserve: &QuotaReserve,
        journal: &Journal,
    ) -> Result<(QuotaReserved, u64), StoreError> {
        let mut shard = self.shard(&reserve.key).lock();
        // Read under the lock: `sweep` raises the mark before it forgets anything in this shard.
        let now = self.wall();
        if !reserve.window.contains(now) {
            return Ok((QuotaReserved::OtherWindow { now }, 0));
        }
        let key = (reserve.key.clone(), reserve.window);
        let ends_in_ms = reserve.window.end.map(|end| end.since_ms(now));
        let (answer, number) = match shard.quotas.get_mut(&key) {
            Some(slot) => (slot.reserve(reserve, journal)?, slot.number),
            None => {
                let mut slot = QuotaSlot::default();
                let answer = slot.reserve(reserve, journal)?;
                let number = slot.number;
                // A call that changed nothing leaves nothing behind.
                if slot.counter != QuotaCounter::default() {
                    shard.quotas.insert(key, slot);
                }
                (answer, number)
            }
        };
        let (incarnation, copy) = (Incarnation(0), None);
        Ok((QuotaReserved::Answer { answer, ends_in_ms, incarnation, copy }, number))
    }

    /// Executes a call, journals what it changed, and answers with the number of the record that
    /// must be durable first.
    ///
    /// When the journal fails, the log keeps the change, which the caller never hears of: units
    /// are wasted until they leave, and none is handed out twice.
    pub(super) fn rate(
        &self,
        reserve: &RateReserve,
        journal: &Journal,
    ) -> Result<(RateAnswer, u64), StoreError> {
        let mut shard = self.shard(&reserve.key).lock();
        let Shard { rates, effects, .. } = &mut *shard;
        let (key, call, now_ms) = (&reserve.key, &reserve.call, self.steady_ms());
        if !rates.contains_key(key) {
            let slot = RateSlot { log: RateLog::default(), rate: call.rate, number: 0 };
            rates.insert(key.clone(), slot);
        }
        let Some(slot) = rates.get_mut(key) else {
            return Err(StoreError::Damaged { what: "a map of counters" });
        };
        slot.rate = call.rate;
        effects.clear();
        let answer =
            slot.log.reserve_recorded(call, now_ms, |effect| codec::put_effect(effects, &effect));
        if !effects.is_empty() {
            slot.number = journal.append(|number, buffer| {
                codec::put_rate(buffer, number, key, call.rate, now_ms);
                buffer.extend_from_slice(effects);
            })?;
        }
        Ok((answer, slot.number))
    }

    /// What a quota counter says. A counter that was never used, or is forgotten, says nothing.
    pub(super) fn usage(&self, key: &CounterKey, window: &Window) -> QuotaUsage {
        let shard = self.shard(key).lock();
        let slot = shard.quotas.get(&(key.clone(), *window));
        QuotaUsage { now: self.wall(), counter: slot.map(|slot| slot.counter.clone()) }
    }

    /// What is free of a rate.
    pub(super) fn rate_usage(&self, key: &CounterKey, rate: Rate) -> RateAnswer {
        let log = self.shard(key).lock().rates.get(key).map(|slot| slot.log.clone());
        log.unwrap_or_default().reserve(&RateCall::look(rate), self.steady_ms())
    }

    /// Forgets, in one of the [`SHARDS`] maps, windows that are long over and rates of which
    /// nothing counts any more.
    pub(super) fn sweep(&self, index: usize) {
        let Some(shard) = self.shards.get(index) else { return };
        let mut shard = shard.lock();
        let (now, steady_ms) = (self.wall(), self.steady_ms());
        shard.quotas.retain(|(_, window), slot| match window.end {
            Some(end) if slot.is_forgotten(window, end, now, steady_ms) => {
                self.forgotten_until.fetch_max(end.0, Ordering::SeqCst);
                false
            }
            Some(_) | None => true,
        });
        shard.rates.retain(|_, slot| {
            slot.log.entries(slot.rate).any(|(leaves_ms, _)| steady_ms < leaves_ms)
        });
        // A burst of short windows must not keep its memory for good.
        let quotas = shard.quotas.len().saturating_mul(2);
        let rates = shard.rates.len().saturating_mul(2);
        if quotas < shard.quotas.capacity() / 4 {
            shard.quotas.shrink_to(quotas);
        }
        if rates < shard.rates.capacity() / 4 {
            shard.rates.shrink_to(rates);
        }
    }

    /// Appends records to `buffer` that say all that one of the [`SHARDS`] maps holds.
    pub(super) fn copy_shard(&self, index: usize, buffer: &mut Vec<u8>) {
        let Some(shard) = self.shards.get(index) else { return };
        let shard = shard.lock();
        let now_ms = self.steady_ms();
        for ((key, window), QuotaSlot { counter, number, .. }) in &shard.quotas {
            codec::frame(buffer, |body| {
                codec::put_quota(body, *number, (key, window), counter, counter.cells.iter());
            });
        }
        for (key, slot) in &shard.rates {
            codec::frame(buffer, |body| {
                codec::put_rate(body, slot.number, key, slot.rate, now_ms);
                for effect in slot.log.effects(slot.rate) {
                    codec::put_effect(body, &effect);
                }
            });
        }
    }

    /// The latest end of a window that was forgotten.
    pub(super) fn forgotten_until(&self) -> UnixMs {
        UnixMs(self.forgotten_until.load(Ordering::SeqCst))
    }

    /// Milliseconds by a clock that neither a step of the wall clock nor a restart sets back. It
    /// starts at the wall clock's time, or where the journal ended if that is later.
    ///
    /// A wall clock that stepped forward while the store was closed lets the rates of the run
    /// before go early, at most once per step: nothing here knows how long it was closed.
    pub(super) fn steady_ms(&self) -> u64 {
        self.steady_base_ms.saturating_add(self.clock.boot().since_ms(self.opened_at))
    }

    /// How many counters are in memory: quotas, then rates.
    pub(super) fn len(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(quotas, rates), shard| {
            let shard = shard.lock();
            (quotas.saturating_add(shard.quotas.len()), rates.saturating_add(shard.rates.len()))
        })
    }

    /// The wall clock, but never before the end of a forgotten window.
    fn wall(&self) -> UnixMs {
        self.clock.unix().max(self.forgotten_until())
    }

    fn shard(&self, key: &CounterKey) -> &Mutex<Shard> {
        // One byte of the hash: there are as many maps as it has values.
        let [index, ..] = self.hasher.hash_one(key).to_le_bytes();
        let shard = self.shards.get(usize::from(index));
        shard.unwrap_or_else(|| unreachable!("256 maps, and a byte has 256 values"))
    }
}

impl QuotaSlot {
    /// Whether the window has been over for its own length or a day, whichever is less.
    ///
    /// It must be over by the wall clock for so long by the steady one. So a wall clock that is
    /// far ahead for a while does not make the store forget the windows of the present, and then
    /// stand still, when the clock is put right, until the last of them ends.
    fn is_forgotten(&mut self, window: &Window, end: UnixMs, now: UnixMs, steady_ms: u64) -> bool {
        if now < end {
            self.over_since_ms = None;
            return false;
        }
        let since_ms = *self.over_since_ms.get_or_insert(steady_ms);
        end.since_ms(window.start).min(KEPT_MS_MAX) <= steady_ms.saturating_sub(since_ms)
    }

    /// Executes a call and journals the counter if a reader after a crash needs to know.
    fn reserve(
        &mut self,
        reserve: &QuotaReserve,
        journal: &Journal,
    ) -> Result<QuotaAnswer, StoreError> {
        let process = reserve.call.process;
        let before = Before::of(&self.counter, process);
        let answer = self.counter.reserve(&reserve.call);
        if !before.differs_from(&Before::of(&self.counter, process)) {
            return Ok(answer);
        }
        let counter = &self.counter;
        let cell = counter.cells.get_key_value(&process);
        let name = (&reserve.key, &reserve.window);
        let appended = journal.append(|number, buffer| {
            codec::put_quota(buffer, number, name, counter, cell.into_iter());
        });
        match appended {
            Ok(number) => {
                self.number = number;
                Ok(answer)
            }
            Err(error) => {
                before.restore(&mut self.counter, process);
                Err(error)
            }
        }
    }
}

/// A counter before a call, as far as a call of `process` can change it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Before {
    version: u64,
    limit: u64,
    generation: u64,
    folded: u64,
    cell: Option<Cell>,
}

impl Before {
    fn of(counter: &QuotaCounter, process: ProcessId) -> Self {
        let QuotaCounter { version, limit, generation, folded, ref cells } = *counter;
        Self { version, limit, generation, folded, cell: cells.get(&process).copied() }
    }

    /// Whether units or the limit changed. The version and the numbers of calls alone matter
    /// only to processes that are alive, so a refused call is not written.
    fn differs_from(&self, after: &Self) -> bool {
        let units = |state: &Self| {
            let cell = state.cell.unwrap_or_default();
            let cell = Some(Cell { first_call: 0, last_call: 0, ..cell });
            Self { version: 0, cell, ..*state }
        };
        units(self) != units(after)
    }

    fn restore(self, counter: &mut QuotaCounter, process: ProcessId) {
        counter.version = self.version;
        counter.limit = self.limit;
        counter.generation = self.generation;
        counter.folded = self.folded;
        match self.cell {
            Some(cell) => counter.cells.insert(process, cell),
            None => counter.cells.remove(&process),
        };
    }
}
