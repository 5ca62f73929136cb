use super::*;

/// A store and some gateways over a window of one counter.
struct Net {
    counter: QuotaCounter,
    hands: Vec<Hand>,
    q: u64,
    limit: u64,
}

impl Net {
    fn new(limit: u64, gateways: usize) -> Self {
        let hands = vec![Hand::default(); gateways];
        Self { counter: QuotaCounter::default(), hands, q: 0, limit }
    }

    fn call(&mut self, at: usize, want: u64, need: u64) -> (QuotaCall, QuotaAnswer) {
        self.q += 1;
        let call = QuotaCall {
            process: ProcessId(u64::try_from(at).unwrap()),
            cell: self.hands[at].next_call(self.q),
            limit: self.limit,
            generation: 1,
            want,
            need,
            least: need.min(1),
            live: u64::try_from(self.hands.len()).unwrap(),
        };
        (call, self.counter.reserve(&call))
    }

    fn ask(&mut self, at: usize, want: u64, need: u64) -> u64 {
        let (_, answer) = self.call(at, want, need);
        self.hands[at].merge(&answer);
        self.hands[at].units()
    }
}

#[test]
fn a_grant_is_the_need_and_more_only_within_share_and_cap() {
    //    limit, gateways, want, need  expect
    check(1_000, 1, 400, 1, 50); // The cap: 5 % of the limit.
    check(1_000, 1, 400, 64, 64); // What waits is granted beyond the cap.
    check(1_000, 1, 7, 1, 7); // No more than wanted.
    check(3, 1, 400, 1, 1); // Small limits go out one by one.
    check(3, 1, 400, 9, 3); // Never more than remains.
    check(100, 20, 400, 1, 3); // A fair share: ceil(100 / 40).
    check(40, 20, 400, 0, 0); // A share of one is none: it would be waste.
}

#[track_caller]
fn check(limit: u64, gateways: usize, want: u64, need: u64, expect: u64) {
    assert_eq!(Net::new(limit, gateways).ask(0, want, need), expect);
}

#[test]
fn lost_and_repeated_answers_grant_nothing_twice() {
    let mut net = Net::new(1_000, 1);
    let (call, answer) = net.call(0, 10, 1);
    assert_eq!(net.counter.reserve(&call), answer, "a repeated call only answers the state");
    // The first answer is lost; the next one carries the same units.
    assert_eq!(net.ask(0, 0, 0), 10);
    net.hands[0].merge(&answer);
    assert_eq!(net.hands[0].units(), 10, "a late answer adds nothing");
}

#[test]
fn returned_units_can_be_granted_again() {
    let mut net = Net::new(3, 2);
    assert_eq!(net.ask(0, 0, 3), 3);
    assert_eq!(net.ask(1, 0, 1), 0);
    assert!(net.hands[0].spend(1));
    net.hands[0].give_back(2);
    net.ask(0, 0, 0);
    assert_eq!(net.ask(1, 0, 2), 2);
    assert_eq!(net.counter.spent(), 1);
}

#[test]
fn a_store_that_forgot_says_gone_and_a_new_start_is_possible() {
    let mut net = Net::new(100, 1);
    net.ask(0, 5, 1);
    net.counter = QuotaCounter::default();
    let (_, answer) = net.call(0, 5, 1);
    assert_eq!(answer, QuotaAnswer::Gone);
    net.hands[0].merge(&answer);
    assert_eq!(net.ask(0, 5, 1), 5);
}

#[test]
fn a_forgotten_hand_is_folded_and_stays_taken() {
    let mut net = Net::new(10, 1);
    net.ask(0, 0, 4);
    net.hands[0] = Hand::default();
    assert_eq!(net.ask(0, 0, 9), 6, "the four lost units are not granted again");
    net.counter.fold(|_| true);
    assert_eq!(net.counter.remaining(), 0);
}

#[test]
fn a_call_that_is_gone_changes_nothing() {
    let mut net = Net::new(100, 1);
    net.ask(0, 5, 1);
    let before = net.counter.clone();
    let (mut call, _) = net.call(0, 0, 0);
    call.cell = Cell { first_call: 9, last_call: 99, granted: 7, ..Cell::default() };
    let version = net.counter.version;
    assert_eq!(net.counter.reserve(&call), QuotaAnswer::Gone);
    assert_eq!(net.counter.reserve(&call), QuotaAnswer::Gone);
    assert_eq!(net.counter.version, version);
    assert_eq!(net.counter.remaining(), before.remaining());
}

#[test]
fn a_lowered_limit_grants_nothing_until_enough_came_back() {
    let mut net = Net::new(100, 1);
    net.ask(0, 0, 10);
    net.limit = 5;
    assert_eq!(net.ask(0, 0, 20), 10, "nothing new");
    net.limit = 12;
    assert_eq!(net.ask(0, 0, 20), 12, "two more");
}

mod random {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is lost, repeated, reordered or forgotten, no more is spent than the limit.
        #[test]
        fn spent_never_exceeds_the_limit(
            limit in 1_u64..200,
            steps in prop::collection::vec((0_usize..3, 0_u8..6, 0_u64..20, 0_u64..8), 1..200),
        ) {
            let mut net = Net::new(limit, 3);
            let mut late: Vec<(usize, QuotaCall, QuotaAnswer)> = Vec::new();
            let mut spent = 0;
            for (at, what, want, need) in steps {
                match what {
                    0 => { net.ask(at, want, need); }
                    1 => {
                        let (call, answer) = net.call(at, want, need);
                        late.push((at, call, answer));
                    }
                    2 => if let Some((at, call, answer)) = late.pop() {
                        net.hands[at].merge(&answer);
                        let again = net.counter.reserve(&call);
                        if let QuotaAnswer::State(_) = again { net.hands[at].merge(&again); }
                    },
                    3 => if net.hands[at].spend(need) { spent += need; },
                    4 => net.hands[at].give_back(need),
                    _ => {
                        // The process ends without a word, and another begins in its place.
                        net.hands[at] = Hand::default();
                        late.retain(|(owner, ..)| *owner != at);
                    }
                }
                prop_assert!(spent <= limit, "{spent} of {limit}");
                let held: u64 = net.hands.iter().map(Hand::units).sum();
                prop_assert!(spent + held + net.counter.remaining() <= limit);
            }
        }
    }
}

#[test]
fn every_unit_is_reported_by_one_call() {
    let mut net = Net::new(60, 3);
    for step in 0..300_u64 {
        let at = usize::try_from(step * 7 % 3).unwrap();
        let before = net.counter.spent();
        let (_, answer) = net.call(at, step % 5, step % 3);
        let QuotaAnswer::State(state) = answer else { panic!("nothing was lost") };
        let reported = net.hands[at].reported(&state);
        let after = net.counter.spent();
        assert_eq!(reported, Some(Reported { before, after }), "step {step}");
        let hand = &mut net.hands[at];
        hand.merge(&answer);
        // The same answer again reports nothing.
        assert_eq!(hand.reported(&state), Some(Reported { before: after, after }));
        let units = hand.units();
        assert!(hand.spend(units.min(step % 4)));
        if step % 11 == 0 {
            hand.give_back(1);
        }
    }
    assert_eq!(net.counter.spent(), 60);
}
