//! Quota leases: the arithmetic of the store's side and of the gateway's side.
//!
//! The store keeps one [`QuotaCounter`] per counter and window, with a [`Cell`] per process. A
//! gateway keeps a [`Hand`]: units it was granted and has neither spent nor returned. All totals
//! only grow, so answers may be lost, repeated or reordered. design.md, section 4.

use std::collections::BTreeMap;

use crate::domain::counter::ProcessId;

mod spread;
#[cfg(test)]
mod tests;

pub use spread::{Reported, Spread};

/// A grant never leaves more than this share of a limit unspent in one process, so that a crash
/// wastes no more: one part in twenty.
const CAP_DIVISOR: u64 = 20;

/// The totals of one process on one counter. All but `first_call` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The call with which the process began on this counter (`q0`).
    pub first_call: u64,
    /// The last call executed (`q`).
    pub last_call: u64,
    /// Units granted (`g`).
    pub granted: u64,
    /// Units returned unspent (`r`).
    pub returned: u64,
    /// Units spent, as last reported (`s`).
    pub spent: u64,
    /// Units admitted in `local` mode, without a grant (`d`).
    pub local: u64,
}

impl Cell {
    /// Units granted and neither returned nor, as far as reported, spent.
    #[must_use]
    pub fn unspent(&self) -> u64 {
        self.granted.saturating_sub(self.returned).saturating_sub(self.spent)
    }

    /// Units this process took out of the limit.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.granted.saturating_sub(self.returned).saturating_add(self.local)
    }

    /// What two reports of one cell say together: totals only grow, so the higher one is true.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            first_call: self.first_call.max(other.first_call),
            last_call: self.last_call.max(other.last_call),
            granted: self.granted.max(other.granted),
            returned: self.returned.max(other.returned),
            spent: self.spent.max(other.spent),
            local: self.local.max(other.local),
        }
    }
}

/// One quota counter in one window, as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaCounter {
    /// Rises with every change.
    pub version: u64,
    /// The limit of the highest generation seen.
    pub limit: u64,
    /// A position in the change feed: the limit of the highest one holds.
    pub generation: u64,
    /// Units taken by processes whose cells are gone.
    pub folded: u64,
    /// One cell per process.
    pub cells: BTreeMap<ProcessId, Cell>,
}

/// One call of a process on one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuotaCall {
    /// Who asks.
    pub process: ProcessId,
    /// The caller's totals; `last_call` is this call's number, above all earlier ones.
    pub cell: Cell,
    /// The limit as the caller knows it.
    pub limit: u64,
    /// Where in the change feed the caller knows it from.
    pub generation: u64,
    /// Units the caller would like to hold.
    pub want: u64,
    /// Units that requests are waiting for now.
    pub need: u64,
    /// The smallest waiting request's cost less what is in hand: fewer units help nobody.
    pub least: u64,
    /// Live gateways. It sizes leases and nothing else.
    pub live: u64,
}

/// What the store says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuotaState {
    /// The caller's cell after the call.
    pub cell: Cell,
    /// Units that nobody holds and nobody has used.
    pub remaining: u64,
    /// Units that other processes hold, or lost when they ended.
    pub held_by_others: u64,
    /// The limit that holds.
    pub limit: u64,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaAnswer {
    /// The state after the call, with whatever was granted in the cell.
    State(QuotaState),
    /// The store has lost what the caller was granted: it drops its hand and begins anew.
    Gone,
}

