//! Where the units of a quota are: used, held, lost or left; and whose call used so much of it.

use crate::domain::counter::ProcessId;
use crate::domain::lease::{Cell, Hand, QuotaCounter, QuotaState};

/// Where the units of a quota are. Of a limit that was not lowered, `used`, `lost` and `remaining`
/// make up the whole; `held` is a part of what remains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Admitted, as the store has heard. Units of processes long over are all counted here.
    pub reported: u64,
    /// Admitted, with what the process that asks has not reported yet.
    pub used: u64,
    /// In the hands of processes that are alive.
    pub held: u64,
    /// In the hands of processes that are not: nobody can use them in this window.
    pub lost: u64,
    /// Can still be used, by whoever holds them or will.
    pub remaining: u64,
}

impl QuotaCounter {
    /// Where the units of `limit` are. `own` is the cell of the process that asks as it knows it.
    #[must_use]
    pub fn spread(
        &self,
        limit: u64,
        own: Option<(ProcessId, Cell)>,
        is_live: impl Fn(ProcessId) -> bool,
    ) -> Spread {
        let reported = self.spent();
        let mut spread = Spread { reported, used: reported, remaining: limit, ..Spread::default() };
        for (process, stored) in &self.cells {
            let known =
                own.filter(|(own, cell)| own == process && cell.first_call == stored.first_call);
            let cell = known.map_or(*stored, |(_, cell)| stored.joined(&cell));
            let unreported = cell.spent.saturating_add(cell.local);
            let unreported = unreported.saturating_sub(stored.spent.saturating_add(stored.local));
            spread.used = spread.used.saturating_add(unreported);
            let unspent = if is_live(*process) { &mut spread.held } else { &mut spread.lost };
            *unspent = unspent.saturating_add(cell.unspent());
        }
        spread.remaining = limit.saturating_sub(spread.used).saturating_sub(spread.lost);
        spread
    }
}

/// Units of a quota that all processes together have reported as admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Before a call.
    pub before: u64,
    /// After it.
    pub after: u64,
}

impl Hand {
    /// What the call that `state` answers reported; to be asked before the answer is taken in.
    /// `None`: it is not of this hand.
    ///
    /// Calls are executed one after the other, and each adds what its process had not reported yet.
    /// So every unit is in between of exactly one call, unless answers are lost: then the next call
    /// of that process counts what the lost ones reported once more.
    #[must_use]
    pub fn reported(&self, state: &QuotaState) -> Option<Reported> {
        if state.cell.first_call != self.cell.first_call {
            return None;
        }
        let held = state.held_by_others.saturating_add(state.cell.unspent());
        let after = state.limit.saturating_sub(state.remaining).saturating_sub(held);
        let told = state.cell.spent.saturating_add(state.cell.local);
        let heard = self.heard.spent.saturating_add(self.heard.local);
        Some(Reported { before: after.saturating_sub(told.saturating_sub(heard)), after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_used_held_lost_or_left() {
        let cell = |granted, returned, spent, local| Cell {
            first_call: 1,
            last_call: 9,
            granted,
            returned,
            spent,
            local,
        };
        let (own, live, dead) = (ProcessId(1), ProcessId(2), ProcessId(3));
        let counter = QuotaCounter {
            limit: 100,
            folded: 5,
            cells: [(own, cell(20, 0, 10, 0)), (live, cell(8, 2, 3, 1)), (dead, cell(7, 0, 3, 0))]
                .into(),
            ..QuotaCounter::default()
        };
        let spread = |own| counter.spread(100, own, |process| process != dead);
        let all = Spread { reported: 22, used: 22, held: 13, lost: 4, remaining: 74 };
        assert_eq!(spread(None), all);
        let more = Spread { used: 26, held: 9, remaining: 70, ..all };
        assert_eq!(spread(Some((own, cell(20, 0, 14, 0)))), more);
        // A hand begun anew says nothing of the cell before it.
        let later = Cell { first_call: 10, ..cell(0, 0, 0, 0) };
        assert_eq!(spread(Some((own, later))), all);
        assert_eq!(counter.spread(20, None, |_| true).remaining, 0);
    }
}
