//! A client's socket with the deadlines that HTTP needs and hyper cannot tell apart.
//!
//! hyper has one header timeout, which also runs while a kept-alive connection is idle, and none
//! for finding out which HTTP is spoken. Here the first byte has a deadline; the head of a request
//! has one from its first byte, whatever drips in; an idle connection has another; and a client
//! that takes no answer has a fourth. Whether a request is under way, the service says through a
//! [`Gate`]. On HTTP/2 the frames are counted as well, see [`frames`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, mem};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use crate::metrics::Cut;
use crate::proxy::patience::{Patience, millis};

pub(super) mod door;
mod frames;
mod gate;
mod proxy_protocol;
pub(super) mod stream;
pub(super) mod streams;

use frames::{Frames, PREFACE};
pub(super) use gate::{Busy, Gate};
use stream::Stream;

/// How much is read to find out which HTTP is spoken, in bytes: mostly the whole first request.
const SNIFF_BYTES: usize = 4_096;
/// How long a client that was told to open no further streams may stay without one.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    /// To the first byte.
    pub(super) first: Duration,
    /// From the first byte of a head to its end.
    pub(super) head: Duration,
    /// Without a request.
    pub(super) idle: Duration,
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
    stream: Stream,
    /// Read from the stream, to find out which HTTP is spoken, and not taken yet.
    ahead: Bytes,
    gate: Arc<Gate>,
    spans: Spans,
    awaited: Awaited,
    /// The number of requests begun when `awaited` was true.
    seen: u32,
    /// Whether the client was told to open no further streams when `reading` began.
    closing: bool,
    reading: Patience,
    writing: Patience,
    /// On HTTP/2.
    frames: Option<Box<Frames>>,
}

impl ClientIo {
    pub(super) fn new(stream: Stream, gate: Arc<Gate>, spans: Spans) -> Self {
        Self {
            stream,
            ahead: Bytes::new(),
            gate,
            spans,
            awaited: Awaited::FirstByte,
            seen: 0,
            closing: false,
            reading: Patience::default(),
            writing: Patience::default(),
            frames: None,
        }
    }

    /// Whether the client speaks HTTP/2 without having said so: its first bytes tell.
    ///
    /// # Errors
    /// When the connection breaks, or the deadlines are over.
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut read = BytesMut::with_capacity(SNIFF_BYTES);
        let http2 = loop {
            let n = self.read_buf(&mut read).await?;
            let there = read.len().min(PREFACE.len());
            if n == 0 || read.get(..there) != PREFACE.get(..there) {
                break false;
            }
            if there == PREFACE.len() {
                break true;
            }
        };
        self.ahead = read.freeze();
        Ok(http2)
    }

    /// From here on HTTP/2 is spoken.
    pub(super) fn count_frames(&mut self, resets_max: u64) {
        self.frames = Some(Box::new(Frames::new(resets_max, Instant::now())));
        self.awaited = Awaited::FirstByte;
        self.reading.rest();
    }

    /// Gives back what was read and not looked at.
    pub(super) fn unread(&mut self, bytes: &Bytes) {
        if !bytes.is_empty() {
            self.ahead = [bytes.as_ref(), self.ahead.as_ref()].concat().into();
        }
    }

    /// Closes for writing, and reads what still comes, for a while: closing with unread bytes
    /// would reset the connection, and the client might lose the answer.
    pub(super) async fn linger(mut self, bytes_max: usize, span: Duration) {
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

    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..n).unwrap_or_default());
        self.ahead.advance(n);
        Poll::Ready(Ok(()))
    }

    /// A request ended, or none has begun yet: the next one is awaited afresh.
    fn notice(&mut self) {
        let begun = self.gate.begun();
        if self.seen != begun {
            self.seen = begun;
            self.awaited = Awaited::FirstByte;
            self.reading.rest();
        }
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let span = match self.awaited {
            Awaited::FirstByte if self.seen == 0 => self.spans.first,
            Awaited::FirstByte => self.spans.idle,
            Awaited::Head => self.spans.head,
        };
        match (self.reading.poll(cx, span), self.awaited) {
            (Poll::Pending, _) => Poll::Pending,
            // As if the client had closed: hyper then closes in good order.
            (Poll::Ready(()), Awaited::FirstByte) => {
                if self.seen == 0 {
                    self.gate.cut(Cut::FirstByte);
                }
                Poll::Ready(Ok(()))
            }
            (Poll::Ready(()), Awaited::Head) => self.cut(Cut::Head),
        }
    }

    fn cut<T>(&self, why: Cut) -> Poll<io::Result<T>> {
        self.gate.cut(why);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let span = millis(self.gate.write_idle_ms());
        match self.writing.poll(cx, span) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => self.cut(Cut::Untaken),
        }
    }

    /// Bytes of frames came in.
    fn count(&mut self, bytes: &[u8]) -> Result<(), io::Error> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        if frames.read(bytes, Instant::now).is_err() {
            self.gate.cut(Cut::Flood);
            return Err(io::Error::other("too many frames of a kind"));
        }
        let awaited = if frames.in_headers() { Awaited::Head } else { Awaited::FirstByte };
        if mem::replace(&mut self.awaited, awaited) != awaited {
            self.reading.rest();
            if awaited == Awaited::Head {
                self.reading.start(self.spans.head);
            }
        }
        Ok(())
    }

    /// Nothing came in on an HTTP/2 connection. Whatever else comes, half a header list and no
    /// request at all have their deadlines.
    fn poll_late_http2(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.awaited == Awaited::Head {
            return match self.reading.poll(cx, self.spans.head) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => self.cut(Cut::Head),
            };
        }
        if !self.gate.is_idle() {
            self.reading.rest();
            return Poll::Pending;
        }
        let begun = self.gate.begun();
        if mem::replace(&mut self.seen, begun) != begun {
            self.reading.rest();
        }
        loop {
            if mem::replace(&mut self.closing, self.gate.is_closing()) != self.closing {
                self.reading.rest();
            }
            let span = if self.closing { GOODBYE } else { self.spans.idle };
            match (self.reading.poll(cx, span), self.closing) {
                (Poll::Pending, _) => return Poll::Pending,
                (Poll::Ready(()), false) => self.gate.close(),
                (Poll::Ready(()), true) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        self.writing.rest();
        if let (Some(frames), Poll::Ready(Ok(n))) = (&mut self.frames, polled) {
            frames.wrote(*n);
        }
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
        let polled = this.poll_fill(cx, buf);
        if this.frames.is_some() {
            if polled.is_pending() {
                return this.poll_late_http2(cx);
            }
            this.count(buf.filled().get(before..).unwrap_or_default())?;
            return polled;
        }
        if !this.gate.is_idle() {
            return polled;
        }
        this.notice();
        match polled {
            Poll::Ready(Ok(())) => {
                if before < buf.filled().len() && this.awaited == Awaited::FirstByte {
                    this.awaited = Awaited::Head;
                    this.reading.rest();
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
        this.wrote(&polled);
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
        this.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        // TLS keeps what the socket does not take.
        if polled.is_pending() && matches!(this.stream, Stream::Tls(_)) {
            return this.poll_stuck(cx).map_ok(|_none| ());
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        if polled.is_pending() {
            return this.poll_stuck(cx).map_ok(|_none| ());
        }
        polled
    }
}
