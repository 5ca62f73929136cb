//! A request's body on its way upstream: piece by piece, or at once when all of it is there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::domain::api::Api;
use crate::proxy::body::{BodyFault, Transfer};
use crate::proxy::downstream::Busy;
use crate::proxy::head;
use crate::proxy::patience::{Pace, millis};

/// A request's body on its way upstream. Most have none, and all are moved about: what only a body
/// needs lies elsewhere.
#[derive(Debug)]
pub(in crate::proxy) struct RequestBody {
    rest: Option<Box<Rest>>,
    transfer: Arc<Transfer>,
    _busy: Option<Busy>,
}

/// What is left of a body.
#[derive(Debug)]
enum Rest {
    Coming(Coming),
    There { data: Bytes, trailers: Option<HeaderMap> },
}

/// What is still to come of a body.
#[derive(Debug)]
struct Coming {
    inner: Incoming,
    /// Whether it comes over HTTP/2: there its end has to be told from a stream that was given up.
    http2: bool,
    left: u64,
    pace: Pace,
    /// What came of it while all of it was waited for: it goes first. It grows with what comes, whatever
    /// length the client has told.
    kept: Vec<u8>,
}

/// A piece of a body, or its trailers, where it is not over.
type Piece = Option<Result<Frame<Bytes>, BodyFault>>;

impl RequestBody {
    /// No body.
    pub(in crate::proxy) fn empty() -> Self {
        let transfer = Arc::<Transfer>::default();
        transfer.whole.store(true, Ordering::Relaxed);
        Self { rest: None, transfer, _busy: None }
    }

    /// One that is there.
    pub(in crate::proxy) fn of(data: Bytes) -> Self {
        let rest = (!data.is_empty()).then(|| Rest::There { data, trailers: None });
        Self { rest: rest.map(Box::new), ..Self::empty() }
    }

    /// At most as large as the API has it, and at least as fast as `rate_min`, in bytes a second.
    pub(in crate::proxy) fn new(
        inner: Incoming,
        http2: bool,
        api: &Api,
        rate_min: u64,
        busy: Busy,
    ) -> Self {
        let none = Self { _busy: Some(busy), ..Self::empty() };
        if inner.is_end_stream() {
            return none;
        }
        none.transfer.whole.store(false, Ordering::Relaxed);
        let pace = Pace::new(millis(api.timeouts.idle_ms), rate_min);
        let coming = Coming { inner, http2, left: api.body_bytes_max, pace, kept: Vec::new() };
        Self { rest: Some(Box::new(Rest::Coming(coming))), ..none }
    }

    pub(in crate::proxy) fn transfer(&self) -> Arc<Transfer> {
        Arc::clone(&self.transfer)
    }

    /// Ready once all of it is there, or it broke off.
    pub(in crate::proxy) fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BodyFault>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(Ok(())) };
        let Rest::Coming(coming) = &mut **rest else { return Poll::Ready(Ok(())) };
        let there = ready!(coming.poll_whole(cx, &self.transfer));
        Poll::Ready(match there {
            Ok(there) => {
                **rest = there;
                Ok(())
            }
            Err(fault) => {
                self.rest = None;
                Err(fault)
            }
        })
    }

    /// What it can be made from once more, where all of it is there.
    pub(in crate::proxy) fn spare(&self) -> Option<Bytes> {
        match self.rest.as_deref() {
            None => Some(Bytes::new()),
            Some(Rest::There { data, trailers: None }) => Some(data.clone()),
            Some(Rest::There { trailers: Some(_), .. } | Rest::Coming(_)) => None,
        }
    }
}

impl Coming {
    fn poll_next(&mut self, cx: &mut Context<'_>, transfer: &Transfer) -> Poll<Piece> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "a request's body broke off");
                return Poll::Ready(Some(Err(transfer.fail(BodyFault::Broken))));
            }
            // RST_STREAM with NO_ERROR: hyper takes it for the end.
            Poll::Ready(None) if self.http2 && !self.inner.is_end_stream() => {
                return Poll::Ready(Some(Err(transfer.fail(BodyFault::Broken))));
            }
            Poll::Ready(None) => {
                transfer.end();
                return Poll::Ready(None);
            }
            Poll::Pending => {
                transfer.waits.store(true, Ordering::Relaxed);
                return self.pace.poll(cx).map(|()| Some(Err(transfer.fail(BodyFault::Idle))));
            }
        };
        Poll::Ready(match frame.into_data() {
            Ok(data) => Some(self.take(data, transfer).map(Frame::data)),
            Err(frame) => {
                transfer.end();
                let trailers = frame.into_trailers().ok().and_then(head::trailers);
                trailers.map(|left| Ok(Frame::trailers(left)))
            }
        })
    }

    fn take(&mut self, data: Bytes, transfer: &Transfer) -> Result<Bytes, BodyFault> {
        transfer.waits.store(false, Ordering::Relaxed);
        let len = len(&data);
        self.pace.came(len);
        let left = self.left.checked_sub(len);
        self.left = left.ok_or_else(|| transfer.fail(BodyFault::TooLarge))?;
        transfer.bytes.fetch_add(len, Ordering::Relaxed);
        // Where the length is known, nobody asks for what comes after the last piece.
        transfer.whole.store(self.inner.is_end_stream(), Ordering::Relaxed);
        Ok(data)
    }

    fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
        transfer: &Transfer,
    ) -> Poll<Result<Rest, BodyFault>> {
        let trailers = loop {
            let frame = match ready!(self.poll_next(cx, transfer)) {
                None => break None,
                Some(piece) => piece,
            };
            let data = match frame.map(Frame::into_data) {
                Ok(Ok(data)) => data,
                Ok(Err(frame)) => break frame.into_trailers().ok(),
                Err(fault) => return Poll::Ready(Err(fault)),
            };
            if self.inner.is_end_stream() && self.kept.is_empty() {
                // Mostly all of it comes at once.
                return Poll::Ready(Ok(Rest::There { data, trailers: None }));
            }
            self.kept.extend_from_slice(&data);
            if self.inner.is_end_stream() {
                break None;
            }
        };
        let data = std::mem::take(&mut self.kept).into();
        Poll::Ready(Ok(Rest::There { data, trailers }))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Piece> {
        let this = self.get_mut();
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        match &mut **rest {
            Rest::Coming(coming) if !coming.kept.is_empty() => {
                let kept = std::mem::take(&mut coming.kept);
                Poll::Ready(Some(Ok(Frame::data(kept.into()))))
            }
            Rest::Coming(coming) => {
                let piece = ready!(coming.poll_next(cx, &this.transfer));
                if !piece.as_ref().is_some_and(|piece| piece.as_ref().is_ok_and(Frame::is_data)) {
                    this.rest = None;
                }
                Poll::Ready(piece)
            }
            Rest::There { data, .. } if !data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(data)))))
            }
            Rest::There { trailers, .. } => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.rest.as_deref() {
            None => true,
            Some(Rest::Coming(coming)) => coming.kept.is_empty() && coming.inner.is_end_stream(),
            Some(Rest::There { data, trailers }) => data.is_empty() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.as_deref() {
            None => SizeHint::with_exact(0),
            Some(Rest::Coming(coming)) => match coming.inner.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(rest.saturating_add(len(&coming.kept))),
                None => SizeHint::default(),
            },
            Some(Rest::There { data, .. }) => SizeHint::with_exact(len(data)),
        }
    }
}

fn len(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
