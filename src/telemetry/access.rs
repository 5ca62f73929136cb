//! The access log: one JSON line per request, written by a thread of its own.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::IntCounter;
use serde::Serialize;

use crate::config;

/// Lines that wait for the writer, at most: a second of a busy gateway. Further ones are dropped
/// and counted.
const LINES_WAITING_MAX: usize = 65_536;
/// Lines are written together up to this size, in bytes.
const BATCH_BYTES: usize = 64 * 1024;
/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(10);

/// One request. It has no token and no query string.
#[derive(Debug, Serialize)]
pub struct AccessLine<'a> {
    /// When it began, in unix milliseconds.
    pub ts: u64,
    /// The request id.
    pub id: &'a str,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The path as it was sent, without its query.
    pub path: &'a str,
    /// The API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<&'a str>,
    /// The status answered; 499 where the client went away before there was one.
    pub status: u16,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Why it would have been refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadowed: Option<&'static str>,
    /// By which rule it was admitted although the store was away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_away: Option<&'static str>,
    /// The credential's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<u64>,
    /// When its limits were charged, in microseconds of the machine's time since boot: no clock step
    /// moves it, and it puts the requests of all gateways of one machine in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charged_us: Option<u64>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Time in the gateway up to the head of the answer, in microseconds.
    pub overhead_us: u64,
    /// Time that the rest of a small body was waited for before anything else, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_wait_ms: Option<u64>,
    /// Time up to the head of the upstream's answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<u64>,
    /// The target, by its position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<usize>,
    /// Whether the answer was broken off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aborted: bool,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Close,
}

/// Where lines go. Cloning is shallow.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    sender: SyncSender<Message>,
    dropped: IntCounter,
}

/// Writes what is waiting when it is dropped, and closes the log.
#[derive(Debug)]
pub struct AccessLogGuard {
    log: AccessLog,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// No access log.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the log. Lines that had to be dropped are counted in `dropped`.
    ///
    /// # Errors
    /// When the file cannot be appended to, or there is no thread.
    pub fn open(
        to: &config::AccessLog,
        dropped: IntCounter,
    ) -> Result<(Self, AccessLogGuard), super::TelemetryError> {
        let target: Box<dyn Write + Send> = match to {
            config::AccessLog::Off => {
                return Ok((Self::off(), AccessLogGuard { log: Self::off(), writer: None }));
            }
            config::AccessLog::Stderr => Box::new(io::stderr()),
            config::AccessLog::File(path) => {
                let mut options = OpenOptions::new();
                let file = options.append(true).create(true).mode(0o640).open(path);
                Box::new(file.map_err(super::TelemetryError::Access)?)
            }
        };
        let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&receiver, target))
            .map_err(super::TelemetryError::Access)?;
        let log = Self(Some(Arc::new(Queue { sender, dropped })));
        let guard = AccessLogGuard { log: log.clone(), writer: Some(writer) };
        Ok((log, guard))
    }

    /// Whether anybody reads lines: no need to make one otherwise.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues a line. Never waits.
    pub fn write(&self, line: &AccessLine<'_>) {
        let Some(queue) = &self.0 else { return };
        let mut text = Vec::with_capacity(384);
        // Plain members and strings: there is nothing in it that could fail.
        if serde_json::to_writer(&mut text, line).is_err() {
            return;
        }
        text.push(b'\n');
        match queue.sender.try_send(Message::Line(text)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => queue.dropped.inc(),
        }
    }
}

impl Drop for AccessLogGuard {
    fn drop(&mut self) {
        if let (Some(queue), Some(writer)) = (&self.log.0, self.writer.take())
            && queue.sender.send(Message::Close).is_ok()
        {
            // A writer that panicked has nothing left to write.
            drop(writer.join());
        }
    }
}

fn write_all(lines: &Receiver<Message>, mut to: Box<dyn Write + Send>) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    let mut closing = false;
    while !closing {
        let mut next = lines.recv().ok();
        loop {
            match next {
                Some(Message::Line(line)) => batch.extend_from_slice(&line),
                Some(Message::Close) => closing = true,
                None => break,
            }
            if closing || BATCH_BYTES <= batch.len() {
                break;
            }
            next = lines.try_recv().ok();
        }
        if batch.is_empty() && !closing {
            return;
        }
        if let Err(error) = to.write_all(&batch).and_then(|()| to.flush()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
        batch.clear();
        if !closing {
            // Lines gather meanwhile: the writer is woken a hundred times a second at most, and
            // not by every request.
            std::thread::sleep(GATHER);
        }
    }
}
