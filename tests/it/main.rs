//! Everything that is tested from outside, in one binary: links are slow, and helpers are shared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]
#![allow(clippy::indexing_slicing, clippy::as_conversions, reason = "tests know their numbers")]
#![allow(missing_docs, unreachable_pub, reason = "nobody imports tests")]

/// A client that sends exactly the bytes it is told to.
mod raw_http;

/// A gateway on port 0, and an upstream that records the bytes it gets.
mod proxy_support;

/// What is refused, what is repaired, and that one well-framed request goes on.
mod proxy_framing;

/// Paths, headers, bodies: what the upstream gets and what the client gets back.
mod proxy_forward;

/// Tokens, stripping, preflights, limit headers, refusals.
mod proxy_auth;

/// Deadlines, broken upstreams, clients that go away.
mod proxy_failures;

/// Connections: bounds, shutdown, panics, the access log.
mod proxy_lifecycle;
