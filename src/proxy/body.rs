//! Bodies on their way through: counted, bounded, and never waited for without a deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::domain::denial::{Denial, Malformed};
use crate::proxy::downstream::Busy;
use crate::proxy::downstream::streams::Flow;
use crate::proxy::record::Record;
use crate::proxy::tunnel::Switched;
use crate::proxy::upstream::Relay;

mod request;

pub(super) use request::RequestBody;

/// Why a body was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    /// It is larger than the API takes.
    #[error("the request's body is too large")]
    TooLarge,
    /// The client sent nothing for too long.
    #[error("the request's body stopped coming")]
    Idle,
    /// The client went away, or its framing is broken.
    #[error("the request's body is broken")]
    Broken,
    /// The upstream sent nothing for too long.
    #[error("the answer's body stopped coming")]
    UpstreamIdle,
    /// The upstream went away, or its framing is broken.
    #[error("the answer's body is broken")]
    UpstreamBroken,
}

impl BodyFault {
    /// Why a request is refused whose body broke off.
    pub(super) fn denial(self) -> Denial {
        match self {
            Self::TooLarge => Denial::BodyTooLarge,
            Self::Idle => Denial::BodyTimeout,
            Self::Broken | Self::UpstreamIdle | Self::UpstreamBroken => {
                Denial::BadRequest(Malformed::Syntax)
            }
        }
    }
}

/// What becomes of a request's body, seen from outside.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    bytes: AtomicU64,
    /// Whether the client is what it waits for.
    waits: AtomicBool,
    /// Whether all of it was read from the client.
    whole: AtomicBool,
    fault: AtomicU8,
}

impl Transfer {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    pub(super) fn fault(&self) -> Option<BodyFault> {
        match self.fault.load(Ordering::Relaxed) {
            1 => Some(BodyFault::TooLarge),
            2 => Some(BodyFault::Idle),
            3 => Some(BodyFault::Broken),
            _ => None,
        }
    }

    fn end(&self) {
        self.waits.store(false, Ordering::Relaxed);
        self.whole.store(true, Ordering::Relaxed);
    }

    fn fail(&self, fault: BodyFault) -> BodyFault {
        let code = match fault {
            BodyFault::TooLarge => 1,
            BodyFault::Idle => 2,
            BodyFault::Broken => 3,
            BodyFault::UpstreamIdle | BodyFault::UpstreamBroken => 0,
        };
        self.waits.store(false, Ordering::Relaxed);
        self.fault.store(code, Ordering::Relaxed);
        fault
    }
}

/// An answer's body on its way to the client. When it is dropped, the request is over: its record
/// is written then.
#[derive(Debug)]
pub(super) struct AnswerBody {
    content: Content,
    record: Option<Box<Record>>,
    /// On HTTP/2: how it gets on.
    flow: Option<Arc<Flow>>,
    /// What it broke off with, while what came before it is still on its way.
    fault: Option<BodyFault>,
    _busy: Option<Busy>,
}

/// Where an answer's body comes from.
#[derive(Debug)]
pub(super) enum Content {
    /// There is none.
    Empty,
    /// The gateway.
    Text(Bytes),
    /// The upstream.
    Upstream(Box<Relay>),
    /// There is none: the upstream's connection is switched to another protocol.
    Switched(Box<Switched>),
}

impl AnswerBody {
    pub(super) fn new(
        content: Content,
        record: Box<Record>,
        busy: Busy,
        flow: Option<Arc<Flow>>,
    ) -> Self {
        if let Some(flow) = &flow {
            flow.begin();
        }
        Self { content, record: Some(record), flow, fault: None, _busy: Some(busy) }
    }

    /// A body that belongs to no record.
    pub(super) fn bare(content: Content) -> Self {
        Self { content, record: None, flow: None, fault: None, _busy: None }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let whole = match &mut self.content {
            Content::Empty | Content::Switched(_) => true,
            Content::Text(text) => text.is_empty(),
            Content::Upstream(relay) => relay.finish(),
        };
        if let Some(record) = &mut self.record {
            record.finish(whole);
            if std::thread::panicking() {
                record.panicked();
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        let polled = match &mut this.content {
            Content::Empty | Content::Switched(_) => Poll::Ready(None),
            Content::Text(text) if text.is_empty() => Poll::Ready(None),
            Content::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Content::Upstream(relay) => relay.poll_frame(cx),
        };
        if let Some(flow) = &this.flow {
            flow.ask(polled.is_pending());
        }
        if let Poll::Ready(Some(Err(fault))) = polled {
            // hyper drops what it has not flushed when a body fails. Let it flush first: the
            // client should see the answer as far as it came.
            this.fault = Some(fault);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let (Poll::Ready(Some(Ok(frame))), Some(record)) = (&polled, &mut this.record) {
            record.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty | Content::Switched(_) => true,
            Content::Text(text) => text.is_empty(),
            Content::Upstream(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty | Content::Switched(_) => SizeHint::with_exact(0),
            Content::Text(text) => {
                SizeHint::with_exact(u64::try_from(text.len()).unwrap_or(u64::MAX))
            }
            Content::Upstream(relay) => relay.size_hint(),
        }
    }
}
