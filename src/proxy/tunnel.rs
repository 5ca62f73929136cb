//! A connection that was switched to another protocol: bytes go both ways, and nothing looks at
//! them.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::proxy::downstream::stream::Stream;
use crate::proxy::downstream::{Busy, ClientIo};
use crate::proxy::patience::Patience;
use crate::proxy::peer::Place;
use crate::proxy::record::Record;

/// What is read at once, in bytes. A connection takes two of them.
const PIECE: usize = 16 * 1024;

/// The upstream's side of a switched connection, and what belongs to the request that asked for it.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) upstream: Stream,
    /// What the upstream sent right behind its answer.
    pub(super) ahead: Bytes,
    /// Without a byte either way.
    pub(super) idle: Duration,
    /// The target is busy with it as long as it lasts.
    pub(super) place: Place,
}

/// One that the client knows of.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) switched: Box<Switched>,
    pub(super) record: Box<Record>,
    pub(super) busy: Busy,
}

impl Tunnel {
    /// Carries bytes until both sides have closed, one has broken off, or both are silent for too
    /// long.
    pub(super) async fn run(self, client: ClientIo) {
        let Self { switched, mut record, busy } = self;
        let Switched { upstream, ahead, idle, place } = *switched;
        let (from_client, to_client) = tokio::io::split(client);
        let (from_upstream, to_upstream) = tokio::io::split(upstream);
        let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
        let both = async {
            tokio::try_join!(
                carry(from_client, to_upstream, Bytes::new(), &up),
                carry(from_upstream, to_client, ahead, &down),
            )
        };
        let mut patience = Patience::default();
        let mut seen = 0;
        // Polled whenever one of the others is.
        let silence = poll_fn(|cx| {
            let now = up.load(Ordering::Relaxed).saturating_add(down.load(Ordering::Relaxed));
            if std::mem::replace(&mut seen, now) != now {
                patience.rest();
            }
            patience.poll(cx, idle)
        });
        let whole = tokio::select! {
            biased;
            done = both => done.is_ok(),
            () = silence => false,
        };
        record.carried(up.into_inner(), down.into_inner());
        record.finish(whole);
        drop((record, busy, place));
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ahead: Bytes,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = BytesMut::from(ahead);
    loop {
        if buffer.is_empty() {
            buffer.reserve(PIECE);
            if from.read_buf(&mut buffer).await? == 0 {
                return to.shutdown().await;
            }
        }
        let n = buffer.len();
        to.write_all_buf(&mut buffer).await?;
        to.flush().await?;
        count.fetch_add(u64::try_from(n).unwrap_or(0), Ordering::Relaxed);
    }
}
