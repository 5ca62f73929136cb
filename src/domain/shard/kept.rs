//! One quota counter as a shard keeps it, through losses.

use std::collections::BTreeMap;

use crate::domain::counter::ProcessId;
use crate::domain::lease::{Cell, QuotaAnswer, QuotaCall, QuotaCounter};
use crate::domain::shard::{At, Entry, Incarnation, Shard, Stage};

/// A whole counter as it once was: in an answer, in a gateway's memory, in an assert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterCopy {
    /// The life of the shard in which a call last changed it.
    pub written_in: Incarnation,
    /// The counter.
    pub counter: QuotaCounter,
}

impl CounterCopy {
    /// What copies of one counter are compared by: the highest is the newest.
    #[must_use]
    pub fn rank(&self) -> (Incarnation, u64) {
        (self.written_in, self.counter.version)
    }
}

/// A quota counter and what its shard has been told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kept {
    /// The counter as it is.
    pub counter: QuotaCounter,
    /// The life of the shard in which a call last changed it.
    ///
    /// Not the shard's own: a store may come back with its shard's new life and without what was
    /// asserted in it, and must not take its old counter for a new one.
    pub written_in: Incarnation,
    /// The life in which the cells below were asserted.
    pub asserted_in: Incarnation,
    /// What each process asserted for itself while the shard was learning.
    pub asserted: BTreeMap<ProcessId, Cell>,
}

impl Kept {
    /// Executes one call that names the incarnation `from`; `None` means LEARN.
    pub fn reserve(
        &mut self,
        shard: &mut Shard,
        from: Incarnation,
        call: &QuotaCall,
        at: &At,
    ) -> Option<(QuotaAnswer, CounterCopy)> {
        match shard.enter(from, at) {
            Entry::Learn => None,
            Entry::Open => {
                self.asserted.clear();
                let version = self.counter.version;
                let answer = self.counter.reserve(call);
                if self.counter.version != version {
                    self.written_in = shard.incarnation;
                }
                Some((answer, self.copy()))
            }
        }
    }

    /// Takes one counter of an assert in, after [`Shard::assert`] has told the stage.
    ///
    /// While learning the newest copy replaces the counter, and what the owners asserted for
    /// themselves goes back over it: nobody knows a cell better than its owner. Afterwards grants
    /// have followed, and a copy would undo them.
    pub fn assert(
        &mut self,
        shard: &Shard,
        stage: Stage,
        process: ProcessId,
        cell: Option<&Cell>,
        copy: Option<&CounterCopy>,
    ) {
        match stage {
            Stage::Learning => self.learn(shard.incarnation, process, cell, copy),
            Stage::After => {
                let stored = self.counter.cells.get(&process).map_or(0, |cell| cell.last_call);
                if let Some(cell) = cell.filter(|cell| stored < cell.last_call) {
                    put(&mut self.counter, process, cell);
                    self.counter.version = self.counter.version.saturating_add(1);
                    self.written_in = shard.incarnation;
                }
            }
        }
    }

    /// The counter as it is, to be remembered by whoever is answered.
    #[must_use]
    pub fn copy(&self) -> CounterCopy {
        CounterCopy { written_in: self.written_in, counter: self.counter.clone() }
    }

    fn learn(
        &mut self,
        incarnation: Incarnation,
        process: ProcessId,
        cell: Option<&Cell>,
        copy: Option<&CounterCopy>,
    ) {
        if self.asserted_in != incarnation {
            self.asserted_in = incarnation;
            self.asserted.clear();
        }
        if let Some(cell) = cell {
            let known = self.asserted.entry(process).or_insert(*cell);
            if known.first_call == cell.first_call {
                *known = known.joined(cell);
            } else if known.first_call < cell.first_call {
                *known = *cell;
            }
        }
        let rank = (self.written_in, self.counter.version);
        if let Some(copy) = copy.filter(|copy| rank < copy.rank()) {
            self.counter = copy.counter.clone();
            self.written_in = copy.written_in;
        }
        for (process, cell) in &self.asserted {
            put(&mut self.counter, *process, cell);
        }
    }
}

/// Puts what an owner says of its cell into a counter.
fn put(counter: &mut QuotaCounter, process: ProcessId, cell: &Cell) {
    let Some(known) = counter.cells.get_mut(&process) else {
        counter.cells.insert(process, *cell);
        return;
    };
    if known.first_call == cell.first_call {
        *known = known.joined(cell);
    } else if known.first_call < cell.first_call {
        // The owner had forgotten the counter: what its old cell took stays taken.
        counter.folded = counter.folded.saturating_add(known.taken());
        *known = *cell;
    }
}
