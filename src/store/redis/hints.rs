//! Hints between gateways, over a channel of the server's. It keeps nothing: who is not there when
//! one is given does not hear it.

use std::time::Duration;

use futures_util::StreamExt;
use redis::Cmd;
use redis::aio::PubSub;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};

use crate::domain::counter::ProcessId;
use crate::store::hint::{Hint, HintKind};
use crate::store::redis::fault::RedisFault;
use crate::store::redis::keys::Keys;
use crate::store::redis::link::Link;
use crate::store::redis::options::Endpoint;
use crate::store::redis::server::CONNECT_FACTOR;

/// Hints that wait, at most, in each direction. Those on top are dropped.
const WAITING_MAX: usize = 1_024;
/// A connection on which nothing is heard for so long is made anew: it may be dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The pause between two attempts to listen.
const PAUSE: Duration = Duration::from_secs(1);

/// Both directions.
#[derive(Debug)]
pub(in crate::store) struct Hints {
    given: mpsc::Sender<Hint>,
    /// One listens at a time.
    heard: Mutex<mpsc::Receiver<Hint>>,
}

/// How hints are heard.
struct Listener {
    endpoints: Vec<Endpoint>,
    channel: String,
    patience: Duration,
    heard: mpsc::Sender<Hint>,
}

impl Hints {
    /// Gives and hears hints on `on`, for as long as that runs.
    pub(super) fn start(
        (keys, link): (&Keys, Link),
        endpoints: Vec<Endpoint>,
        patience: Duration,
        on: &Handle,
    ) -> Self {
        let (given, giving) = mpsc::channel(WAITING_MAX);
        let (hearing, heard) = mpsc::channel(WAITING_MAX);
        let channel = keys.hints();
        on.spawn(publish(link, channel.clone(), patience, giving));
        let patience = patience.saturating_mul(CONNECT_FACTOR);
        on.spawn(Listener { endpoints, channel, patience, heard: hearing }.run());
        Self { given, heard: Mutex::new(heard) }
    }

    pub(in crate::store) fn give(&self, hint: Hint) {
        if self.given.try_send(hint).is_err() {
            tracing::debug!("too many hints wait: one is dropped");
        }
    }

    pub(in crate::store) async fn next(&self) -> Hint {
        match self.heard.lock().await.recv().await {
            Some(hint) => hint,
            // The store is going.
            None => std::future::pending().await,
        }
    }
}

async fn publish(
    link: Link,
    channel: String,
    patience: Duration,
    mut giving: mpsc::Receiver<Hint>,
) {
    while let Some(hint) = giving.recv().await {
        let mut cmd = Cmd::new();
        cmd.arg("PUBLISH").arg(&channel).arg(encode(&hint));
        if let Err(error) = link.command(&cmd, patience).await {
            tracing::debug!(%error, "a hint was not given");
        }
    }
}

impl Listener {
    async fn run(self) {
        let mut told = false;
        while !self.heard.is_closed() {
            match self.listen().await {
                Ok(()) => told = false,
                Err(fault) => {
                    if !std::mem::replace(&mut told, true) {
                        let cause = std::error::Error::source(&fault).map(ToString::to_string);
                        tracing::warn!(error = %fault, cause, "hints of others are not heard");
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Hears hints until the connection ends.
    async fn listen(&self) -> Result<(), RedisFault> {
        let mut channel = self.subscribe().await?.into_on_message();
        while let Ok(Some(message)) = timeout(SILENCE_MAX, channel.next()).await {
            if let Some(hint) = decode(message.get_payload_bytes())
                && self.heard.try_send(hint).is_err()
            {
                tracing::debug!("too many hints wait: one is not heard");
            }
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<PubSub, RedisFault> {
        let mut last = RedisFault::NoUrl;
        for endpoint in &self.endpoints {
            let address = || endpoint.address.clone();
            let unreachable = |source| RedisFault::Unreachable { address: address(), source };
            let subscribing = async {
                let client = endpoint.client()?;
                let mut channel = client.get_async_pubsub().await.map_err(unreachable)?;
                channel.subscribe(&self.channel).await.map_err(unreachable)?;
                Ok(channel)
            };
            let deadline_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
            let silent = || RedisFault::Silent { address: address(), deadline_ms };
            match timeout(self.patience, subscribing).await.unwrap_or_else(|_| Err(silent())) {
                Ok(channel) => return Ok(channel),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }
}

/// A letter, the process in hexadecimal digits, the counter's name.
fn encode(hint: &Hint) -> String {
    let kind = match hint.kind {
        HintKind::Short => 's',
        HintKind::Freed => 'f',
    };
    format!("{kind}{:016x}{}", hint.from.0, hint.key)
}

/// `None`: a later version's, or nobody's.
fn decode(bytes: &[u8]) -> Option<Hint> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (kind, rest) = text.split_at_checked(1)?;
    let (from, key) = rest.split_at_checked(16)?;
    let kind = match kind {
        "s" => HintKind::Short,
        "f" => HintKind::Freed,
        _ => return None,
    };
    let from = ProcessId(u64::from_str_radix(from, 16).ok()?);
    Some(Hint { from, kind, key: key.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_read_back() {
        let key: crate::domain::counter::CounterKey = "c7/q//e86400000".parse().unwrap();
        for (kind, from) in [(HintKind::Short, u64::MAX), (HintKind::Freed, 1)] {
            let hint = Hint { from: ProcessId(from), kind, key: key.clone() };
            assert_eq!(decode(encode(&hint).as_bytes()), Some(hint));
        }
        for odd in ["", "s", "s0000000000000001", "x0000000000000001c7/q", "s000000000000000gc7/q"]
        {
            assert_eq!(decode(odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(decode(b"\xff"), None);
    }
}
