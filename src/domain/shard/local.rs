//! What a gateway may admit by itself while the store is away.

use std::collections::BTreeSet;

use crate::domain::counter::ProcessId;

/// The share of `remaining` units that `process` may admit in `local` mode, once in a window.
///
/// `live` is the last list of live gateways that the store gave. Gateways that saw the same list
/// and the same remainder share exactly it: the first of the list take one unit more where it
/// does not divide. Who is not listed has no share.
#[must_use]
pub fn local_share(remaining: u64, live: &BTreeSet<ProcessId>, process: ProcessId) -> u64 {
    let Some(place) = live.iter().position(|listed| *listed == process) else { return 0 };
    let (Ok(place), Ok(count)) = (u64::try_from(place), u64::try_from(live.len())) else {
        return 0;
    };
    let rest = remaining.checked_rem(count).unwrap_or(0);
    let even = remaining.checked_div(count).unwrap_or(0);
    even.saturating_add(u64::from(place < rest))
}
