use super::*;
use crate::domain::time::BootNs;

const P: ProcessId = ProcessId(1);

fn call(q: u64, rate: Rate, need: u64, closes: Vec<Close>) -> RateCall {
    let validity_ms = validity_ms(rate, 0, 0);
    RateCall { process: P, q, rate, closes, want: 0, need, least: need, validity_ms }
}

#[test]
fn the_sixth_of_five_waits_until_the_first_leaves() {
    let five = rate(5, 10_000).unwrap();
    let mut log = RateLog::default();
    let mut closes = Vec::new();
    for (q, at) in [0, 100, 200, 300, 400].into_iter().enumerate() {
        let q = u64::try_from(q).unwrap() + 1;
        let answer = log.reserve(&call(q, five, 1, std::mem::take(&mut closes)), 1_000 + at);
        assert_eq!((answer.granted, answer.free), (1, 5 - q));
        closes.push(Close { q, spent: 1, age_ms: 100 });
    }
    let sixth = log.reserve(&call(6, five, 1, closes), 1_500);
    // The first was spent at 1,000; the window is 10,000 and the guard 10.
    assert_eq!((sixth.granted, sixth.wait_ms), (0, 1_000 + 10_000 + 10 - 1_500));
    let early = log.reserve(&call(7, five, 1, vec![]), 11_009);
    assert_eq!(early.granted, 0);
    let in_time = log.reserve(&call(8, five, 1, vec![]), 11_010);
    assert_eq!(in_time.granted, 1);
}

#[test]
fn an_unspent_lease_frees_its_units_when_closed() {
    let ten = rate(10, 1_000).unwrap();
    let mut log = RateLog::default();
    assert_eq!(log.reserve(&call(1, ten, 10, vec![]), 0).granted, 10);
    assert_eq!(log.reserve(&call(2, ten, 1, vec![]), 5).granted, 0);
    let close = Close { q: 1, spent: 4, age_ms: 3 };
    assert_eq!(log.reserve(&call(3, ten, 9, vec![close]), 10).granted, 0, "9 do not fit beside 4");
    assert_eq!(log.reserve(&call(4, ten, 6, vec![]), 10).granted, 6);
}

#[test]
fn a_repeated_call_opens_nothing() {
    let ten = rate(10, 1_000).unwrap();
    let mut log = RateLog::default();
    let first = call(1, ten, 3, vec![]);
    assert_eq!(log.reserve(&first, 0).granted, 3);
    assert_eq!(log.reserve(&first, 1).granted, 0);
    assert_eq!(log.used(), 3);
}

#[test]
fn a_log_stays_short_at_high_rates() {
    let busy = rate(100_000, 60_000).unwrap();
    let mut log = RateLog::default();
    let mut closes = Vec::new();
    for q in 1..6_000 {
        log.reserve(&call(q, busy, 10, std::mem::take(&mut closes)), q * 10);
        closes.push(Close { q, spent: 10, age_ms: 0 });
    }
    assert!(log.closed.len() <= 130, "{} entries", log.closed.len());
}

mod random {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In any window no more is admitted than the rate, whatever the timing and loss.
        #[test]
        fn no_window_admits_more_than_the_rate(
            requests in 1_u64..150,
            per in 50_u64..3_000,
            steps in prop::collection::vec((0_u64..400, 0_u8..8, 1_u64..12), 1..300),
        ) {
            let rate = rate(requests, per).unwrap();
            let mut log = RateLog::default();
            let mut hand = RateHand::default();
            let (mut now, mut q) = (10_000_u64, 0);
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            let boot = |ms: u64| BootNs(ms * 1_000_000);
            for (pause, what, n) in steps {
                now += if what == 0 { pause } else { pause % 7 };
                if hand.spend(n, boot(now)) {
                    admitted.push((now, n));
                    continue;
                }
                q += 1;
                let sent = now;
                let closes = hand.closes(boot(now));
                let want = if requests <= RATE_SINGLE_MAX { 0 } else { n * 5 };
                let validity_ms = validity_ms(rate, log.used(), 1);
                let call = RateCall { process: P, q, rate, closes, want, need: n, least: n, validity_ms };
                now += pause % 5; // The way to the store.
                let answer = log.reserve(&call, now);
                now += pause % 3; // And back.
                if what == 1 {
                    hand.reopen(&call.closes, boot(now)); // The answer is lost.
                } else {
                    hand.merge(&answer, boot(sent), validity_ms);
                }
                if hand.spend(n, boot(now)) {
                    admitted.push((now, n));
                }
            }
            for (end, _) in &admitted {
                let inside = admitted.iter().filter(|(t, _)| t <= end && end - t < per);
                let sum: u64 = inside.map(|(_, n)| n).sum();
                prop_assert!(sum <= requests, "{sum} of {requests} within {per} ms");
            }
        }
    }
}
