//! One gateway's cell, its store, and the threads around them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::domain::counter::{CounterKey, ProcessId, Window};
use crate::domain::lease::{Cell, QuotaAnswer, QuotaCall};
use crate::domain::limit::Period;
use crate::domain::reading::LimitKind;
use crate::domain::shard::{
    Accepted, AssertCall, At, Incarnation, Kept, Member, QuotaReply, RunId, Shard, Stage,
};
use crate::domain::time::{BootNs, UnixMs};
use loom::future::block_on;
use loom::thread;

use crate::enforce::slot::{Charge, ChargeLimit, Failure, InHand, Slot, Turn, Verdict};
use crate::enforce::sync::Mutex;

const OWN: ProcessId = ProcessId(1);
const OTHER: ProcessId = ProcessId(2);
const WINDOW: Window = Window { start: UnixMs(0), end: None, reset: 0 };
const NOW: BootNs = BootNs(1);

/// A store that answers at once, with what its network would carry.
struct Store {
    inner: Mutex<Inner>,
    limit: u64,
    // What only the test looks at: these are no reason for another interleaving.
    calls: AtomicU64,
    under_way: AtomicBool,
}

#[derive(Default)]
struct Inner {
    shard: Shard,
    kept: Kept,
    run: u8,
}

impl Inner {
    fn at(&self) -> At {
        At { now_ms: u64::from(self.run) * 1_000, run: RunId([self.run; 20]) }
    }
}

/// One gateway: a slot, and its standing at the shard.
struct Gateway {
    store: Store,
    charge: Charge,
    member: Mutex<Member>,
}

impl Gateway {
    fn new(limit: u64) -> Arc<Self> {
        let key: CounterKey = "c1/q//never".parse().unwrap();
        let slot = Arc::new(Slot::new(0, key, LimitKind::Quota));
        let period = Period::Never;
        let limit_of = ChargeLimit::Quota { limit, period, resets: 0, generation: 1 };
        let mut inner = Inner { run: 1, ..Inner::default() };
        // The store was opened: its first life has begun, and nothing is to be learned in it.
        let _new = inner.shard.enter(Incarnation(0), &inner.at());
        inner.shard.learning = None;
        let member = Member::begun(inner.shard.incarnation, false);
        Arc::new(Self {
            store: Store {
                inner: Mutex::new(inner),
                limit,
                calls: AtomicU64::new(0),
                under_way: AtomicBool::new(false),
            },
            charge: Charge { slot, limit: limit_of },
            member: Mutex::new(member),
        })
    }

    fn call(&self, cost: u64, give_back: bool) -> (Incarnation, QuotaCall) {
        let mut state = self.charge.lock();
        let waiting = state.waiting.max(cost);
        let InHand::Quota(quota) = &mut state.hand else { panic!("a quota") };
        let q = self.store.calls.fetch_add(1, Relaxed) + 1;
        if give_back {
            quota.held.hand.give_back(u64::MAX);
        }
        let cell = quota.held.hand.next_call(q);
        let (need, least) =
            (waiting.saturating_sub(cell.unspent()), cost.saturating_sub(cell.unspent()));
        let call = QuotaCall {
            process: OWN,
            cell,
            limit: self.store.limit,
            generation: 1,
            want: need,
            need,
            least,
            live: 1,
        };
        (self.member.lock().incarnation(), call)
    }

    fn send(&self, from: Incarnation, call: &QuotaCall) -> Option<QuotaReply> {
        assert!(!self.store.under_way.swap(true, Relaxed), "one call at a time");
        let mut inner = self.store.inner.lock();
        let at = inner.at();
        let Inner { shard, kept, .. } = &mut *inner;
        let reserved = kept.reserve(shard, from, call, &at);
        reserved.map(|(answer, copy)| QuotaReply {
            incarnation: from,
            q: call.cell.last_call,
            answer,
            copy: Some(Box::new(copy)),
        })
    }

    fn accept(&self, cost: u64, reply: Option<&QuotaReply>) {
        // The answer has come: from here on the next call may go.
        self.store.under_way.store(false, Relaxed);
        let mut state = self.charge.lock();
        let InHand::Quota(quota) = &mut state.hand else { panic!("a quota") };
        let Some(reply) = reply else { return };
        let member = *self.member.lock();
        if quota.held.accept(&member, reply) == Accepted::Yes {
            quota.window = Some((WINDOW, None));
            (quota.limit, quota.generation) = (self.store.limit, 1);
            quota.pace(cost.max(1), NOW);
        }
    }

    fn exchange(&self, cost: u64, give_back: bool) -> Option<QuotaAnswer> {
        let (from, call) = self.call(cost, give_back);
        let reply = self.send(from, &call);
        self.accept(cost, reply.as_ref());
        reply.map(|reply| reply.answer)
    }

    /// Admits a request, as `enforce::ledger` does.
    async fn admit(&self, cost: u64) -> bool {
        for _ in 0..8 {
            {
                let mut state = self.charge.lock();
                match self.charge.judge(&state, cost, NOW) {
                    Verdict::Enough => {
                        self.charge.spend(&mut state, cost, NOW);
                        return true;
                    }
                    Verdict::Refused { .. } => return false,
                    Verdict::Ask => {}
                }
            }
            let (_waiting, turn) = self.charge.slot.turn(cost);
            match turn {
                Turn::Call(asking) => match self.exchange(cost, false) {
                    Some(_) => drop(asking),
                    // The store is learning: the product waits a little, and then gives up.
                    None => {
                        asking.failed(Failure::Learning);
                        return false;
                    }
                },
                Turn::Wait(wait) => {
                    if wait.for_answer().await.is_some() {
                        return false;
                    }
                }
            }
        }
        panic!("a request asks without end")
    }

