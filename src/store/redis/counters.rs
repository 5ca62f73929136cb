//! Counters as scripts: what goes in, what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::Cmd;

use crate::clock::Clock;
use crate::domain::counter::{CounterKey, ProcessId, Subject, Window};
use crate::domain::lease::{Cell, QuotaAnswer, QuotaCounter, QuotaState};
use crate::domain::ratelog::RateAnswer;
use crate::domain::shard::{CounterCopy, Incarnation};
use crate::domain::time::UnixMs;
use crate::store::redis::fault::RedisFault;
use crate::store::redis::keys::Keys;
use crate::store::redis::link::Link;
use crate::store::redis::script::{Answer, Script};
use crate::store::redis::shards::{self, Shards};
use crate::store::redis::steps::Steps;
use crate::store::shards::{AssertBatch, Remembered, ShardId};
use crate::store::{QuotaReserve, QuotaReserved, QuotaUsage, RateReserve, StoreError};

/// The largest number sent: scripts count in doubles, which are exact up to 2^53. A larger limit
/// counts as this one.
pub(super) const NUMBER_MAX: u64 = (1 << 53) - 1;
/// The longest span sent, some 139 years: a time plus a span must stay exact too.
pub(super) const SPAN_MS_MAX: u64 = 1 << 42;

/// One in so many calls of a process names the processes that are not long gone, so that cells of
/// others can be folded. It only saves memory.
const FOLDING_CALLS: u64 = 64;

/// The scripts, and the connection they run on.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) link: Link,
    pub(super) deadline: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) steps: Steps,
    pub(super) shards: Shards,
    /// Processes that were seen lately; all others are long gone.
    recent: ArcSwap<BTreeSet<ProcessId>>,
    pub(super) quota: Script,
    rate: Script,
    usage: Script,
    poll: Script,
    assert: Script,
    pub(super) anchor: Script,
    /// Whether the server takes only keys of one slot in a script.
    pub(super) has_slots: AtomicBool,
    get: Script,
}

/// A script on counters, with the head that all of them share.
macro_rules! on_shard {
    ($file:literal) => {
        Script::new(concat!(include_str!("shard.lua"), include_str!($file)))
    };
}

