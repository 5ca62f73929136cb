//! `local` mode and its settlement, by random histories: a store goes away and comes back, and
//! gateways admit their shares meanwhile, some of them ending on the way.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use turnpike::domain::counter::ProcessId;
use turnpike::domain::lease::{Cell, Hand, QuotaAnswer, QuotaCall, QuotaCounter};
use turnpike::domain::shard::local_share;

/// One gateway on its state directory.
struct Gateway {
    process: ProcessId,
    q: u64,
    hand: Hand,
    /// What the store said remains, if it ever said anything in this window.
    remaining: Option<u64>,
    /// What is left of the share, once taken: on disk, so that no restart takes it twice.
    share: Option<u64>,
    /// What ended processes on this directory admitted and nobody settled yet: on disk, too.
    unsettled: Vec<(ProcessId, Cell)>,
    /// This process's first and last call and what it admitted by itself: on disk, too.
    journal: Cell,
}

struct Net {
    limit: u64,
    counter: QuotaCounter,
    gateways: Vec<Gateway>,
    live: BTreeSet<ProcessId>,
    admitted: u64,
    admitted_locally: u64,
    lost: u64,
    ended: u64,
}

impl Gateway {
    fn new(process: u64) -> Self {
        Self {
            process: ProcessId(process),
            q: 0,
            hand: Hand::default(),
            remaining: None,
            share: None,
            unsettled: Vec::new(),
            journal: Cell::default(),
        }
    }
}

impl Net {
    fn new(limit: u64, gateways: u64) -> Self {
        let live = (1..=gateways).map(ProcessId).collect();
        Self {
            limit,
            counter: QuotaCounter::default(),
            gateways: (1..=gateways).map(Gateway::new).collect(),
            live,
            admitted: 0,
            admitted_locally: 0,
            lost: 0,
            ended: 0,
        }
    }

    fn call(&mut self, process: ProcessId, cell: Cell, need: u64) -> QuotaAnswer {
        let live = self.gateways.len() as u64;
        let (limit, generation, least) = (self.limit, 1, need.min(1));
        let call = QuotaCall { process, cell, limit, generation, want: need, need, least, live };
        self.counter.reserve(&call)
    }

    /// One call with the store there. Debts of ended processes go first. The answer may be lost.
    fn ask(&mut self, at: usize, need: u64, heard: bool) {
        for (process, cell) in std::mem::take(&mut self.gateways[at].unsettled) {
            let before = self.counter.remaining();
            self.call(process, cell, 0);
            self.call(process, cell, 0);
            assert!(before <= self.counter.remaining() + cell.local, "settled once");
        }
        let gateway = &mut self.gateways[at];
        gateway.q += 1;
        let cell = gateway.hand.next_call(gateway.q);
        gateway.journal = Cell { granted: 0, returned: 0, spent: 0, ..cell };
        let process = gateway.process;
        let answer = self.call(process, cell, need);
        let QuotaAnswer::State(state) = &answer else { panic!("nothing was lost") };
        let gateway = &mut self.gateways[at];
        if heard {
            gateway.hand.merge(&answer);
            gateway.remaining = Some(state.remaining);
        }
    }

    fn spend(&mut self, at: usize) -> bool {
        let spent = self.gateways[at].hand.spend(1);
        self.admitted += u64::from(spent);
        spent
    }

    /// What one gateway takes to remain, while it cannot ask.
    fn seen(&self, at: usize) -> u64 {
        self.gateways[at].remaining.unwrap_or(self.limit)
    }

    fn spend_away(&mut self, at: usize) {
        if self.spend(at) {
            return;
        }
        let whole = local_share(self.seen(at), &self.live, self.gateways[at].process);
        let gateway = &mut self.gateways[at];
        let left = gateway.share.get_or_insert(whole);
        if 0 < *left {
            *left -= 1;
            gateway.hand.admit_locally(1);
            gateway.journal.local += 1;
            self.admitted += 1;
            self.admitted_locally += 1;
        }
    }

    /// The process ends; another begins on its directory, and is on no list yet.
    fn end(&mut self, at: usize) {
        self.ended += 1;
        let gateway = &mut self.gateways[at];
        self.lost += gateway.hand.units();
        let mut cell = gateway.journal;
        cell.first_call = cell.first_call.max(1);
        cell.last_call += 1;
        let mut unsettled = std::mem::take(&mut gateway.unsettled);
        unsettled.push((gateway.process, cell));
        let share = gateway.share;
        let next = Gateway::new(100 + self.ended);
        *gateway = Gateway { share, unsettled, ..next };
    }
}

/// (which gateway, what, how much)
type Script = Vec<(usize, u8, u64)>;

fn script(max: usize) -> impl Strategy<Value = Script> {
    prop::collection::vec((0_usize..4, 0_u8..8, 1_u64..6), 0..max)
}

fn config() -> ProptestConfig {
    let file = Box::new(FileFailurePersistence::Direct("tests/model/settle.regressions"));
    ProptestConfig { cases: 1_024, failure_persistence: Some(file), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn local_mode_costs_its_shares_and_is_settled_once(
        limit in 1_u64..60,
        gateways in 1_u64..5,
        before in script(40),
        away in script(60),
        all_tell_first: bool,
    ) {
        let mut net = Net::new(limit, gateways);
        let many = net.gateways.len();
        for (at, what, much) in before {
            match what {
                0..=2 => net.ask(at % many, much, what != 0),
                _ => { net.spend(at % many); }
            }
            prop_assert!(net.admitted <= limit);
        }
        let remained = net.counter.remaining();
        let seen = (0..many).map(|at| net.seen(at)).max().unwrap();
        for (at, what, _) in away {
            if what == 0 { net.end(at % many); } else { net.spend_away(at % many); }
        }
        let bound = limit + seen - remained;
        prop_assert!(net.admitted <= bound, "{} of {bound}", net.admitted);
        if all_tell_first {
            // As when the store was restarted: it grants nothing until everybody has asserted.
            (0..many).for_each(|at| net.ask(at, 0, true));
        }
        for _ in 0..limit {
            for at in 0..many {
                net.ask(at, 1, true);
                net.spend(at);
            }
        }
        prop_assert!(net.admitted <= limit + net.admitted_locally);
        if all_tell_first {
            prop_assert!(net.admitted <= bound, "{} of {bound}", net.admitted);
        }
        (0..many).for_each(|at| net.ask(at, 0, true));
        if net.ended == 0 {
            prop_assert_eq!(net.counter.spent(), net.admitted, "all that was admitted is told");
            prop_assert!(limit <= net.admitted);
        }
    }
}