impl QuotaCounter {
    /// Units that nobody holds and nobody has used.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        let taken: u64 = self.cells.values().map(Cell::taken).fold(0, u64::saturating_add);
        self.limit.saturating_sub(self.folded).saturating_sub(taken)
    }

    /// Units known to be spent: a dead process's unspent ones are lost and not among them.
    #[must_use]
    pub fn spent(&self) -> u64 {
        let used = |cell: &Cell| cell.spent.saturating_add(cell.local);
        self.cells.values().map(used).fold(self.folded, u64::saturating_add)
    }

    /// Executes one call: steps 2 to 4 of `reserve` in design.md, section 4.
    pub fn reserve(&mut self, call: &QuotaCall) -> QuotaAnswer {
        let known = self.cells.get(&call.process).copied();
        if let Some(cell) = known.filter(|cell| call.cell.first_call < cell.first_call) {
            return self.state(call, cell);
        }
        let begun = known.filter(|cell| cell.first_call == call.cell.first_call);
        let fresh = Cell { first_call: call.cell.first_call, ..Cell::default() };
        let mut cell = begun.unwrap_or(fresh);
        if cell.granted < call.cell.granted {
            return QuotaAnswer::Gone;
        }
        if begun.is_none() {
            // The process had forgotten the counter: what its old cell took stays taken.
            let forgotten = known.as_ref().map_or(0, Cell::taken);
            self.folded = self.folded.saturating_add(forgotten);
        }
        if call.cell.last_call <= cell.last_call {
            return self.state(call, cell);
        }
        cell.last_call = call.cell.last_call;
        cell.returned = cell.returned.max(call.cell.returned);
        cell.spent = cell.spent.max(call.cell.spent);
        cell.local = cell.local.max(call.cell.local);
        if self.generation <= call.generation {
            self.generation = call.generation;
            self.limit = call.limit;
        }
        self.cells.insert(call.process, cell);
        cell.granted =
            cell.granted.saturating_add(grant(self.remaining(), self.limit, &cell, call));
        self.cells.insert(call.process, cell);
        self.version = self.version.saturating_add(1);
        debug_assert!(cell.returned.saturating_add(cell.spent) <= cell.granted);
        self.state(call, cell)
    }

    /// Moves the cells of processes that are gone into `folded`. Their unspent units stay taken.
    pub fn fold(&mut self, gone: impl Fn(ProcessId) -> bool) {
        let mut folded = self.folded;
        self.cells.retain(|process, cell| {
            if gone(*process) {
                folded = folded.saturating_add(cell.taken());
            }
            !gone(*process)
        });
        self.folded = folded;
    }

    fn state(&self, call: &QuotaCall, cell: Cell) -> QuotaAnswer {
        let others = self.cells.iter().filter(|(process, _)| **process != call.process);
        let held_by_others = others.map(|(_, cell)| cell.unspent()).fold(0, u64::saturating_add);
        let remaining = self.remaining();
        QuotaAnswer::State(QuotaState { cell, remaining, held_by_others, limit: self.limit })
    }
}

/// How many units a call is granted: the waiting cost always, more only within a fair share and
/// within what a crash may waste.
///
/// What earlier calls were granted whose answers the caller has not seen comes with this answer
/// too, and serves what waits: else every call that timed out would be granted anew.
fn grant(remaining: u64, limit: u64, cell: &Cell, call: &QuotaCall) -> u64 {
    let unseen = cell.granted.saturating_sub(call.cell.granted);
    if remaining < call.least.saturating_sub(unseen) {
        return 0;
    }
    let share = remaining.div_ceil(call.live.max(1).saturating_mul(2));
    let share = if share == 1 { 0 } else { share };
    let cap = (limit / CAP_DIVISOR).saturating_sub(cell.unspent());
    let (need, want) = (call.need.saturating_sub(unseen), call.want.saturating_sub(unseen));
    remaining.min(need.max(want.min(share).min(cap)))
}

/// The gateway's side of one counter in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hand {
    /// Totals as this process knows them; `spent` is exact here.
    cell: Cell,
    /// What the last answer said remains at the store.
    remaining: u64,
    /// What the last answer said others hold.
    held_by_others: u64,
    /// The size of the last grant.
    last_grant: u64,
    /// `spent` at the last answer: what was spent since tells the pace.
    spent_at_answer: u64,
    /// The newest call known to be executed.
    heard_call: u64,
    /// The totals the store is known to have heard of.
    heard: Heard,
}

/// What a store has heard of a hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Heard {
    returned: u64,
    spent: u64,
    local: u64,
}

