//! A client's socket with the deadlines that HTTP needs and hyper cannot tell apart.
//!
//! hyper has one header timeout, which also runs while a kept-alive connection is idle. Here the
//! head of a request has a deadline from its first byte, whatever drips in; an idle connection has
//! another; and a client that takes no answer has a third. Whether a request is under way, the
//! service says through a [`Gate`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, net};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::patience::{Patience, millis};

/// How long a client may leave an answer untaken where no API's deadline is known, in
/// milliseconds.
const WRITE_IDLE_MS: u64 = 30_000;

/// What the service tells the socket of its connection.
#[derive(Debug)]
pub(super) struct Gate {
    /// Parts of requests under way: the body coming in, the answer going out.
    open: AtomicU32,
    /// Requests begun.
    begun: AtomicU32,
    /// Whether a request was answered without its body being read.
    unread: AtomicBool,
    write_idle_ms: AtomicU64,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            unread: AtomicBool::new(false),
            write_idle_ms: AtomicU64::new(WRITE_IDLE_MS),
        })
    }

    /// A request began.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.busy()
    }

    fn busy(self: &Arc<Self>) -> Busy {
        self.open.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// How long the client may take nothing of an answer.
    pub(super) fn write_idle(&self, ms: u64) {
        self.write_idle_ms.store(ms, Ordering::Relaxed);
    }

    /// A request is answered without its body being read.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub(super) fn left_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }
}

/// Held while a part of a request is under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Gate>);

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.busy()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection without a request under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The first byte of a request.
    FirstByte,
    /// The rest of its head.
    Head,
}

/// The socket of one client.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: TcpStream,
    gate: Arc<Gate>,
    /// From the first byte of a head to its end.
    head_max: Duration,
    /// Without a byte between requests.
    idle_max: Duration,
    awaited: Awaited,
    /// The number of requests begun when `awaited` was true.
    seen: u32,
    reading: Patience,
    writing: Patience,
}

impl ClientIo {
    pub(super) fn new(
        stream: TcpStream,
        gate: Arc<Gate>,
        head_max: Duration,
        idle_max: Duration,
    ) -> Self {
        let (reading, writing) = (Patience::default(), Patience::default());
        let awaited = Awaited::FirstByte;
        Self { stream, gate, head_max, idle_max, awaited, seen: 0, reading, writing }
    }

    /// Closes for writing, and reads what still comes, for a while: closing with unread bytes
    /// would reset the connection, and the client might lose the answer.
    pub(super) async fn linger(mut self, bytes_max: usize, span: Duration) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let rest = async {
            let mut left = bytes_max;
            let mut buffer = [0; 4_096];
            self.stream.shutdown().await?;
            while let n @ 1.. = self.stream.read(&mut buffer).await? {
                left = left.saturating_sub(n);
                if left == 0 {
                    break;
                }
            }
            Ok::<(), io::Error>(())
        };
        // The client is answered: whatever goes wrong now concerns nobody.
        drop(tokio::time::timeout(span, rest).await);
    }

    /// A request ended, or none has begun yet: the next one is awaited afresh.
    fn notice(&mut self) {
        let begun = self.gate.begun.load(Ordering::Relaxed);
        if self.seen != begun {
            self.seen = begun;
            self.awaited = Awaited::FirstByte;
            self.reading.rest();
        }
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let span = match self.awaited {
            Awaited::FirstByte => self.idle_max,
            Awaited::Head => self.head_max,
        };
        match (self.reading.poll(cx, span), self.awaited) {
            (Poll::Pending, _) => Poll::Pending,
            // As if the client had closed: hyper then closes in good order.
            (Poll::Ready(()), Awaited::FirstByte) => Poll::Ready(Ok(())),
            (Poll::Ready(()), Awaited::Head) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let span = millis(self.gate.write_idle_ms.load(Ordering::Relaxed));
        self.writing.poll(cx, span).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if !this.gate.is_idle() {
            return polled;
        }
        this.notice();
        match polled {
            Poll::Ready(Ok(())) => {
                if before < buf.filled().len() && this.awaited == Awaited::FirstByte {
                    this.awaited = Awaited::Head;
                    this.reading.start(this.head_max);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_late(cx),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        if polled.is_pending() {
            return this.poll_stuck(cx);
        }
        this.writing.rest();
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        if polled.is_pending() {
            return this.poll_stuck(cx);
        }
        this.writing.rest();
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// An address as `X-Forwarded-For` spells it.
pub(super) fn plain_ip(ip: net::IpAddr) -> net::IpAddr {
    ip.to_canonical()
}