impl Counters {
    pub(super) fn new(link: Link, deadline: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            link,
            deadline,
            clock,
            steps: Steps::new(),
            shards: Shards::new(),
            recent: ArcSwap::default(),
            quota: on_shard!("quota.lua"),
            rate: on_shard!("rate.lua"),
            usage: Script::new(include_str!("usage.lua")),
            poll: on_shard!("poll.lua"),
            assert: on_shard!("assert.lua"),
            anchor: on_shard!("anchor.lua"),
            has_slots: AtomicBool::new(false),
            get: Script::new(include_str!("get.lua")),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Says which processes were seen lately.
    pub(super) fn seen(&self, recent: BTreeSet<ProcessId>) {
        self.recent.store(Arc::new(recent));
    }

    pub(super) async fn quota(
        &self,
        keys: &Keys,
        reserve: &QuotaReserve,
    ) -> Result<QuotaReserved, StoreError> {
        let QuotaReserve { key, window, call } = reserve;
        let shard = self.shards.of(key);
        let member = self.shards.member(shard);
        if !member.may_reserve() {
            return Ok(QuotaReserved::Learn);
        }
        let arguments = |cmd: &mut Cmd| {
            quota_call(cmd, member.incarnation(), reserve);
            if call.cell.last_call.is_multiple_of(FOLDING_CALLS) {
                for process in self.recent.load().iter() {
                    cmd.arg(process.0.to_be_bytes().as_slice());
                }
            }
        };
        let names = [keys.shard(shard), keys.quota(key, window)];
        let sent = self.clock.boot();
        let ran = self.link.write(&self.quota, &names, self.deadline, arguments).await;
        let mut answer = ran?;
        let now = UnixMs(answer.number()?);
        // Windows are told by the server's clock, whatever it reads.
        let _stepped = self.steps.note(sent, now, self.clock.boot());
        let ends_in_ms = window.end.map(|end| end.since_ms(now));
        let incarnation = member.incarnation();
        let (answer, copy) = match answer.number()? {
            EXECUTED => {
                let cell = cell(&mut answer)?;
                let (remaining, held_by_others) = (answer.number()?, answer.number()?);
                let copy = copy(&mut answer)?;
                let limit = copy.counter.limit;
                let state = QuotaState { cell, remaining, held_by_others, limit };
                (QuotaAnswer::State(state), copy)
            }
            GONE => (QuotaAnswer::Gone, copy(&mut answer)?),
            OTHER_WINDOW => return Ok(QuotaReserved::OtherWindow { now }),
            LEARN => {
                self.shards.heard(shard, Incarnation(answer.number()?), true);
                return Ok(QuotaReserved::Learn);
            }
            _ => return Err(RedisFault::Mismatch.met("read")),
        };
        let copy = Some(Box::new(copy));
        Ok(QuotaReserved::Answer { answer, ends_in_ms, incarnation, copy })
    }

    /// Executes a call, at the server's time or at another one; and at which it was.
    pub(super) async fn rate(
        &self,
        keys: &Keys,
        reserve: &RateReserve,
        at: Option<UnixMs>,
    ) -> Result<(RateAnswer, UnixMs), StoreError> {
        let RateReserve { key, call } = reserve;
        let shard = self.shards.of(key);
        let known = self.shards.member(shard).incarnation();
        let tells = if call.q == 0 { 0 } else { self.steps.untold(shard) };
        let arguments = |cmd: &mut Cmd| {
            caller(cmd, known, call.process);
            match at {
                Some(at) => time(cmd, at),
                None => {
                    cmd.arg("");
                }
            }
            cmd.arg(call.q.min(NUMBER_MAX));
            cmd.arg(call.rate.requests.get().min(NUMBER_MAX));
            cmd.arg(call.rate.per_ms.get().min(SPAN_MS_MAX));
            for number in [call.want, call.need, call.least] {
                cmd.arg(number.min(NUMBER_MAX));
            }
            cmd.arg(call.validity_ms.min(SPAN_MS_MAX)).arg(u8::from(tells != 0));
            for close in &call.closes {
                cmd.arg(close.q.min(NUMBER_MAX)).arg(close.spent.min(NUMBER_MAX));
                cmd.arg(close.age_ms.min(SPAN_MS_MAX));
            }
        };
        let names = [keys.shard(shard), keys.rate(key), keys.told(key)];
        let sent = self.clock.boot();
        // A look changes nothing, and nothing has to be confirmed.
        let ran = match call.q {
            0 => self.link.script(&self.rate, &names, self.deadline, arguments).await,
            _ => self.link.write(&self.rate, &names, self.deadline, arguments).await,
        };
        let mut answer = ran?;
        self.steps.told(shard, tells);
        let now = UnixMs(answer.number()?);
        let stepped = at.is_none() && self.steps.note(sent, now, self.clock.boot());
        let incarnation = Incarnation(answer.number()?);
        if known < incarnation {
            self.shards.heard(shard, incarnation, true);
        }
        let granted = answer.number()?;
        let answer = RateAnswer {
            q: call.q,
            // What had left too early may have been granted again.
            granted: if stepped { 0 } else { granted },
            free: answer.number()?,
            wait_ms: answer.number()?,
            reset_ms: answer.number()?,
        };
        Ok((answer, now))
    }

    /// Looks which life each shard is in. In a store that was never used (`fresh`) shards begin
    /// open: nothing can have been lost.
    pub(super) async fn poll(&self, keys: &Keys, fresh: bool) -> Result<(), StoreError> {
        let one = async |shard: ShardId| {
            let (tells, sent) = (self.steps.untold(shard), self.clock.boot());
            let arguments = |cmd: &mut Cmd| {
                caller(cmd, self.shards.member(shard).incarnation(), ProcessId(0));
                cmd.arg(u8::from(fresh)).arg(u8::from(tells != 0));
            };
            let name = [keys.shard(shard)];
            let ran = self.link.script(&self.poll, &name, self.deadline, arguments).await;
            let mut answer = ran?;
            self.steps.told(shard, tells);
            let incarnation = Incarnation(answer.number()?);
            self.shards.heard(shard, incarnation, answer.number()? != 0);
            let _stepped = self.steps.note(sent, UnixMs(answer.number()?), self.clock.boot());
            Ok(())
        };
        join_all(Shards::all().map(one)).await.into_iter().collect()
    }

    pub(super) async fn assert(
        &self,
        keys: &Keys,
        shard: ShardId,
        batch: &AssertBatch<'_>,
    ) -> Result<(), StoreError> {
        let named = self.shards.member(shard).incarnation();
        let mut names = vec![keys.shard(shard)];
        for Remembered { key, window, .. } in batch.counters {
            names.extend([keys.quota(key, window), keys.anchor(&key.subject)]);
        }
        names.extend(batch.rates.iter().map(|known| keys.told(&known.key)));
        let arguments = |cmd: &mut Cmd| {
            caller(cmd, named, batch.process);
            shards::arguments(cmd, batch);
        };
        let ran = self.link.script(&self.assert, &names, self.deadline, arguments).await;
        let mut answer = ran?;
        let incarnation = Incarnation(answer.number()?);
        match answer.number()? {
            0 => self.shards.heard(shard, incarnation, true),
            _ if batch.last => self.shards.acknowledged(shard, named),
            _ => {}
        }
        Ok(())
    }

    /// When a subject's rolling periods began.
    pub(super) async fn first_use(
        &self,
        keys: &Keys,
        of: &Subject,
    ) -> Result<Option<UnixMs>, StoreError> {
        let name = [keys.anchor(of)];
        let mut answer = self.link.script(&self.get, &name, self.deadline, |_| {}).await?;
        let Some(text) = answer.bytes()? else { return Ok(None) };
        let instant = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        instant.map(UnixMs).map(Some).ok_or(StoreError::Damaged { what: "an anchor" })
    }

    pub(super) async fn usage(
        &self,
        keys: &Keys,
        key: &CounterKey,
        window: &Window,
    ) -> Result<QuotaUsage, StoreError> {
        let name = keys.quota(key, window);
        let mut answer = self.link.script(&self.usage, &[name], self.deadline, |_| {}).await?;
        let now = UnixMs(answer.number()?);
        if answer.is_empty() {
            return Ok(QuotaUsage { now, counter: None });
        }
        let (version, limit) = (answer.number()?, answer.number()?);
        let (generation, folded) = (answer.number()?, answer.number()?);
        let cells = cells(&mut answer)?;
        let counter = QuotaCounter { version, limit, generation, folded, cells };
        Ok(QuotaUsage { now, counter: Some(counter) })
    }
}

/// What `quota.lua` says became of a call.
pub(super) const EXECUTED: u64 = 0;
pub(super) const GONE: u64 = 1;
pub(super) const OTHER_WINDOW: u64 = 2;
pub(super) const LEARN: u64 = 3;

/// What each call on a shard begins with.
fn caller(cmd: &mut Cmd, known: Incarnation, process: ProcessId) {
    cmd.arg(known.0.min(NUMBER_MAX)).arg(process.0.to_be_bytes().as_slice());
}

/// One call as `quota.lua` takes it.
pub(super) fn quota_call(cmd: &mut Cmd, known: Incarnation, reserve: &QuotaReserve) {
    let QuotaReserve { window, call, .. } = reserve;
    caller(cmd, known, call.process);
    time(cmd, window.start);
    match window.end {
        Some(end) => time(cmd, end),
        None => {
            cmd.arg("");
        }
    }
    shards::cell(cmd, &call.cell);
    for number in [call.limit, call.generation, call.want, call.need, call.least, call.live] {
        cmd.arg(number.min(NUMBER_MAX));
    }
}

/// The whole counter at the end of an answer.
fn copy(answer: &mut Answer) -> Result<CounterCopy, StoreError> {
    let (limit, written_in) = (answer.number()?, Incarnation(answer.number()?));
    let (version, generation, folded) = (answer.number()?, answer.number()?, answer.number()?);
    let cells = cells(answer)?;
    let counter = QuotaCounter { version, limit, generation, folded, cells };
    Ok(CounterCopy { written_in, counter })
}

fn cells(answer: &mut Answer) -> Result<BTreeMap<ProcessId, Cell>, StoreError> {
    let mut cells = BTreeMap::new();
    while !answer.is_empty() {
        let process = answer.bytes()?.and_then(|bytes| bytes.try_into().ok());
        let process = process.ok_or_else(|| RedisFault::Mismatch.met("read"))?;
        cells.insert(ProcessId(u64::from_be_bytes(process)), cell(answer)?);
    }
    Ok(cells)
}

fn cell(answer: &mut Answer) -> Result<Cell, StoreError> {
    Ok(Cell {
        first_call: answer.number()?,
        last_call: answer.number()?,
        granted: answer.number()?,
        returned: answer.number()?,
        spent: answer.number()?,
        local: answer.number()?,
    })
}

pub(super) fn time(cmd: &mut Cmd, at: UnixMs) {
    cmd.arg(at.0.min(NUMBER_MAX));
}
