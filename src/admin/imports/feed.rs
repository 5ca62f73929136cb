//! The file on its way from the connection to the thread that applies it. What waits in between
//! is bounded, so that a client sends no faster than lines are applied.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

/// The largest file, in bytes.
pub(super) const BYTES_MAX: usize = 1 << 30;
/// Chunks that wait: hyper makes them as large as what has arrived, some hundred KiB at most.
const CHUNKS_MAX: usize = 4;
/// How long a client may pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What is still read of a file that nobody wants any more, so that the client can read why.
const UNWANTED_MAX: usize = 64 << 20;

/// A part of the file, or its end.
#[derive(Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    End,
    TooLarge,
}

/// How the file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    All,
    /// The import was over before the file was.
    Unwanted,
    TooLarge,
    Slow,
    Broken,
}

pub(super) fn channel() -> (mpsc::Sender<Chunk>, mpsc::Receiver<Chunk>) {
    mpsc::channel(CHUNKS_MAX)
}

/// Hands a body over. Without a last chunk the import knows that the file broke off.
pub(super) async fn pump(mut body: Body, chunks: mpsc::Sender<Chunk>) -> Fed {
    let (mut received, mut unwanted) = (0_usize, 0_usize);
    loop {
        let data = match tokio::time::timeout(PAUSE_MAX, body.frame()).await {
            Err(_) => return Fed::Slow,
            Ok(Some(Err(_))) => return Fed::Broken,
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(None) => {
                let wanted = chunks.send(Chunk::End).await.is_ok();
                return if wanted { Fed::All } else { Fed::Unwanted };
            }
        };
        received = received.saturating_add(data.len());
        if BYTES_MAX < received {
            let _ended = chunks.send(Chunk::TooLarge).await;
            return Fed::TooLarge;
        }
        if chunks.is_closed() {
            unwanted = unwanted.saturating_add(data.len());
            if UNWANTED_MAX < unwanted {
                return Fed::Unwanted;
            }
        } else {
            // If it is over, that is seen in the next round.
            let _ended = chunks.send(Chunk::Data(data)).await;
        }
    }
}
