use super::*;
use crate::domain::lease::{QuotaAnswer, QuotaCall};

const A: ProcessId = ProcessId(1);
const B: ProcessId = ProcessId(2);

fn at(now_ms: u64, run: u8) -> At {
    At { now_ms, run: RunId([run; 20]) }
}

fn assert_of(process: ProcessId, incarnation: u64, live: &[ProcessId], done: bool) -> AssertCall {
    let live = live.iter().copied().collect();
    AssertCall { process, incarnation: Incarnation(incarnation), live, done }
}

/// A shard that has learned, at 2,000 ms: its incarnation is 1,001.
fn open() -> Shard {
    let mut shard = Shard::default();
    shard.enter(Incarnation(0), &at(1_000, 1));
    shard.assert(&assert_of(A, 1_001, &[A], true), &at(1_000, 1));
    assert_eq!(shard.enter(Incarnation(1_001), &at(2_000, 1)), Entry::Open);
    shard
}

#[test]
fn a_loss_begins_a_life_above_all_that_anybody_knows() {
    //    caller's, time, run  expect
    check(0, 9_000, 2, 9_001); // Another run.
    check(1_001, 9_000, 2, 9_001);
    check(1_001, 500, 2, 1_002); // The clock went back.
    check(7_000, 500, 1, 7_001); // The caller knows of a life that the store lost.
    check(1_001, 9_000, 1, 1_001); // Nothing was lost.
    check(1_000, 9_000, 1, 1_001); // The caller is behind.
}

#[track_caller]
fn check(caller: u64, now_ms: u64, run: u8, expect: u64) {
    let mut shard = open();
    let entry = shard.enter(Incarnation(caller), &at(now_ms, run));
    assert_eq!(shard.incarnation, Incarnation(expect));
    assert_eq!(entry == Entry::Open, caller == expect);
    assert_eq!(shard.learning.is_some(), expect != 1_001);
    assert_eq!(shard.blind_since_ms, if expect == 1_001 { 1_000 } else { now_ms });
}

#[test]
fn learning_ends_when_all_that_are_listed_are_done_or_time_is_up() {
    let (a, b) = (assert_of(A, 1_001, &[A, B], true), assert_of(B, 1_001, &[B], true));
    let half = assert_of(B, 1_001, &[B], false);
    //        asserts by time                 ends at
    ends_at(&[], 6_000); // Nobody came: nobody knows who is alive.
    ends_at(&[(1_000, &a), (1_100, &b)], 2_000); // At least a second.
    ends_at(&[(1_000, &a), (2_500, &b)], 2_500); // The listed second comes later.
    ends_at(&[(1_000, &a)], 6_000); // It never comes.
    ends_at(&[(1_000, &a), (5_500, &half)], 6_500); // It is still talking.
}

#[track_caller]
fn ends_at(asserts: &[(u64, &AssertCall)], expect: u64) {
    let opens = |probe_ms: u64| {
        let mut shard = Shard::default();
        shard.enter(Incarnation(0), &at(1_000, 1));
        for (now_ms, call) in asserts.iter().filter(|(now_ms, _)| *now_ms <= probe_ms) {
            assert_eq!(shard.assert(call, &at(*now_ms, 1)), Some(Stage::Learning));
        }
        shard.enter(Incarnation(1_001), &at(probe_ms, 1)) == Entry::Open
    };
    assert!(!opens(expect - 1), "before {expect}");
    assert!(opens(expect), "at {expect}");
}

#[test]
fn learning_ends_while_asserts_arrive_forever() {
    let mut shard = Shard::default();
    shard.enter(Incarnation(0), &at(1_000, 1));
    let call = assert_of(A, 1_001, &[A], false);
    let stage = |shard: &mut Shard, now_ms| shard.assert(&call, &at(now_ms, 1));
    for now_ms in (1_000..31_000).step_by(500) {
        assert_eq!(stage(&mut shard, now_ms), Some(Stage::Learning));
    }
    assert_eq!(stage(&mut shard, 31_000), Some(Stage::After));
    assert_eq!(stage(&mut shard, 1_000), Some(Stage::After), "over is over");
}

#[test]
fn an_assert_in_a_life_that_is_over_is_told_to_learn() {
    let mut shard = open();
    assert_eq!(shard.assert(&assert_of(A, 1_000, &[A], true), &at(3_000, 1)), None);
    assert_eq!(shard.assert(&assert_of(A, 1_001, &[A], true), &at(3_000, 2)), None);
}

#[test]
fn the_newest_copy_replaces_the_counter_and_owners_know_their_cells_best() {
    let mut shard = open();
    let mut kept = Kept::default();
    let mut held = [Held::default(), Held::default()];
    let mut members = [Member::begun(Incarnation(1_001), false); 2];
    for (process, need) in [(A, 3), (B, 2), (A, 1)] {
        ask(&mut shard, &mut kept, &members[0], &mut held[place(process)], process, need, 1);
    }
    assert!(held[0].hand.spend(4));
    let mut lost = Shard::default();
    assert_eq!(lost.enter(Incarnation(1_001), &at(9_000, 1)), Entry::Learn);
    let mut found = Kept::default();
    for process in [B, A] {
        let member = &mut members[place(process)];
        member.learn(lost.incarnation);
        let call = assert_of(process, lost.incarnation.0, &[A, B], true);
        let stage = lost.assert(&call, &at(9_000, 1)).unwrap();
        let Assertion { cell, copy } = held[place(process)].assertion(50);
        found.assert(&lost, stage, process, cell.as_ref(), copy.as_deref());
        member.acknowledge(lost.incarnation);
        assert!(member.may_reserve());
    }
    assert_eq!(found.counter.remaining(), kept.counter.remaining());
    assert_eq!(found.counter.cells[&A].spent, 4, "more than any copy showed");
    assert_eq!(lost.enter(Incarnation(9_001), &at(10_000, 1)), Entry::Open);
    ask(&mut lost, &mut found, &members[1], &mut held[1], B, 9, 51);
    assert_eq!(held[1].hand.units(), 6, "two in hand, and the four that remain");
}

fn place(process: ProcessId) -> usize {
    usize::from(process == B)
}

fn ask(
    shard: &mut Shard,
    kept: &mut Kept,
    member: &Member,
    held: &mut Held,
    process: ProcessId,
    need: u64,
    more: u64,
) {
    let q = held.hand.newest_call() + more;
    let cell = held.hand.next_call(q);
    let terms = (10, 1);
    let (limit, generation) = terms;
    let call = QuotaCall { process, cell, limit, generation, want: 0, need, least: 1, live: 2 };
    let incarnation = member.incarnation();
    let (answer, copy) = kept.reserve(shard, incarnation, &call, &at(10_000, 1)).unwrap();
    assert!(matches!(answer, QuotaAnswer::State(_)));
    let copy = Some(Box::new(copy));
    held.accept(member, &QuotaReply { incarnation, q, answer, copy });
}

#[test]
fn shares_of_one_list_add_up() {
    let live: BTreeSet<ProcessId> = (1..=3).map(ProcessId).collect();
    let shares = |remaining| [1, 2, 3].map(|n| local_share(remaining, &live, ProcessId(n)));
    assert_eq!(shares(8), [3, 3, 2]);
    assert_eq!(shares(1), [1, 0, 0]);
    assert_eq!(local_share(8, &live, ProcessId(4)), 0);
    assert_eq!(local_share(8, &BTreeSet::new(), ProcessId(4)), 0);
}
