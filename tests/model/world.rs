//! The world the model walks through: one store with one quota counter, some gateways, a network
//! that loses, repeats and reorders, and what an all-knowing observer counts.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use turnpike::domain::counter::ProcessId;
use turnpike::domain::lease::{Cell, QuotaAnswer, QuotaCall};
use turnpike::domain::shard::{
    AssertCall, Assertion, At, CounterCopy, Held, Incarnation, Kept, Member, QuotaReply, RunId,
    Shard, Stage,
};

use crate::faults::{Faults, Left};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) shard: Shard,
    pub(crate) kept: Kept,
}

/// What was true when a call was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Then {
    /// The caller's newest call at that time.
    pub(crate) newest: u64,
    /// The limit.
    pub(crate) limit: u64,
    /// Units granted and not given back: admitted, or held by live or ended gateways.
    pub(crate) out: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Msg {
    Reserve { incarnation: Incarnation, call: QuotaCall },
    Assert { call: AssertCall, q: u64, assertion: Assertion },
    Answer { to: ProcessId, reply: Box<QuotaReply>, then: Then },
    Learn { to: ProcessId, q: u64, told: Incarnation },
    Acked { to: ProcessId, q: u64, named: Incarnation },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gateway {
    pub(crate) process: ProcessId,
    pub(crate) q: u64,
    /// The call waited for.
    pub(crate) flight: Option<u64>,
    pub(crate) member: Member,
    pub(crate) held: Held,
    pub(crate) limit: u64,
    pub(crate) generation: u64,
    pub(crate) seen: Option<Then>,
    /// The newest call made when the hand was last dropped.
    pub(crate) forgot: u64,
}

/// What nobody in the system knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Truth {
    /// Requests admitted, each of one unit.
    pub(crate) admitted: u64,
    /// Per process: units granted and not given back.
    pub(crate) out: BTreeMap<ProcessId, u64>,
    /// No more than this may be admitted, but for `excused`.
    pub(crate) ceiling: u64,
    /// What losses may add: granted since the newest asserted copy to who did not assert.
    pub(crate) excused: u64,
    /// Who asserted all it ever knew in the learning under way.
    pub(crate) asserted: BTreeSet<ProcessId>,
    /// The newest copy asserted in it, or what the store came back with.
    pub(crate) newest: Option<CounterCopy>,
    /// Who dropped a copy.
    pub(crate) forgetful: BTreeSet<ProcessId>,
    /// Whether the store ever said that it forgot a grant.
    pub(crate) gone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) run: u8,
    pub(crate) store: Store,
    pub(crate) disk: Store,
    pub(crate) gateways: Vec<Gateway>,
    /// Messages under way, in the order of their hashes, so that worlds compare.
    pub(crate) net: Vec<(u64, Msg)>,
    pub(crate) next_process: u64,
    pub(crate) left: Left,
    pub(crate) prompt: bool,
    pub(crate) truth: Truth,
}

impl World {
    pub(crate) fn new(faults: &Faults) -> Self {
        let incarnation = Incarnation(1);
        let shard = Shard { incarnation, run: Some(run_id(0)), ..Shard::default() };
        let store = Store { shard, kept: Kept::default() };
        let mut world = Self {
            now_ms: 10_000,
            run: 0,
            disk: store.clone(),
            store,
            gateways: Vec::new(),
            net: Vec::new(),
            next_process: 1,
            left: Left::of(faults),
            prompt: faults.prompt,
            truth: Truth { ceiling: faults.limits.0, ..Truth::default() },
        };
        for _ in 0..faults.gateways {
            let gateway = world.process(faults.limits.0);
            world.gateways.push(gateway);
        }
        world
    }

    fn process(&mut self, limit: u64) -> Gateway {
        let process = ProcessId(self.next_process);
        self.next_process += 1;
        let shard = &self.store.shard;
        Gateway {
            process,
            q: 0,
            flight: None,
            member: Member::begun(shard.incarnation, shard.learning.is_some()),
            held: Held::default(),
            limit,
            generation: 1,
            seen: None,
            forgot: 0,
        }
    }

    fn at(&self) -> At {
        At { now_ms: self.now_ms, run: run_id(self.run) }
    }

    /// Sends a reserve for `need` units, or a release where `need` is 0.
    pub(crate) fn ask(&mut self, at: usize, need: u64) {
        let live = self.gateways.len() as u64;
        let gateway = &mut self.gateways[at];
        gateway.q += 1;
        gateway.flight = Some(gateway.q);
        let call = QuotaCall {
            process: gateway.process,
            cell: gateway.held.hand.next_call(gateway.q),
            limit: gateway.limit,
            generation: gateway.generation,
            want: need,
            need,
            least: need.min(1),
            live,
        };
        let incarnation = gateway.member.incarnation();
        self.left.calls -= 1;
        self.send(Msg::Reserve { incarnation, call });
    }

