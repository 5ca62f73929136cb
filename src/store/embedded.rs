//! The store for one machine: records in a crash-safe file, counters in memory with a journal.

/// Opened on one folder, by one process at a time.
#[derive(Debug)]
pub struct EmbeddedStore {}
