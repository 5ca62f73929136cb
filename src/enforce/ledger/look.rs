//! What is in hand of one counter, for who wants to know. Looking makes no slot.

use crate::domain::counter::{CounterKey, ProcessId, Window};
use crate::domain::lease::Cell;
use crate::enforce::ledger::Ledger;
use crate::enforce::slot::InHand;

impl Ledger {
    /// This process's totals on a quota in one window.
    pub(in crate::enforce) fn quota_cell(
        &self,
        key: &CounterKey,
        window: &Window,
    ) -> Option<(ProcessId, Cell)> {
        let slot = self.slots.get(key)?;
        let state = slot.state.lock();
        let InHand::Quota(quota) = &state.hand else { return None };
        let (current, _) = quota.window?;
        (current == *window).then(|| (self.process, quota.held.hand.totals()))
    }

    /// Units of a rate that this process may spend now.
    pub(in crate::enforce) fn rate_units(&self, key: &CounterKey) -> u64 {
        let Some(slot) = self.slots.get(key) else { return 0 };
        match &slot.state.lock().hand {
            InHand::Rate(held) => held.hand.units(self.clock.boot()),
            InHand::Quota(_) => 0,
        }
    }
}
