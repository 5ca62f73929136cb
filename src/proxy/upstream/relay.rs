//! The body of an answer on its way back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::proxy::body::{BodyFault, Transfer};
use crate::proxy::head;
use crate::proxy::patience::Patience;
use crate::proxy::peer::Place;
use crate::proxy::upstream::Link;

/// The body of an upstream's answer, and the connection it comes from.
#[derive(Debug)]
pub(in crate::proxy) struct Relay {
    incoming: Incoming,
    link: Option<Box<Link>>,
    place: Place,
    idle: Duration,
    patience: Patience,
    transfer: Arc<Transfer>,
    seen: u64,
    ended: bool,
}

impl Relay {
    pub(in crate::proxy) fn new(
        incoming: Incoming,
        link: Box<Link>,
        place: Place,
        idle: Duration,
        transfer: Arc<Transfer>,
    ) -> Self {
        let (patience, seen) = (Patience::default(), transfer.bytes());
        Self { incoming, link: Some(link), place, idle, patience, transfer, seen, ended: false }
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The next piece, or the trailers.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Asking comes first: the connection reads only what was asked for.
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending() {
            if let Some(link) = &mut self.link {
                link.drive(cx);
            }
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let fault = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.rest();
                let trailers = match frame.into_trailers() {
                    Ok(trailers) => trailers,
                    Err(data) => return Poll::Ready(Some(Ok(data))),
                };
                self.ended = true;
                return Poll::Ready(head::trailers(trailers).map(|left| Ok(Frame::trailers(left))));
            }
            Poll::Ready(None) => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, upstream = %self.place.pool().authority, "an answer broke off");
                BodyFault::UpstreamBroken
            }
            Poll::Pending => {
                let bytes = self.transfer.bytes();
                if bytes != self.seen {
                    self.seen = bytes;
                    self.patience.rest();
                }
                if self.patience.poll(cx, self.idle).is_pending() {
                    return Poll::Pending;
                }
                BodyFault::UpstreamIdle
            }
        };
        self.link = None;
        Poll::Ready(Some(Err(fault)))
    }

    /// The answer is not read any further. Says whether it was read to its end; the connection is
    /// kept then, and closed otherwise.
    pub(in crate::proxy) fn finish(&mut self) -> bool {
        let whole = self.is_end_stream();
        if let Some(link) = self.link.take().filter(|_| whole) {
            self.place.pool().keep(link);
        }
        whole
    }
}
