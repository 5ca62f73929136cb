//! One multiplexed connection that is remade when it breaks.
//!
//! The circuit breaker is the connection itself: [`FAILURES_MAX`] calls in a row without an
//! answer, or one broken pipe, close it, and from then on calls fail at once instead of waiting.
//! The link opens and checks a new one in the background, with growing, jittered pauses. So the
//! trial call of a half-open breaker is the link's own, and no request pays for it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::store::StoreError;
use crate::store::redis::durability::Durability;
use crate::store::redis::fault::RedisFault;
use crate::store::redis::options::Endpoint;
use crate::store::redis::script::{Answer, Script, send_all};
use crate::store::redis::server::{self, Opened};

/// So many calls in a row without an answer close a connection: one may be a slow script of
/// somebody else, three are a server that hangs.
const FAILURES_MAX: u32 = 3;
/// An idle connection is tried this often, so that a dead one is noticed before a request is.
const PING_EVERY: Duration = Duration::from_secs(1);
/// The pause after the first failed attempt to connect; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause: what a server that is back waits for us at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Whether a link asks by itself if its connection is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Every second.
    Pings,
    /// Never: calls wait on purpose, and a ping would wait behind them.
    Calls,
}

/// How a link reaches its server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long a call waits for its answer.
    pub(super) timeout: Duration,
    /// When a write counts as done.
    pub(super) durability: Durability,
    pub(super) watch: Watch,
    /// Whether it is to run transactions.
    pub(super) transacts: bool,
}

/// A connection for calls of one sort. Cloning is shallow.
#[derive(Clone, Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoints: Vec<Endpoint>,
    terms: Terms,
    live: ArcSwapOption<Live>,
    broken: Notify,
    /// Numbers calls, so that an answer can be told from another call's.
    calls: AtomicU64,
}

/// The connection in use.
#[derive(Debug)]
struct Live {
    connection: MultiplexedConnection,
    /// Its number: no other of this link has it.
    number: u64,
    /// Whether it may run transactions.
    transacts: AtomicBool,
    /// Calls in a row that got no answer.
    failures: AtomicU32,
}

impl Link {
    /// A link that has no connection yet.
    pub(super) fn new(endpoints: Vec<Endpoint>, terms: Terms) -> Self {
        let live = ArcSwapOption::empty();
        let (broken, calls) = (Notify::new(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { endpoints, terms, live, broken, calls }) }
    }

    /// Makes the first connection.
    pub(super) async fn connect(&self, runtime: &Handle) -> Result<(), RedisFault> {
        // On that runtime, because the task that serves a connection lives where it was made.
        let first = Arc::clone(&self.shared);
        let connected = runtime.spawn(async move { first.connect().await });
        let warnings = connected.await.unwrap_or(Err(RedisFault::Away))?;
        if self.shared.terms.watch == Watch::Pings {
            warnings.into_iter().for_each(|warning| tracing::warn!(warning, "about redis"));
        }
        Ok(())
    }

    /// From here on makes a connection, on `runtime`, whenever there is none.
    pub(super) fn keep(&self, runtime: &Handle) {
        runtime.spawn(keep(Arc::clone(&self.shared)));
    }

    /// Runs a script, with a deadline for the whole of it.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: &[impl AsRef<[u8]>],
        deadline: Duration,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Answer, StoreError> {
        self.call((script, Durability::Memory), keys, deadline, arguments).await
    }