    fn give_back(&self) {
        if let Some(_asking) = self.charge.slot.try_ask() {
            let begun = match &self.charge.lock().hand {
                InHand::Quota(quota) => quota.window.is_some(),
                InHand::Rate(_) => false,
            };
            if begun {
                self.exchange(0, true);
            }
        }
    }

    /// Units in hand, and what the store thinks they are.
    fn units(&self) -> (u64, u64) {
        let state = self.charge.lock();
        let InHand::Quota(quota) = &state.hand else { panic!("a quota") };
        let hand = &quota.held.hand;
        let inner = self.store.inner.lock();
        let cell = inner.kept.counter.cells.get(&OWN).copied().unwrap_or_default();
        // What was spent since the last call is not known there yet.
        (hand.totals().granted, cell.granted)
    }
}

fn admits(gateway: &Arc<Gateway>, cost: u64) -> thread::JoinHandle<bool> {
    let gateway = Arc::clone(gateway);
    thread::spawn(move || block_on(gateway.admit(cost)))
}

/// All interleavings in which threads are stopped twice: all of them are too many.
fn explore(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(run);
}

#[test]
fn requests_share_one_call_and_the_limit_to_the_unit() {
    explore(|| {
        let gateway = Gateway::new(2);
        let others = [admits(&gateway, 1), admits(&gateway, 1)];
        let own = block_on(gateway.admit(1));
        let admitted = others.map(|thread| thread.join().unwrap());
        let admitted = admitted.into_iter().chain([own]).filter(|admitted| *admitted).count();
        assert_eq!(admitted, 2);
        let (hand, store) = gateway.units();
        assert_eq!((hand, store), (2, 2));
        let state = gateway.charge.lock();
        assert!(!state.asking && state.waiting == 0, "nobody asks or waits any more");
    });
}

#[test]
fn units_given_back_under_a_request_are_neither_lost_nor_doubled() {
    loom::model(|| {
        let gateway = Gateway::new(2);
        assert!(block_on(gateway.admit(1)));
        let request = admits(&gateway, 1);
        gateway.give_back();
        assert!(request.join().unwrap(), "the second unit is there, wherever it was");
        assert!(!block_on(gateway.admit(1)));
        let state = gateway.charge.lock();
        let InHand::Quota(quota) = &state.hand else { panic!("a quota") };
        assert_eq!((quota.held.hand.units(), quota.held.hand.totals().spent), (0, 2));
    });
}

/// The store begins a new life, without a word of the old one, while an answer is on its way. What
/// is in hand afterwards is known to the new life, or else it could be granted again.
#[test]
fn an_answer_of_an_earlier_life_is_either_told_to_the_new_one_or_not_spent() {
    explore(|| {
        let gateway = Gateway::new(1);
        let request = admits(&gateway, 1);
        let new = {
            let mut inner = gateway.store.inner.lock();
            *inner = Inner { run: 2, ..Inner::default() };
            let at = inner.at();
            let _learn = inner.shard.enter(Incarnation(0), &at);
            inner.shard.incarnation
        };
        // As `enforce::ledger::keep_up`: first the new life is known, then what is in hand is read.
        gateway.member.lock().learn(new);
        let assertion = {
            let mut state = gateway.charge.lock();
            let InHand::Quota(quota) = &mut state.hand else { panic!("a quota") };
            quota.held.assertion(1_000)
        };
        {
            let mut inner = gateway.store.inner.lock();
            let (at, live) = (inner.at(), [OWN].into());
            let call = AssertCall { process: OWN, incarnation: new, live, done: true };
            assert_eq!(inner.shard.assert(&call, &at), Some(Stage::Learning));
            let Inner { shard, kept, .. } = &mut *inner;
            let (cell, copy) = (assertion.cell.as_ref(), assertion.copy.as_deref());
            kept.assert(shard, Stage::Learning, OWN, cell, copy);
            shard.learning = None;
        }
        gateway.member.lock().acknowledge(new);
        let admitted = request.join().unwrap();
        // Somebody else asks the new life for all there is.
        let elsewhere = {
            let mut inner = gateway.store.inner.lock();
            let cell = Cell { first_call: 1, last_call: 1, ..Default::default() };
            let call = QuotaCall {
                process: OTHER,
                cell,
                limit: 1,
                generation: 1,
                want: 1,
                need: 1,
                least: 1,
                live: 1,
            };
            let at = inner.at();
            let Inner { shard, kept, .. } = &mut *inner;
            match kept.reserve(shard, new, &call, &at) {
                Some((QuotaAnswer::State(state), _)) => state.cell.granted,
                Some((QuotaAnswer::Gone, _)) | None => 0,
            }
        };
        let total = u64::from(admitted) + elsewhere;
        assert!(total <= 1, "admitted here {admitted}, there {elsewhere}");
    });
}