impl Hand {
    /// Units that can be spent now, without asking.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.cell.unspent()
    }

    /// The totals as this process knows them.
    #[must_use]
    pub fn totals(&self) -> Cell {
        self.cell
    }

    /// Spends units, if as many are in hand.
    pub fn spend(&mut self, cost: u64) -> bool {
        let enough = cost <= self.units();
        if enough {
            self.cell.spent = self.cell.spent.saturating_add(cost);
        }
        enough
    }

    /// Counts units admitted in `local` mode, without a grant: the store hears of them with the
    /// next call, before it grants anything.
    pub fn admit_locally(&mut self, cost: u64) {
        self.cell.local = self.cell.local.saturating_add(cost);
    }

    /// Units nobody has used or holds, plus those in hand: what a client may still use, as far
    /// as this gateway knows.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining.saturating_add(self.units()).saturating_sub(self.unsettled())
    }

    /// What the last answer said remains at the store, beyond what is in hand.
    #[must_use]
    pub fn remaining_at_store(&self) -> u64 {
        self.remaining
    }

    /// What the last answer said other processes hold.
    #[must_use]
    pub fn held_by_others(&self) -> u64 {
        self.held_by_others
    }

    /// What an answer last said remains at the store; `None` before any.
    #[must_use]
    pub fn last_seen(&self) -> Option<u64> {
        (self.heard_call != 0).then_some(self.remaining)
    }

    /// Units admitted in `local` mode that the store has not heard of.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.cell.local.saturating_sub(self.heard.local)
    }

    /// Whether it is time to ask ahead: below half of the last grant, and something is left.
    #[must_use]
    pub fn is_low(&self) -> bool {
        1 < self.last_grant && self.units() < self.last_grant / 2 && 0 < self.remaining
    }

    /// Units spent since the last answer: the recent pace.
    #[must_use]
    pub fn spent_since_answer(&self) -> u64 {
        self.cell.spent.saturating_sub(self.spent_at_answer)
    }

    /// Gives units back: they leave the hand at once, the store hears of it with the next call.
    pub fn give_back(&mut self, units: u64) {
        self.cell.returned = self.cell.returned.saturating_add(units.min(self.units()));
    }

    /// The totals to send with call number `q`, which is above all earlier ones of the process.
    pub fn next_call(&mut self, q: u64) -> Cell {
        if self.cell.first_call == 0 {
            self.cell.first_call = q;
        }
        self.cell.last_call = self.cell.last_call.max(q);
        Cell { last_call: q, ..self.cell }
    }

    /// Whether a call was made since the hand was begun or dropped.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.cell.first_call != 0
    }

    /// The number of the newest call made.
    #[must_use]
    pub fn newest_call(&self) -> u64 {
        self.cell.last_call
    }

    /// Whether dropping the hand loses no units: none in hand, the newest call answered, and all
    /// that was given back heard of.
    #[must_use]
    pub fn may_be_forgotten(&self) -> bool {
        self.units() == 0
            && self.heard_call == self.cell.last_call
            && self.heard.returned == self.cell.returned
    }

    /// Units spent, as the store has heard.
    #[must_use]
    pub fn spent_as_heard(&self) -> u64 {
        self.heard.spent
    }

    /// Whether the store has heard of all that was spent and given back.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        let Cell { returned, spent, local, .. } = self.cell;
        self.heard == Heard { returned, spent, local }
    }

    /// Takes an answer in. An answer from before the hand was dropped is ignored.
    pub fn merge(&mut self, answer: &QuotaAnswer) {
        match answer {
            QuotaAnswer::State(state) if state.cell.first_call == self.cell.first_call => {
                let gain = state.cell.granted.saturating_sub(self.cell.granted);
                self.cell.granted = self.cell.granted.max(state.cell.granted);
                let Heard { returned, spent, local } = self.heard;
                self.heard = Heard {
                    returned: returned.max(state.cell.returned),
                    spent: spent.max(state.cell.spent),
                    local: local.max(state.cell.local),
                };
                if state.cell.last_call < self.heard_call {
                    // A late answer: its units count, what it says of others is out of date.
                    return;
                }
                self.heard_call = state.cell.last_call;
                self.remaining = state.remaining;
                self.held_by_others = state.held_by_others;
                self.last_grant = gain;
                self.spent_at_answer = self.cell.spent;
            }
            QuotaAnswer::State(_) => {}
            QuotaAnswer::Gone => {
                // What the store never heard of is owed all the same.
                let local = self.unsettled();
                *self = Self { cell: Cell { local, ..Cell::default() }, ..Self::default() };
            }
        }
    }
}
