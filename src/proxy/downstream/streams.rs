//! The streams of an HTTP/2 connection: each is a task, and none can be left untaken for ever.
//!
//! hyper asks for more of an answer only when the client has room for it. A client that gives none
//! would keep the stream, and what is upstream of it, as long as its connection lives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use hyper::rt::Executor;
use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::proxy::downstream::Gate;
use crate::proxy::patience::{Patience, millis};

/// How an answer gets on, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Whether the answer's head has gone out and its body has not ended.
    flows: AtomicBool,
    /// Pieces asked for.
    asked: AtomicU32,
    /// Whether the upstream is what it waits for.
    waits: AtomicBool,
}

impl Flow {
    /// The answer's body is asked for a piece.
    pub(crate) fn ask(&self, waits: bool) {
        self.flows.store(true, Ordering::Relaxed);
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// There is an answer, and the client can take it.
    pub(crate) fn begin(&self) {
        self.flows.store(true, Ordering::Relaxed);
    }
}

/// Hands a request's [`Flow`] from where hyper asks for the request's future to where it has it
/// run; on HTTP/2 one follows the other, on one task.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    next: Arc<Mutex<Option<Arc<Flow>>>>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
}

impl Streams {
    pub(crate) fn new(gate: &Arc<Gate>, metrics: &Arc<Metrics>) -> Self {
        Self { next: Arc::default(), gate: Arc::clone(gate), metrics: Arc::clone(metrics) }
    }

    /// The flow of the request whose future is run next.
    pub(crate) fn flow(&self) -> Arc<Flow> {
        let flow = Arc::<Flow>::default();
        *self.next.lock() = Some(Arc::clone(&flow));
        flow
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, inner: F) {
        let flow = self.next.lock().take().unwrap_or_default();
        let (gate, metrics) = (Arc::clone(&self.gate), Arc::clone(&self.metrics));
        let (inner, patience) = (Box::pin(inner), Patience::default());
        tokio::spawn(Watched { inner, flow, gate, metrics, seen: 0, patience });
    }
}

/// One stream's task. It ends when the client takes nothing of its answer for too long; hyper
/// then resets the stream.
struct Watched<F> {
    inner: Pin<Box<F>>,
    flow: Arc<Flow>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    seen: u32,
    patience: Patience,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.inner.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let asked = this.flow.asked.load(Ordering::Relaxed);
        let flows = this.flow.flows.load(Ordering::Relaxed);
        if this.seen != asked || !flows || this.flow.waits.load(Ordering::Relaxed) {
            this.seen = asked;
            this.patience.rest();
        }
        if !flows || this.flow.waits.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let late = this.patience.poll(cx, millis(this.gate.write_idle_ms()));
        if late.is_ready() {
            this.metrics.cut(crate::metrics::Cut::Untaken);
        }
        late
    }
}