    /// Runs a script that writes; its answer comes when that counts as done. Without an answer it
    /// may be written or not.
    pub(super) async fn write(
        &self,
        script: &Script,
        keys: &[impl AsRef<[u8]>],
        deadline: Duration,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Answer, StoreError> {
        self.call((script, self.shared.terms.durability), keys, deadline, arguments).await
    }

    async fn call(
        &self,
        (script, durability): (&Script, Durability),
        keys: &[impl AsRef<[u8]>],
        deadline: Duration,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Answer, StoreError> {
        // Nothing is encoded for a server that is away.
        let live = self.shared.live()?;
        let echo = self.shared.number();
        let mut cmd = script.call(keys, echo);
        arguments(&mut cmd);
        let mut connection = live.connection.clone();
        let then = self.shared.confirmation(durability, deadline);
        let run = script.run(&cmd, then.as_ref(), &mut connection);
        let answered = timeout(deadline, run).await;
        let (value, confirmed) = self.shared.judge(&live, deadline, answered)?;
        let answer = self.shared.answer(&live, echo, value)?;
        durability.check(&confirmed).map_err(|fault| fault.met("written"))?;
        Ok(answer)
    }

    /// Runs commands in a transaction, on the connection with this number: the answer of the last, which is
    /// a script's. As of [`Self::write`], it comes when what was written counts as done. `cmds` are made
    /// with the number that scripts echo. `None` where there is no such connection, or the server does not
    /// have it: then nothing is done.
    pub(super) async fn transaction(
        &self,
        connection: u64,
        deadline: Duration,
        cmds: impl FnOnce(u64) -> Vec<Cmd>,
    ) -> Result<Option<Answer>, StoreError> {
        let live = self.shared.live()?;
        if live.number != connection || !live.transacts.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let echo = self.shared.number();
        let durability = self.shared.terms.durability;
        let then = self.shared.confirmation(durability, deadline);
        let confirms = then.is_some();
        let all = [redis::cmd("MULTI")].into_iter().chain(cmds(echo));
        let all = all.chain([redis::cmd("EXEC")]).chain(then);
        let mut connection = live.connection.clone();
        let answered = timeout(deadline, send_all(all, &mut connection)).await;
        let mut answers = self.shared.judge(&live, deadline, answered)?;
        let value = |value: Value| {
            value.extract_error().map_err(|error| self.shared.failed(&live, error).met("reached"))
        };
        let confirmed = if confirms { answers.pop() } else { None };
        let executed = answers.pop().unwrap_or(Value::Nil);
        if let Some(begun @ Value::ServerError(_)) = answers.into_iter().next() {
            // What followed was no transaction.
            self.shared.close(&live);
            return value(begun).map(|_begun| None);
        }
        if let Value::ServerError(error) = &executed
            && error.code() == "EXECABORT"
        {
            tracing::info!(%error, "redis refused a transaction: no more until it is connected anew");
            live.transacts.store(false, Ordering::Relaxed);
            return Ok(None);
        }
        // What else became of its commands, the last of them says.
        let last = if let Value::Array(mut all) = executed { all.pop() } else { Some(executed) };
        let last = value(last.unwrap_or(Value::Nil))?;
        let answer = self.shared.answer(&live, echo, last)?;
        let confirmed = value(confirmed.unwrap_or(Value::Nil))?;
        durability.check(&confirmed).map_err(|fault| fault.met("written"))?;
        Ok(Some(answer))
    }

    /// Runs a plain command.
    pub(super) async fn command(&self, cmd: &Cmd, deadline: Duration) -> Result<Value, StoreError> {
        let live = self.shared.live()?;
        let mut connection = live.connection.clone();
        let answered = timeout(deadline, cmd.query_async(&mut connection)).await;
        if answered.is_err() && self.shared.terms.watch == Watch::Calls {
            // A call that waits on purpose has been patient enough.
            self.shared.close(&live);
        }
        self.shared.judge(&live, deadline, answered)
    }

    /// Whether there is a connection now.
    pub(super) fn is_up(&self) -> bool {
        self.shared.live.load().is_some()
    }
}

impl Shared {
    fn live(&self) -> Result<Arc<Live>, StoreError> {
        self.live.load_full().ok_or_else(|| RedisFault::Away.met("reached"))
    }

    /// A number for a call or a connection.
    fn number(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// What is sent behind a write. Whoever calls next waits behind it, so it never takes longer than a short
    /// call.
    fn confirmation(&self, durability: Durability, deadline: Duration) -> Option<Cmd> {
        durability.confirmation(self.terms.timeout.min(deadline))
    }

    /// What a script answered to call number `echo`.
    fn answer(&self, live: &Arc<Live>, echo: u64, value: Value) -> Result<Answer, StoreError> {
        Answer::to(echo, value, live.number).ok_or_else(|| {
            tracing::error!("redis answered another call: the connection is closed");
            self.close(live);
            RedisFault::Mismatch.met("read")
        })
    }

    /// Closes a connection, unless another one has taken its place.
    fn close(&self, live: &Arc<Live>) {
        self.live.rcu(|now| now.clone().filter(|now| !Arc::ptr_eq(now, live)));
        self.broken.notify_one();
    }

    /// Tries the servers in order, and takes the first that will do.
    async fn connect(&self) -> Result<Vec<&'static str>, RedisFault> {
        let mut last = RedisFault::NoUrl;
        for endpoint in &self.endpoints {
            match server::open(endpoint, &self.terms).await {
                Ok(Opened { connection, transacts, warnings }) => {
                    let (transacts, failures) = (AtomicBool::new(transacts), AtomicU32::new(0));
                    let live = Live { connection, number: self.number(), transacts, failures };
                    self.live.store(Some(Arc::new(live)));
                    return Ok(warnings);
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Counts what became of a call.
    fn judge<T>(
        &self,
        live: &Arc<Live>,
        deadline: Duration,
        answered: Result<Result<T, RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        match answered {
            Ok(Ok(value)) => {
                live.failures.store(0, Ordering::Relaxed);
                Ok(value)
            }
            Ok(Err(error)) => Err(self.failed(live, error).met("reached")),
            Err(_elapsed) => {
                let failures = live.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if FAILURES_MAX <= failures {
                    self.close(live);
                }
                let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                Err(StoreError::Timeout { deadline_ms })
            }
        }
    }

    fn failed(&self, live: &Arc<Live>, error: RedisError) -> RedisFault {
        if let ErrorKind::Server(
            ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown,
        ) = error.kind()
        {
            // It is not, or not yet, the primary: look for it anew.
            self.close(live);
        }
        match error.code() {
            Some(code) => RedisFault::Refused { code: code.to_owned(), source: error },
            None => {
                self.close(live);
                RedisFault::Broken(error)
            }
        }
    }

    /// Returns when there is no connection.
    async fn until_broken(&self) {
        let Terms { timeout: deadline, watch, .. } = self.terms;
        let ping = redis::cmd("PING");
        while let Some(live) = self.live.load_full() {
            tokio::select! {
                () = self.broken.notified() => {}
                () = sleep(PING_EVERY), if watch == Watch::Pings => {
                    let mut connection = live.connection.clone();
                    let pinged = ping.query_async::<Value>(&mut connection);
                    let pinged = timeout(deadline, pinged).await;
                    // The verdict is in the count of failures.
                    let _counted = self.judge(&live, deadline, pinged);
                }
            }
        }
    }
}

/// Makes the connection anew whenever it is lost. Ends with its runtime.
async fn keep(shared: Arc<Shared>) {
    loop {
        shared.until_broken().await;
        tracing::warn!("there is no connection to redis");
        let mut pause = PAUSE_MIN;
        while let Err(fault) = shared.connect().await {
            if pause == PAUSE_MIN || pause == PAUSE_MAX {
                let cause = fault.source().map(ToString::to_string);
                tracing::warn!(error = %fault, cause, "redis cannot be used");
            }
            sleep(jittered(pause)).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
        tracing::info!("connected to redis");
    }
}

/// Between half and all of a pause, so that gateways do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or(0) % 512;
    pause.saturating_mul(part.saturating_add(512)) / 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_jittered_within_their_upper_half() {
        for _ in 0..100 {
            let pause = jittered(PAUSE_MAX);
            assert!(PAUSE_MAX / 2 <= pause && pause < PAUSE_MAX, "{pause:?}");
        }
    }
}
