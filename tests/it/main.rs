//! Everything that is tested from outside, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]
#![allow(clippy::indexing_slicing, clippy::as_conversions, reason = "tests know their numbers")]
#![allow(missing_docs, unreachable_pub, reason = "nobody imports tests")]

/// What every store promises, on every store; what the embedded one promises beyond.
mod store_contract;
