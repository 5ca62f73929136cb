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

/// Measures whether something comes fast enough: never a pause longer than `idle`, and, all pauses
/// taken together, none longer than `idle` and the time that its bytes take at `rate_min`.
#[derive(Debug)]
pub(super) struct Pace {
    idle: Duration,
    /// In bytes per second; 0 asks for no pace.
    rate_min: u64,
    bytes: u64,
    waited: Duration,
    waits_since: Option<Instant>,
    patience: Patience,
}

impl Pace {
    pub(super) fn new(idle: Duration, rate_min: u64) -> Self {
        let (waited, waits_since, patience) = (Duration::ZERO, None, Patience::default());
        Self { idle, rate_min, bytes: 0, waited, waits_since, patience }
    }

    /// Bytes came. A piece without any, as HTTP/2 has them, is none.
    pub(super) fn came(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(since) = self.waits_since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
            self.patience.rest();
        }
    }

    /// Nothing came yet. Ready once that takes too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut span = self.idle;
        if self.waits_since.is_none() {
            self.waits_since = Some(Instant::now());
            if let Some(ms) = self.bytes.saturating_mul(1_000).checked_div(self.rate_min) {
                let allowed = self.idle.saturating_add(millis(ms));
                span = span.min(allowed.saturating_sub(self.waited));
            }
        }
        self.patience.poll(cx, span)
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Sends `bytes` after each of `pauses`; says after how many the pace was too slow.
    async fn check(rate_min: u64, bytes: u64, pauses: &[u64]) -> Option<usize> {
        let mut pace = Pace::new(millis(1_000), rate_min);
        for (n, pause) in pauses.iter().enumerate() {
            let waiting = tokio::time::timeout(millis(*pause), poll_fn(|cx| pace.poll(cx)));
            if waiting.await.is_ok() {
                return Some(n);
            }
            pace.came(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_bounded_and_so_are_all_of_them() {
        assert_eq!(check(0, 1, &[900; 50]).await, None, "no pace is asked for");
        assert_eq!(check(0, 1, &[900, 1_100]).await, Some(1), "a pause too long");
        assert_eq!(
            check(0, 0, &[900, 900]).await,
            Some(1),
            "nothing comes with a piece of nothing"
        );
        assert_eq!(check(100, 1, &[400; 50]).await, Some(2), "1 s, and 10 ms for each byte");
        assert_eq!(check(100, 40, &[400; 50]).await, None, "just as fast as asked for");
        assert_eq!(check(100, 1, &[0; 500]).await, None, "nothing was waited for");
    }
}
