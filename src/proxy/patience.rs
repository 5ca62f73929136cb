//! A deadline that moves: one timer that is only set anew when it would ring too late.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Measures how long nothing happened.
///
/// Progress only forgets the deadline; the timer stays where it is and, should it ring too early,
/// goes on to the deadline then. A busy connection so touches its timer once per deadline, not
/// once per read.
#[derive(Debug, Default)]
pub(super) struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
    until: Option<Instant>,
}

impl Patience {
    /// Something happened: the wait begins anew when it is next polled.
    pub(super) fn rest(&mut self) {
        self.until = None;
    }

    /// The wait begins now, without anybody polling yet.
    pub(super) fn start(&mut self, span: Duration) {
        self.until = Some(after(span));
    }

    /// Ready once nothing happened for `span`, counted from the first poll after the last
    /// [`Self::rest`] or from [`Self::start`].
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, span: Duration) -> Poll<()> {
        let until = *self.until.get_or_insert_with(|| after(span));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if until < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(until);
        }
        ready!(timer.as_mut().poll(cx));
        while timer.deadline() < until {
            timer.as_mut().reset(until);
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

/// A duration from configured milliseconds.
pub(super) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn after(span: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(span).unwrap_or(now)
}