    pub(crate) fn assert(&mut self, at: usize) {
        let live = self.gateways.iter().map(|gateway| gateway.process).collect();
        let gateway = &mut self.gateways[at];
        gateway.q += 1;
        gateway.flight = Some(gateway.q);
        let (process, incarnation) = (gateway.process, gateway.member.incarnation());
        let call = AssertCall { process, incarnation, live, done: true };
        let assertion = gateway.held.assertion(gateway.q);
        let q = gateway.q;
        self.left.calls -= 1;
        self.send(Msg::Assert { call, q, assertion });
    }

    fn send(&mut self, msg: Msg) {
        let order = order(&msg);
        if let Err(n) = self.net.binary_search_by_key(&order, |(order, _)| *order) {
            self.net.insert(n, (order, msg));
        }
    }

    /// Hands message `n` over, and leaves it under way when it is to come again.
    pub(crate) fn deliver(&mut self, n: usize, again: bool) {
        let (_, msg) = if again { self.net[n].clone() } else { self.net.remove(n) };
        if again {
            self.left.repeats -= 1;
        }
        self.receive(msg);
    }

    fn receive(&mut self, msg: Msg) {
        match msg {
            Msg::Reserve { incarnation, call } => self.execute(incarnation, &call),
            Msg::Assert { call, q, assertion } => self.learn(&call, q, &assertion),
            Msg::Answer { to, reply, then } => {
                let Some(gateway) = self.alive(to, reply.q) else { return };
                gateway.held.accept(&gateway.member, &reply);
                if gateway.forgot < reply.q
                    && reply.incarnation == gateway.member.incarnation()
                    && gateway.seen.is_none_or(|seen| seen.newest <= then.newest)
                {
                    gateway.seen = Some(then);
                }
            }
            Msg::Learn { to, q, told } => {
                if let Some(gateway) = self.alive(to, q) {
                    gateway.member.learn(told);
                }
            }
            Msg::Acked { to, q, named } => {
                if let Some(gateway) = self.alive(to, q) {
                    gateway.member.acknowledge(named);
                }
            }
        }
    }

    fn alive(&mut self, process: ProcessId, q: u64) -> Option<&mut Gateway> {
        let gateway = self.gateways.iter_mut().find(|gateway| gateway.process == process)?;
        if gateway.flight == Some(q) {
            gateway.flight = None;
        }
        Some(gateway)
    }

    fn is_alive(&self, process: ProcessId) -> bool {
        self.gateways.iter().any(|gateway| gateway.process == process)
    }

    fn execute(&mut self, incarnation: Incarnation, call: &QuotaCall) {
        let at = self.at();
        let (to, q) = (call.process, call.cell.last_call);
        let before = self.store.kept.counter.cells.get(&to).copied().unwrap_or_default();
        let generation = self.store.kept.counter.generation;
        let Store { shard, kept } = &mut self.store;
        let life = (shard.incarnation, shard.learning.is_some());
        let done = kept.reserve(shard, incarnation, call, &at);
        self.observe_learning(life);
        let Some((answer, copy)) = done else {
            let told = self.store.shard.incarnation;
            return self.reply(to, Msg::Learn { to, q, told });
        };
        let mut newest = 0;
        if let QuotaAnswer::State(state) = &answer {
            newest = state.cell.last_call;
            self.observe_grant(to, &before, &state.cell, generation);
        } else {
            self.truth.gone = true;
        }
        let out = self.truth.out.values().sum();
        let then = Then { newest, limit: self.store.kept.counter.limit, out };
        let copy = Some(Box::new(copy));
        let reply = Box::new(QuotaReply { incarnation, q, answer, copy });
        self.reply(to, Msg::Answer { to, reply, then });
    }

    fn learn(&mut self, call: &AssertCall, q: u64, assertion: &Assertion) {
        let at = self.at();
        let shard = &mut self.store.shard;
        let life = (shard.incarnation, shard.learning.is_some());
        let stage = shard.assert(call, &at);
        self.observe_learning(life);
        let to = call.process;
        let Some(stage) = stage else {
            let told = self.store.shard.incarnation;
            return self.reply(to, Msg::Learn { to, q, told });
        };
        let Store { shard, kept } = &mut self.store;
        let (cell, copy) = (assertion.cell.as_ref(), assertion.copy.as_deref());
        if stage == Stage::Learning {
            self.truth.asserted.insert(to);
            let best = &mut self.truth.newest;
            if copy.is_some_and(|copy| best.as_ref().is_none_or(|best| best.rank() < copy.rank())) {
                *best = copy.cloned();
            }
        }
        kept.assert(shard, stage, to, cell, copy);
        self.reply(to, Msg::Acked { to, q, named: call.incarnation });
    }

