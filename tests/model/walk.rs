//! Which steps a world may take, and what must hold in every world reached.

use stateright::{Model, Property};
use turnpike::domain::shard::LEARN_MS_MIN;

use crate::faults::Faults;
use crate::world::{Gateway, Msg, World};

/// Every run of some gateways under some faults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) faults: Faults,
    pub(crate) properties: fn() -> Vec<Property<Walk>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Ask {
        at: usize,
        need: u64,
    },
    Assert {
        at: usize,
    },
    Spend {
        at: usize,
    },
    GiveBack {
        at: usize,
    },
    Forget {
        at: usize,
    },
    Drop {
        at: usize,
    },
    HearLimit {
        at: usize,
    },
    Timeout {
        at: usize,
    },
    Crash {
        at: usize,
    },
    Deliver {
        n: usize,
        again: bool,
    },
    Sync,
    Restart,
    Flush,
    /// Time passes until learning may end.
    Wait,
    /// Time passes until learning ends whoever is missing.
    WaitLong,
}

impl Walk {
    fn gateway_steps(&self, world: &World, at: usize, steps: &mut Vec<Step>) {
        let gateway = &world.gateways[at];
        let left = &world.left;
        // Gateways are alike: the second is the one that begins second.
        let begun = gateway.q != 0 || 1 < gateway.generation;
        if !begun && 0 < at && gateway.process.0 <= world.gateways.len() as u64 {
            let previous = &world.gateways[at - 1];
            if previous.q == 0 && previous.process.0 <= world.gateways.len() as u64 {
                return;
            }
        }
        let hand = &gateway.held.hand;
        let idle = gateway.flight.is_none() && 0 < left.calls;
        if idle && gateway.member.may_reserve() {
            if hand.units() == 0 {
                steps.extend((1..=self.faults.need_max).map(|need| Step::Ask { at, need }));
            } else if 0 < left.returns {
                steps.push(Step::GiveBack { at });
            }
        }
        if idle && !gateway.member.may_reserve() {
            steps.push(Step::Assert { at });
        }
        if 0 < hand.units() {
            steps.push(Step::Spend { at });
        }
        if 0 < left.forgets && hand.has_begun() && hand.may_be_forgotten() {
            steps.push(Step::Forget { at });
        }
        if 0 < left.drops && gateway.held.copy().is_some() && !hand.has_begun() {
            steps.push(Step::Drop { at });
        }
        if self.faults.limits.1.is_some() && gateway.generation < 2 {
            steps.push(Step::HearLimit { at });
        }
        if gateway.flight.is_some() && 0 < left.timeouts {
            steps.push(Step::Timeout { at });
        }
        if 0 < left.crashes && begun {
            steps.push(Step::Crash { at });
        }
    }

    fn store_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let left = &world.left;
        let loses = 0 < left.restarts;
        if loses && 0 < left.syncs && world.disk != world.store {
            steps.push(Step::Sync);
        }
        let counted = world.store.kept.counter.version != 0;
        if loses && counted {
            steps.push(Step::Restart);
        }
        if 0 < left.flushes && counted {
            steps.push(Step::Flush);
        }
        let Some(learning) = &world.store.shard.learning else { return };
        let shortest = learning.began_ms + LEARN_MS_MIN;
        if world.now_ms < shortest {
            steps.push(Step::Wait);
        } else if world.now_ms < learning.until_ms && (self.faults.late || all_asserted(world)) {
            steps.push(Step::WaitLong);
        }
    }
}

/// Whether everybody alive who remembers anything has asserted it.
fn all_asserted(world: &World) -> bool {
    let Some(learning) = &world.store.shard.learning else { return false };
    let knows = |gateway: &&Gateway| gateway.held.hand.has_begun() || gateway.held.copy().is_some();
    let mut known = world.gateways.iter().filter(knows);
    known.all(|gateway| learning.done.contains(&gateway.process))
}

