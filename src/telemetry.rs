//! Logs: the tracing subscriber, and one line per request beside it. Nothing here ever waits for a
//! disk or a terminal on a thread that serves requests.

use std::io;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

mod access;

pub use access::{AccessLine, AccessLog, AccessLogGuard};

/// Log lines that wait for the writer, at most; what comes on top is dropped.
const LINES_WAITING_MAX: usize = 8_192;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the log filter cannot be read")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Somebody else set up a log in this process.
    #[error("there is a log already")]
    Taken,
    /// The access log cannot be written.
    #[error("the access log cannot be opened")]
    Access(#[source] io::Error),
}

/// Writes what is left of the log when it is dropped. Keep it to the end of `main`.
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "held for its drop")] WorkerGuard);

/// Sets up the process's log: plain text with fields, on standard error.
///
/// # Errors
/// When the filter cannot be read, or there is a log already.
pub fn init(config: &LogConfig) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(TelemetryError::Filter)?;
    let (writer, guard): (NonBlocking, _) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .try_init()
        .map_err(|_taken| TelemetryError::Taken)?;
    Ok(Guard(guard))
}

/// An error with everything that caused it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