    /// Answers to processes that ended go nowhere.
    fn reply(&mut self, to: ProcessId, msg: Msg) {
        if !self.is_alive(to) {
            return;
        }
        if self.prompt && !matches!(msg, Msg::Answer { .. }) {
            self.receive(msg);
        } else {
            self.send(msg);
        }
    }

    fn observe_grant(&mut self, to: ProcessId, before: &Cell, after: &Cell, generation: u64) {
        let same = before.first_call == after.first_call;
        let before = if same { *before } else { Cell::default() };
        let total: u64 = self.truth.out.values().sum();
        let out = self.truth.out.entry(to).or_default();
        let returned = after.returned.saturating_sub(before.returned);
        *out = *out + after.granted.saturating_sub(before.granted) - returned;
        let counter = &self.store.kept.counter;
        if generation < counter.generation && 1 < counter.generation {
            self.truth.ceiling = counter.limit.max(total - returned);
        }
    }

    /// When learning has ended: what may now be granted a second time.
    fn observe_learning(&mut self, (was, was_learning): (Incarnation, bool)) {
        let shard = &self.store.shard;
        let truth = &mut self.truth;
        if shard.incarnation != was {
            truth.asserted.clear();
            let kept = self.store.kept.copy();
            truth.newest = Some(kept);
        } else if was_learning && shard.learning.is_none() {
            let known = |process: &ProcessId| {
                let cell = truth.newest.as_ref().and_then(|copy| copy.counter.cells.get(process));
                cell.map_or(0, Cell::taken)
            };
            let lost = |process: &ProcessId| {
                !truth.asserted.contains(process) || truth.forgetful.contains(process)
            };
            let out = truth.out.iter().filter(|(process, _)| lost(process));
            truth.excused += out.map(|(p, out)| out.saturating_sub(known(p))).sum::<u64>();
            truth.asserted.clear();
            truth.newest = None;
        }
    }

    pub(crate) fn spend(&mut self, at: usize) {
        let spent = self.gateways[at].held.hand.spend(1);
        assert!(spent);
        self.truth.admitted += 1;
    }

    pub(crate) fn hear_limit(&mut self, at: usize, limit: u64) {
        let gateway = &mut self.gateways[at];
        gateway.limit = limit;
        gateway.generation = 2;
        gateway.held.hand.give_back(u64::MAX);
    }

    pub(crate) fn crash(&mut self, at: usize) {
        let process = self.gateways[at].process;
        let (limit, generation) = (self.gateways[at].limit, self.gateways[at].generation);
        self.gateways[at] = Gateway { generation, ..self.process(limit) };
        self.net.retain(|(_, msg)| match msg {
            Msg::Answer { to, .. } | Msg::Learn { to, .. } | Msg::Acked { to, .. } => {
                *to != process
            }
            Msg::Reserve { .. } | Msg::Assert { .. } => true,
        });
        self.left.crashes -= 1;
    }

    pub(crate) fn forget_hand(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        assert!(gateway.held.forget_hand());
        gateway.seen = None;
        gateway.forgot = gateway.q;
        self.left.forgets -= 1;
    }

    pub(crate) fn forget_copy(&mut self, at: usize) {
        self.truth.forgetful.insert(self.gateways[at].process);
        self.gateways[at].held.forget_copy();
        self.left.drops -= 1;
    }

    pub(crate) fn flush(&mut self, faults: &Faults) {
        self.store = Store::default();
        self.disk = Store::default();
        self.lose(faults);
        self.left.flushes -= 1;
    }

    pub(crate) fn restart(&mut self, faults: &Faults) {
        self.store = self.disk.clone();
        self.run += 1;
        self.lose(faults);
        self.left.restarts -= 1;
    }

    fn lose(&mut self, faults: &Faults) {
        self.now_ms += faults.loss_ms;
    }
}

fn order(msg: &Msg) -> u64 {
    let mut hasher = DefaultHasher::new();
    msg.hash(&mut hasher);
    hasher.finish()
}

fn run_id(run: u8) -> RunId {
    RunId([run; 20])
}
