//! What the service and the socket of one connection tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::metrics::Cut;
use crate::proxy::tunnel::Tunnel;

/// How long a client may leave an answer untaken where no API's deadline is known, in
/// milliseconds.
const WRITE_IDLE_MS: u64 = 30_000;
/// No reason yet.
const NOT_CUT: u8 = u8::MAX;

/// What the service and the socket of one connection tell each other.
#[derive(Debug)]
pub(in crate::proxy) struct Gate {
    /// Parts of requests under way: the body coming in, the answer going out.
    open: AtomicU32,
    /// Requests begun.
    begun: AtomicU32,
    /// Whether a request was answered without its body being read.
    unread: AtomicBool,
    /// Whether no further request is wanted (HTTP/2: the client is told with GOAWAY).
    closing: AtomicBool,
    /// Why the connection was cut off.
    cut: AtomicU8,
    write_idle_ms: AtomicU64,
    /// What the connection is switched to once its answer has gone out.
    tunnel: Mutex<Option<Box<Tunnel>>>,
}

impl Gate {
    pub(in crate::proxy) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            unread: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            cut: AtomicU8::new(NOT_CUT),
            write_idle_ms: AtomicU64::new(WRITE_IDLE_MS),
            tunnel: Mutex::new(None),
        })
    }

    /// A request began.
    pub(in crate::proxy) fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.busy()
    }

    fn busy(self: &Arc<Self>) -> Busy {
        self.open.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Requests begun, ever.
    pub(in crate::proxy) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Sets how long the client may take nothing of an answer.
    pub(in crate::proxy) fn set_write_idle(&self, ms: u64) {
        self.write_idle_ms.store(ms, Ordering::Relaxed);
    }

    pub(in crate::proxy) fn write_idle_ms(&self) -> u64 {
        self.write_idle_ms.load(Ordering::Relaxed)
    }

    /// A request is answered without its body being read.
    pub(in crate::proxy) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub(in crate::proxy) fn left_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// No further request is wanted.
    pub(in crate::proxy) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(in crate::proxy) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// The connection is cut off.
    pub(in crate::proxy) fn cut(&self, why: Cut) {
        self.cut.store(why.index(), Ordering::Relaxed);
    }

    pub(in crate::proxy) fn was_cut(&self) -> Option<Cut> {
        Cut::ALL.get(usize::from(self.cut.load(Ordering::Relaxed))).copied()
    }

    /// The connection is switched to another protocol once its answer has gone out.
    pub(in crate::proxy) fn switch(&self, tunnel: Tunnel) {
        *self.tunnel.lock() = Some(Box::new(tunnel));
    }

    pub(in crate::proxy) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.lock().take()
    }

    pub(in crate::proxy) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }
}

/// Held while a part of a request is under way.
#[derive(Debug)]
pub(in crate::proxy) struct Busy(Arc<Gate>);

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
