//! The registry of gateways as a script.

use std::time::Duration;

use redis::Cmd;

use crate::domain::counter::ProcessId;
use crate::store::redis::fault::RedisFault;
use crate::store::redis::keys::Keys;
use crate::store::redis::link::Link;
use crate::store::redis::script::{Answer, Script};
use crate::store::registry::{Heartbeat, Peer};
use crate::store::{Generation, StoreError};

/// For how long a silent gateway is remembered, in milliseconds.
const KEPT_MS: u64 = 3_600_000;
/// Gateways told of at most: one that is started again and again leaves many runs behind.
const PEERS_MAX: usize = 256;

/// The script, and the connection it runs on.
#[derive(Debug)]
pub(super) struct Registry {
    link: Link,
    deadline: Duration,
    heartbeat: Script,
}

impl Registry {
    pub(super) fn new(link: Link, deadline: Duration) -> Self {
        Self { link, deadline, heartbeat: Script::new(include_str!("heartbeat.lua")) }
    }

    pub(super) async fn heartbeat(
        &self,
        keys: &Keys,
        own: &Heartbeat,
    ) -> Result<Vec<Peer>, StoreError> {
        let said = format!("{} {}", own.applied.0, own.name);
        let mut answer = self.call(keys, own.process, &said).await?;
        let mut peers = Vec::new();
        while !answer.is_empty() {
            let process = answer.bytes()?.unwrap_or_default();
            let (silent_ms, said) = (answer.number()?, answer.bytes()?.unwrap_or_default());
            peers.push(peer(&process, silent_ms, &said).ok_or_else(mismatch)?);
        }
        Ok(peers)
    }

    pub(super) async fn sign_off(&self, keys: &Keys, process: ProcessId) -> Result<(), StoreError> {
        self.call(keys, process, "").await.map(|_| ())
    }

    async fn call(
        &self,
        keys: &Keys,
        process: ProcessId,
        says: &str,
    ) -> Result<Answer, StoreError> {
        let arguments = |cmd: &mut Cmd| {
            cmd.arg(process.0.to_be_bytes().as_slice()).arg(says).arg(KEPT_MS).arg(PEERS_MAX);
        };
        let names = [&keys.spoke, &keys.said];
        self.link.script(&self.heartbeat, &names, self.deadline, arguments).await
    }
}

fn peer(process: &[u8], silent_ms: u64, said: &[u8]) -> Option<Peer> {
    let process = ProcessId(u64::from_be_bytes(process.try_into().ok()?));
    let (applied, name) = std::str::from_utf8(said).ok()?.split_once(' ')?;
    let applied = Generation(applied.parse().ok()?);
    Some(Peer { process, name: name.to_owned(), applied, silent_ms })
}

fn mismatch() -> StoreError {
    RedisFault::Mismatch.met("read")
}
