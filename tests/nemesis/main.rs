//! Several gateways, one store, and everything that can go wrong between them: real processes, a
//! real redis-server, faults between, and one upstream that counts as the judge.
//!
//! What is held to is the table "How wrong it can be" of ARCHITECTURE.md. Each test says the bound
//! of its fault. A test judges by what arrived upstream and by when gateways charged it, never by
//! what they say of themselves.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]
#![allow(clippy::indexing_slicing, clippy::as_conversions, reason = "tests know their numbers")]
#![allow(clippy::float_arithmetic, clippy::print_stdout, reason = "figures, for people")]
#![allow(missing_docs, unreachable_pub, reason = "nobody imports tests")]

/// The built binary, and a client of it.
#[allow(dead_code, reason = "shared with another binary, which uses the rest")]
#[path = "../it/process.rs"]
mod process;

/// A redis-server of a test's own.
#[allow(dead_code, reason = "shared with another binary, which uses the rest")]
#[path = "../it/redis_server.rs"]
mod redis_server;

/// The way between a gateway and its store, which can fail.
mod fault_proxy;

/// The upstream that counts.
mod judge;

/// Clients that send, and remember what they were told.
mod clients;

/// Gateways, store, judge, and the ways to hurt them.
mod fleet;

/// What must hold whatever happened.
mod verdict;

/// Gateways that die, stand still, stop in order.
mod gateways_fail;

/// The network between gateways and store.
mod network_fails;

/// The store.
mod store_fails;

/// A store that has lost what it wrote.
mod store_loses;

/// Plans edited in the middle of a window.
mod plans;

/// Windows that end under load; wall clocks that are wrong.
mod clocks;

/// Rates when nothing fails.
mod rates;

/// Random faults, for as long as one likes.
mod soak;
