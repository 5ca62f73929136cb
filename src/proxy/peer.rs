//! One target of an API: how it does, and how much it has to do.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::api::{Api, Ejection, Health, Target};
use crate::domain::time::BootNs;
use crate::metrics::TargetMetrics;
use crate::proxy::upstream::Pool;

/// One target of an API.
#[derive(Debug)]
pub(super) struct Peer {
    /// The connections to it.
    pub(super) pool: Arc<Pool>,
    /// What comes before the request's path.
    pub(super) base: Arc<str>,
    pub(super) standing: Arc<Standing>,
    pub(super) metrics: TargetMetrics,
    /// Requests that may have a connection at once, and that may wait for one.
    served_max: u32,
    waiting_max: u32,
}

/// What is known of a target. It stays when the API changes and the target does not.
#[derive(Debug, Default)]
pub(super) struct Standing {
    served: AtomicU32,
    waiting: AtomicU32,
    /// Somebody who is served has left.
    left: Notify,
    /// Failed requests in a row.
    failures: AtomicU32,
    ejected: AtomicBool,
    sick: AtomicBool,
    /// Rarely held: when a target is ejected, returns, or was checked.
    seldom: Mutex<Seldom>,
}

#[derive(Debug, Default)]
struct Seldom {
    /// Ejections in a row.
    ejections: u32,
    until: BootNs,
    /// When the next check is due; never, while one is under way.
    check_at: BootNs,
    /// Checks in a row with the same result.
    passed: u32,
    failed: u32,
}

/// A place at a target: held from the pick to the end of the answer.
#[derive(Debug)]
pub(super) struct Place(Arc<Peer>);

/// A place in the line for one.
struct InLine<'a>(&'a Standing);

impl Peer {
    pub(super) fn new(
        api: &Api,
        target: &Target,
        pool: Arc<Pool>,
        standing: Arc<Standing>,
        metrics: TargetMetrics,
    ) -> Self {
        let breaker = &api.upstream.breaker;
        let (served_max, waiting_max) = (breaker.served_max(), breaker.waiting_max());
        let base = Arc::clone(&target.base_path);
        Self { pool, base, standing, metrics, served_max, waiting_max }
    }

    /// A place, at once or within `wait`; none where too many wait already.
    pub(super) async fn enter(self: &Arc<Self>, wait: Duration) -> Option<Place> {
        if self.try_enter() {
            return Some(Place(Arc::clone(self)));
        }
        Box::pin(self.wait_for_place(wait)).await
    }

    async fn wait_for_place(self: &Arc<Self>, wait: Duration) -> Option<Place> {
        let _in_line = InLine::take(&self.standing, self.waiting_max)?;
        let served = async {
            loop {
                // Listening comes before looking: whoever leaves in between is heard.
                let mut left = pin!(self.standing.left.notified());
                left.as_mut().enable();
                if self.try_enter() {
                    return Place(Arc::clone(self));
                }
                left.await;
            }
        };
        tokio::time::timeout(wait, served).await.ok()
    }

    fn try_enter(&self) -> bool {
        let one_more = |served: u32| (served < self.served_max).then(|| served.saturating_add(1));
        self.standing.served.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }
}

impl Place {
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let standing = &self.0.standing;
        standing.served.fetch_sub(1, Ordering::SeqCst);
        if 0 < standing.waiting.load(Ordering::SeqCst) {
            standing.left.notify_one();
        }
    }
}

