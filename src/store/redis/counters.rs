//! Counters as scripts: what goes in, what comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Cmd;

use crate::domain::counter::{CounterKey, ProcessId, Window};
use crate::domain::lease::{Cell, QuotaAnswer, QuotaCounter, QuotaState};
use crate::domain::ratelog::RateAnswer;
use crate::domain::time::UnixMs;
use crate::store::redis::fault::RedisFault;
use crate::store::redis::keys::Keys;
use crate::store::redis::link::Link;
use crate::store::redis::script::{Answer, Script};
use crate::store::{QuotaReserve, QuotaReserved, QuotaUsage, RateReserve, StoreError};

/// The largest number sent: scripts count in doubles, which are exact up to 2^53. A larger limit
/// counts as this one.
const NUMBER_MAX: u64 = (1 << 53) - 1;
/// The longest span sent, some 139 years: a time plus a span must stay exact too.
const SPAN_MS_MAX: u64 = 1 << 42;

/// The scripts, and the connection they run on.
#[derive(Debug)]
pub(super) struct Counters {
    link: Link,
    deadline: Duration,
    quota: Script,
    rate: Script,
    usage: Script,
}

impl Counters {
    pub(super) fn new(link: Link, deadline: Duration) -> Self {
        Self {
            link,
            deadline,
            quota: Script::new(include_str!("quota.lua")),
            rate: Script::new(include_str!("rate.lua")),
            usage: Script::new(include_str!("usage.lua")),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    pub(super) async fn quota(
        &self,
        keys: &Keys,
        reserve: &QuotaReserve,
    ) -> Result<QuotaReserved, StoreError> {
        let QuotaReserve { key, window, call } = reserve;
        let arguments = |cmd: &mut Cmd| {
            time(cmd, window.start);
            match window.end {
                Some(end) => time(cmd, end),
                None => {
                    cmd.arg("");
                }
            }
            cmd.arg(call.process.0.to_be_bytes().as_slice());
            let Cell { first_call, last_call, granted, returned, spent, local } = call.cell;
            for total in [first_call, last_call, granted, returned, spent, local] {
                cmd.arg(total.min(NUMBER_MAX));
            }
            for number in [call.limit, call.generation, call.want, call.need, call.least, call.live]
            {
                cmd.arg(number.min(NUMBER_MAX));
            }
        };
        let name = keys.quota(key, window);
        let ran = self.link.script(&self.quota, &[name], self.deadline, arguments).await;
        let mut answer = ran?;
        let now = UnixMs(answer.number()?);
        let ends_in_ms = window.end.map(|end| end.since_ms(now));
        let answer = match answer.number()? {
            EXECUTED => QuotaAnswer::State(state(&mut answer)?),
            GONE => QuotaAnswer::Gone,
            OTHER_WINDOW => return Ok(QuotaReserved::OtherWindow { now }),
            _ => return Err(RedisFault::Mismatch.met("read")),
        };
        Ok(QuotaReserved::Answer { answer, ends_in_ms })
    }

    /// Executes a call, at the server's time or at another one; and at which it was.
    pub(super) async fn rate(
        &self,
        keys: &Keys,
        reserve: &RateReserve,
        at: Option<UnixMs>,
    ) -> Result<(RateAnswer, UnixMs), StoreError> {
        let RateReserve { key, call } = reserve;
        let arguments = |cmd: &mut Cmd| {
            match at {
                Some(at) => time(cmd, at),
                None => {
                    cmd.arg("");
                }
            }
            cmd.arg(call.process.0.to_be_bytes().as_slice());
            cmd.arg(call.q.min(NUMBER_MAX));
            cmd.arg(call.rate.requests.get().min(NUMBER_MAX));
            cmd.arg(call.rate.per_ms.get().min(SPAN_MS_MAX));
            for number in [call.want, call.need, call.least] {
                cmd.arg(number.min(NUMBER_MAX));
            }
            cmd.arg(call.validity_ms.min(SPAN_MS_MAX));
            for close in &call.closes {
                cmd.arg(close.q.min(NUMBER_MAX)).arg(close.spent.min(NUMBER_MAX));
                cmd.arg(close.age_ms.min(SPAN_MS_MAX));
            }
        };
        let name = keys.rate(key);
        let ran = self.link.script(&self.rate, &[name], self.deadline, arguments).await;
        let mut answer = ran?;
        let now = UnixMs(answer.number()?);
        let answer = RateAnswer {
            q: call.q,
            granted: answer.number()?,
            free: answer.number()?,
            wait_ms: answer.number()?,
            reset_ms: answer.number()?,
        };
        Ok((answer, now))
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
        let mut counter = QuotaCounter {
            version: answer.number()?,
            limit: answer.number()?,
            generation: answer.number()?,
            folded: answer.number()?,
            cells: BTreeMap::new(),
        };
        while !answer.is_empty() {
            let process = answer.bytes()?.and_then(|bytes| bytes.try_into().ok());
            let process = process.ok_or_else(|| RedisFault::Mismatch.met("read"))?;
            counter.cells.insert(ProcessId(u64::from_be_bytes(process)), cell(&mut answer)?);
        }
        Ok(QuotaUsage { now, counter: Some(counter) })
    }
}

/// What `quota.lua` says became of a call.
const EXECUTED: u64 = 0;
const GONE: u64 = 1;
const OTHER_WINDOW: u64 = 2;

fn state(answer: &mut Answer) -> Result<QuotaState, StoreError> {
    Ok(QuotaState {
        cell: cell(answer)?,
        remaining: answer.number()?,
        held_by_others: answer.number()?,
        limit: answer.number()?,
    })
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

fn time(cmd: &mut Cmd, at: UnixMs) {
    cmd.arg(at.0.min(NUMBER_MAX));
}