impl Model for Walk {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.faults)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for at in 0..world.gateways.len() {
            self.gateway_steps(world, at, steps);
        }
        for (n, (_, msg)) in world.net.iter().enumerate() {
            steps.push(Step::Deliver { n, again: false });
            let worth_it = !matches!(msg, Msg::Acked { .. });
            if 0 < world.left.repeats && worth_it {
                steps.push(Step::Deliver { n, again: true });
            }
        }
        self.store_steps(world, steps);
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Ask { at, need } => world.ask(at, need),
            Step::Assert { at } => world.assert(at),
            Step::Spend { at } => world.spend(at),
            Step::GiveBack { at } => {
                world.gateways[at].held.hand.give_back(u64::MAX);
                world.left.returns -= 1;
                world.ask(at, 0);
            }
            Step::Forget { at } => world.forget_hand(at),
            Step::Drop { at } => world.forget_copy(at),
            Step::HearLimit { at } => world.hear_limit(at, self.faults.limits.1?),
            Step::Timeout { at } => {
                world.gateways[at].flight = None;
                world.left.timeouts -= 1;
            }
            Step::Crash { at } => world.crash(at),
            Step::Deliver { n, again } => world.deliver(n, again),
            Step::Sync => {
                world.disk = world.store.clone();
                world.left.syncs -= 1;
            }
            Step::Restart => world.restart(&self.faults),
            Step::Flush => world.flush(&self.faults),
            Step::Wait => {
                let learning = world.store.shard.learning.as_ref()?;
                world.now_ms = learning.began_ms + LEARN_MS_MIN;
            }
            Step::WaitLong => world.now_ms = world.store.shard.learning.as_ref()?.until_ms,
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        (self.properties)()
    }
}

/// Never more admitted than the limit, and what the faults that happened are priced at.
pub(crate) fn safe() -> Property<Walk> {
    Property::always(
        "admitted within the limit and what losses are priced at",
        |_: &Walk, world: &World| world.truth.admitted <= world.truth.ceiling + world.truth.excused,
    )
}

/// The price of all losses together: a gateway that is no witness holds at most one limit.
pub(crate) fn priced() -> Property<Walk> {
    Property::always("a loss costs at most one limit", |walk: &Walk, world: &World| {
        let losses = u64::from(walk.faults.restarts + walk.faults.flushes);
        world.truth.excused <= losses * walk.faults.limits.0
    })
}

/// Losses that everybody asserts in time after cost nothing.
pub(crate) fn free() -> Property<Walk> {
    Property::always("nothing is excused", |_: &Walk, world: &World| world.truth.excused == 0)
}

/// A store that was told everything never says that a grant is unknown to it.
pub(crate) fn never_gone() -> Property<Walk> {
    Property::always("no grant is ever gone", |_: &Walk, world: &World| !world.truth.gone)
}

/// A refused cost was not to be had, for all the gateway could know when it last asked: what was
/// neither admitted nor held by others, live or ended, was less.
pub(crate) fn live() -> Property<Walk> {
    Property::always("a refusal is true of when it was last asked", |_: &Walk, world: &World| {
        world.gateways.iter().all(|gateway| {
            let Some(seen) = gateway.seen else { return true };
            let refused = gateway.held.hand.remaining() + 1;
            seen.limit < seen.out + refused
        })
    })
}

pub(crate) fn whole() -> Property<Walk> {
    Property::sometimes("a run admits the whole limit", |walk: &Walk, world: &World| {
        world.truth.admitted == walk.faults.limits.1.unwrap_or(walk.faults.limits.0)
    })
}

pub(crate) fn over() -> Property<Walk> {
    Property::sometimes(
        "a run admits as much above the limit as its price allows",
        |_: &Walk, world: &World| {
            let truth = &world.truth;
            truth.ceiling < truth.admitted && truth.admitted == truth.ceiling + truth.excused
        },
    )
}
