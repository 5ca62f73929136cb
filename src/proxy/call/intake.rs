//! A request's body before it goes upstream: waited for where it is small, and read to its end where
//! the request is refused.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::Version;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::domain::api::{Api, BODY_RATE_MIN};
use crate::enforce::{Facts, Refusal};
use crate::metrics::Metrics;
use crate::proxy::body::RequestBody;
use crate::proxy::call::{Call, overloaded, refusal};

/// A refused request's body is read to its end up to this size, in bytes, so that the connection
/// can go on.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// And for so long: it mostly came together with the head.
const DRAIN_MAX: Duration = Duration::from_millis(50);

/// Counts a request whose body is waited for.
struct Awaited<'a>(&'a Metrics);

impl<'a> Awaited<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.bodies_awaited().inc();
        Self(metrics)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.bodies_awaited().dec();
    }
}

impl Call<'_> {
    /// Waits for the whole of a small body: until then the request takes no target's time, and is
    /// charged nothing. Who would not be let in is not waited for.
    pub(super) async fn whole(
        &mut self,
        api: &Api,
        facts: Option<&Facts<'_>>,
    ) -> Result<(), Box<Refusal>> {
        let is_small = |body: &Incoming| {
            let fits = |length| (1..=api.body_buffer_bytes).contains(&length);
            !body.is_end_stream() && body.size_hint().exact().is_some_and(fits)
        };
        let streams = self.expects || self.grpc || self.upgrade.is_some();
        if !self.body.as_ref().is_some_and(is_small) || streams {
            return Ok(());
        }
        Box::pin(self.take_in(api, facts)).await
    }

    async fn take_in(&mut self, api: &Api, facts: Option<&Facts<'_>>) -> Result<(), Box<Refusal>> {
        let Some(incoming) = self.body.take() else { return Ok(()) };
        // To come as slowly as it likes is for streams of messages, and those tell no length.
        let rate_min = if api.body_rate_min == 0 { BODY_RATE_MIN } else { api.body_rate_min };
        let body = self.receive(incoming, api, rate_min);
        let body = self.taken.insert(body);
        self.record.receiving(body.transfer());
        // Mostly it came together with the head.
        match poll_fn(|cx| Poll::Ready(body.poll_whole(cx))).await {
            Poll::Ready(taken) => taken.map_err(|fault| refusal(fault.denial())),
            Poll::Pending => self.wait(facts).await,
        }
    }

    /// Waits for a body, as long as there is a place to wait at: beyond, and once the gateway stops, a
    /// request is decided as it stands, and what is still to come of its body streams.
    async fn wait(&mut self, facts: Option<&Facts<'_>>) -> Result<(), Box<Refusal>> {
        let state = &self.engine.state;
        let (metrics, most) = (&state.metrics, state.config.requests_max);
        let awaited = Awaited::new(metrics);
        if most < metrics.bodies_awaited().get() {
            return Ok(());
        }
        if let Some(facts) = facts {
            state.enforcer.check(facts).await.map_err(Box::new)?;
        }
        let Some(body) = &mut self.taken else { return Ok(()) };
        self.record.waits();
        let mut end = self.engine.end.subscribe();
        let stop = async { drop(end.wait_for(|end| *end).await) };
        let taken = tokio::select! {
            taken = poll_fn(|cx| body.poll_whole(cx)) => taken,
            () = stop => Ok(()),
        };
        self.record.waited();
        taken.map_err(|fault| refusal(fault.denial()))?;
        drop(awaited);
        // It had no place among the others so far.
        let waiting = metrics.bodies_awaited().get();
        if most < metrics.under_way().get().saturating_sub(waiting) {
            return Err(overloaded());
        }
        Ok(())
    }

    fn receive(&self, body: Incoming, api: &Api, rate_min: u64) -> RequestBody {
        let http2 = self.version == Version::HTTP_2;
        RequestBody::new(body, http2, api, rate_min, self.busy.clone())
    }

    /// The body, to be sent upstream. There is one.
    pub(in crate::proxy) fn take_body(&mut self, api: &Api) -> Option<RequestBody> {
        if let Some(taken) = self.taken.take() {
            return Some(taken);
        }
        self.body.take().map(|body| self.receive(body, api, api.body_rate_min))
    }

    /// Reads what is left of a refused request's body. Says whether all of it was read: the
    /// connection has to close otherwise.
    pub(super) async fn drain(&mut self) -> bool {
        if let Some(body) = self.taken.take() {
            return read_out(body).await && self.record.took_all();
        }
        let Some(body) = self.body.take() else {
            // It went to an upstream, all of it or a part.
            return self.record.took_all();
        };
        if body.is_end_stream() {
            return true;
        }
        if self.expects || self.length.is_none_or(|length| DRAIN_BYTES_MAX < length) {
            return false;
        }
        read_out(body).await
    }
}

/// Says whether a body ended, and in time.
async fn read_out(mut body: impl Body + Unpin) -> bool {
    let read = async move {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DRAIN_MAX, read).await.unwrap_or(false)
}
