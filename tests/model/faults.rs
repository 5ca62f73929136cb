//! What may happen in a run, and how often.

/// What may happen in a run, and how often: every budget bounds the depth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Gateways at any time.
    pub(crate) gateways: usize,
    /// The limit in the first generation, and in the second.
    pub(crate) limits: (u64, Option<u64>),
    /// Calls and asserts that gateways may send between them.
    pub(crate) calls: u8,
    /// The largest number of units asked for at once; each request costs one.
    pub(crate) need_max: u64,
    /// Messages delivered once more.
    pub(crate) repeats: u8,
    /// Calls given up on while their messages are still under way.
    pub(crate) timeouts: u8,
    /// Hands sent back.
    pub(crate) returns: u8,
    /// Processes that end without a word.
    pub(crate) crashes: u8,
    /// Hands dropped, their copies kept.
    pub(crate) forgets: u8,
    /// Copies dropped.
    pub(crate) drops: u8,
    /// Times the store comes back as it was on its disk, which is written whenever.
    pub(crate) restarts: u8,
    /// Times the store comes back empty, in the same run.
    pub(crate) flushes: u8,
    /// Times the disk catches up with the store.
    pub(crate) syncs: u8,
    /// Whether learning may end before every live gateway has asserted.
    pub(crate) late: bool,
    /// Whether LEARN and the answers to asserts arrive at once: they only ever raise a number, and
    /// runs without this flag show that their order does not matter.
    pub(crate) prompt: bool,
    /// What the store's clock moves by when it loses writes, in milliseconds.
    pub(crate) loss_ms: u64,
}

impl Faults {
    /// Nothing goes wrong, but messages are lost and reordered.
    pub(crate) const NONE: Self = Self {
        gateways: 2,
        limits: (3, None),
        calls: 5,
        need_max: 2,
        repeats: 0,
        timeouts: 1,
        returns: 0,
        crashes: 0,
        forgets: 0,
        drops: 0,
        restarts: 0,
        flushes: 0,
        syncs: 0,
        late: false,
        prompt: false,
        loss_ms: 10,
    };
}

/// What is left of the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) calls: u8,
    pub(crate) repeats: u8,
    pub(crate) timeouts: u8,
    pub(crate) returns: u8,
    pub(crate) crashes: u8,
    pub(crate) forgets: u8,
    pub(crate) drops: u8,
    pub(crate) restarts: u8,
    pub(crate) flushes: u8,
    pub(crate) syncs: u8,
}

impl Left {
    pub(crate) fn of(faults: &Faults) -> Self {
        Self {
            calls: faults.calls,
            repeats: faults.repeats,
            timeouts: faults.timeouts,
            returns: faults.returns,
            crashes: faults.crashes,
            forgets: faults.forgets,
            drops: faults.drops,
            restarts: faults.restarts,
            flushes: faults.flushes,
            syncs: faults.syncs,
        }
    }
}
