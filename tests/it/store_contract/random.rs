//! Random histories: the embedded store, killed in the middle, against the pure model.

use std::time::Duration;

use proptest::prelude::*;

use turnpike::domain::lease::{Hand, QuotaAnswer, QuotaCall, QuotaCounter};
use turnpike::domain::ratelog::{RateCall, RateHand, RateLog, rate};
use turnpike::store::{CounterStore, QuotaReserve, QuotaReserved, RateReserve};

use super::embedded::Place;
use super::{call, key, lease, window};

/// One step: whose turn it is, what it does, with how many units, and how long after.
type Step = (usize, u8, u64, u64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0_usize..3, 0_u8..8, 1_u64..40, 0_u64..300), 1..60)
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happened before the kill, the store goes on exactly where the model does: the
    /// same answers to new processes, and so never a unit more.
    #[test]
    fn quotas_go_on_where_they_were(before in steps(), after in steps(), limit in 1_u64..600) {
        block_on(async {
            let mut place = Place::new();
            let mut store = place.open();
            let (key, window) = (key(1, "q//day"), window(&store).await);
            let mut model = QuotaCounter::default();
            for (run, steps) in [before, after].into_iter().enumerate() {
                if 0 < run {
                    let killed = place.killed();
                    drop(std::mem::replace(&mut store, killed.open()));
                    place = killed;
                }
                let mut hands = [Hand::default(); 3];
                for (q, (who, what, units, wait)) in steps.into_iter().enumerate() {
                    let (q, hand) = (q as u64 + 1, &mut hands[who]);
                    match what {
                        0 | 1 => {
                            hand.spend(units.min(hand.units()));
                        }
                        2 => hand.give_back(units),
                        _ => {}
                    }
                    let process = (run * 3 + who) as u64;
                    let need = if what < 5 { 0 } else { units };
                    // Limits change both ways, and some calls come late with an older one.
                    let (limit, generation) = if what == 7 { (limit / 2, q) } else { (limit, q / 2) };
                    let cell = hand.next_call(q);
                    let mut call = QuotaCall { want: units, generation, ..call(process, cell, limit, need) };
                    if wait % 7 == 0 {
                        call.cell.last_call = call.cell.last_call.saturating_sub(1);
                    }
                    let expect = model.reserve(&call);
                    let reserve = QuotaReserve { key: key.clone(), window, call };
                    let got = store.quota(&reserve).await.unwrap();
                    let QuotaReserved::Answer { answer, .. } = got else { panic!("{got:?}") };
                    prop_assert_eq!(answer, expect);
                    if wait % 3 != 0 || matches!(answer, QuotaAnswer::Gone) {
                        hand.merge(&answer);
                    }
                    if wait % 50 == 0 {
                        store.compact().unwrap();
                    }
                }
            }
            let usage = store.quota_usage(&key, &window).await.unwrap();
            let counter = usage.counter.unwrap_or_default();
            prop_assert_eq!(counter.remaining(), model.remaining());
            prop_assert_eq!(counter.spent(), model.spent());
            Ok(())
        })?;
    }

    /// The same for rates. Who was killed never closes its leases; they count to their end.
    #[test]
    fn rates_go_on_where_they_were(before in steps(), after in steps(), requests in 1_u64..200) {
        block_on(async {
            let mut place = Place::new();
            let mut store = place.open();
            let (key, rate) = (key(1, "r/t/2000"), rate(requests, 2_000).unwrap());
            let (mut model, clock) = (RateLog::default(), place.clock());
            for (run, steps) in [before, after].into_iter().enumerate() {
                if 0 < run {
                    let killed = place.killed();
                    drop(std::mem::replace(&mut store, killed.open()));
                    place = killed;
                }
                let mut hands = [RateHand::default(), RateHand::default(), RateHand::default()];
                for (q, (who, what, units, wait)) in steps.into_iter().enumerate() {
                    clock.advance(Duration::from_millis(wait));
                    let (at, hand) = (clock_now(&*clock), &mut hands[who]);
                    hand.spend(units.min(hand.units(at.1)), at.1);
                    let closes = if what < 6 { hand.closes(at.1) } else { hand.close_all(at.1) };
                    let lease = lease((run * 3 + who) as u64, q as u64 + 1, requests, units);
                    let call = RateCall { rate, closes, least: 1, ..lease };
                    let expect = model.reserve(&call, at.0);
                    let reserve = RateReserve { key: key.clone(), call };
                    let answer = store.rate(&reserve).await.unwrap();
                    prop_assert_eq!(answer, expect);
                    if what != 5 {
                        hand.merge(&answer, at.1, 100);
                    }
                    if wait % 50 == 0 {
                        store.sweep();
                        store.compact().unwrap();
                    }
                }
            }
            Ok(())
        })?;
    }
}

fn clock_now(clock: &impl turnpike::clock::Clock) -> (u64, turnpike::domain::time::BootNs) {
    (clock.unix().0, clock.boot())
}