impl<'a> InLine<'a> {
    fn take(standing: &'a Standing, max: u32) -> Option<Self> {
        let one_more = |waiting: u32| (waiting < max).then(|| waiting.saturating_add(1));
        let waiting = &standing.waiting;
        waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Self(standing))
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Standing {
    /// Whether it gets requests while others do.
    pub(super) fn is_available(&self) -> bool {
        !self.ejected.load(Ordering::Relaxed) && !self.sick.load(Ordering::Relaxed)
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Requests that have a place or wait for one.
    pub(super) fn in_flight(&self) -> u32 {
        let served = self.served.load(Ordering::Relaxed);
        served.saturating_add(self.waiting.load(Ordering::Relaxed))
    }

    /// A request was answered, and not with 5xx.
    pub(super) fn succeeded(&self) {
        // Looking is cheaper than writing, and mostly enough.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed. Says whether so many have in a row that the target should be ejected.
    pub(super) fn failed(&self, ejection: &Ejection) -> bool {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        ejection.failures != 0 && ejection.failures <= before.saturating_add(1)
    }

    /// Leaves the target alone. Says for how long, in milliseconds.
    pub(super) fn eject(&self, ejection: &Ejection, now: BootNs) -> u64 {
        let mut seldom = self.seldom.lock();
        seldom.ejections = seldom.ejections.saturating_add(1);
        let span_ms = ejection.span_ms(seldom.ejections);
        seldom.until = now.plus_ms(span_ms);
        self.ejected.store(true, Ordering::Relaxed);
        span_ms
    }

    /// Ends an ejection whose time is over, and says whether it did. One failure then ejects
    /// again; time without one makes the next ejection shorter.
    pub(super) fn pardon(&self, ejection: &Ejection, now: BootNs) -> bool {
        let mut seldom = self.seldom.lock();
        if now < seldom.until || seldom.ejections == 0 {
            return false;
        }
        seldom.until = now.plus_ms(ejection.span_ms(seldom.ejections));
        if self.ejected.swap(false, Ordering::Relaxed) {
            self.failures.store(ejection.failures.saturating_sub(1), Ordering::Relaxed);
            return true;
        }
        seldom.ejections = seldom.ejections.saturating_sub(1);
        false
    }

    /// Whether a check is due. It is taken up then: [`Self::checked`] has to follow.
    pub(super) fn check_is_due(&self, now: BootNs) -> bool {
        let mut seldom = self.seldom.lock();
        let due = seldom.check_at <= now;
        if due {
            seldom.check_at = BootNs(u64::MAX);
        }
        due
    }

    /// A check ended. Says whether it changed the target's state.
    pub(super) fn checked(&self, passed: bool, health: &Health, next: BootNs) -> bool {
        let mut seldom = self.seldom.lock();
        seldom.check_at = next;
        let streak = |n: u32, more: bool| if more { n.saturating_add(1) } else { 0 };
        seldom.passed = streak(seldom.passed, passed);
        seldom.failed = streak(seldom.failed, !passed);
        let sick = self.sick.load(Ordering::Relaxed);
        let turned = if sick { health.rise <= seldom.passed } else { health.fall <= seldom.failed };
        if turned {
            self.sick.store(!sick, Ordering::Relaxed);
        }
        turned
    }

    /// The checks are others from now on: what the old ones said does not count.
    pub(super) fn forget_checks(&self) {
        let mut seldom = self.seldom.lock();
        (seldom.check_at, seldom.passed, seldom.failed) = (BootNs(0), 0, 0);
        self.sick.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECTION: Ejection =
        Ejection { failures: 3, base_ms: 100, max_ms: 1_000, share_percent: 100 };

    #[test]
    fn failures_in_a_row_eject_and_one_more_ejects_for_longer() {
        let (standing, at) = (Standing::default(), |ms| BootNs(0).plus_ms(ms));
        assert!(!standing.failed(&EJECTION) && !standing.failed(&EJECTION));
        standing.succeeded();
        assert!(!standing.failed(&EJECTION) && !standing.failed(&EJECTION));
        assert!(standing.failed(&EJECTION), "the third in a row");
        assert_eq!(standing.eject(&EJECTION, at(0)), 100);
        assert!(!standing.is_available());
        assert!(!standing.pardon(&EJECTION, at(99)));
        assert!(standing.pardon(&EJECTION, at(100)) && standing.is_available());
        assert!(standing.failed(&EJECTION), "on probation");
        assert_eq!(standing.eject(&EJECTION, at(100)), 200);
        assert!(standing.pardon(&EJECTION, at(300)));
        standing.succeeded();
        for _ in 0..2 {
            assert!(!standing.failed(&EJECTION));
        }
        assert!(!standing.pardon(&EJECTION, at(500)), "nothing to pardon: it forgets an ejection");
        assert_eq!(standing.eject(&EJECTION, at(500)), 200);
        let never = Ejection { failures: 0, ..EJECTION };
        assert!((0..100).all(|_| !Standing::default().failed(&never)));
    }

    #[test]
    fn checks_change_the_state_after_enough_in_a_row() {
        let health = Health { rise: 2, fall: 3, ..Health::default() };
        let standing = Standing::default();
        assert!(standing.check_is_due(BootNs(0)) && !standing.check_is_due(BootNs(9)));
        let mut story = String::new();
        for passed in [false, false, true, false, false, false, true, false, true, true, true] {
            let turned = standing.checked(passed, &health, BootNs(5));
            story.push(match (turned, standing.is_available()) {
                (true, up) => {
                    if up {
                        'U'
                    } else {
                        'D'
                    }
                }
                (false, up) => {
                    if up {
                        'u'
                    } else {
                        'd'
                    }
                }
            });
        }
        assert_eq!(story, "uuuuuDdddUu");
        assert!(!standing.check_is_due(BootNs(4)) && standing.check_is_due(BootNs(5)));
    }
}
