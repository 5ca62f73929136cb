//! Everything that is tested from outside, in one binary: links are slow, and helpers are shared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]
#![allow(clippy::indexing_slicing, clippy::as_conversions, reason = "tests know their numbers")]
#![allow(missing_docs, unreachable_pub, reason = "nobody imports tests")]

/// The merge of policies against recorded facts about Tyk's.
mod merge_vectors;

/// What holds of every merge by our rules.
mod merge_properties;

/// What every store promises, on every store; what the embedded one promises beyond.
mod store_contract;

/// A redis-server to speak to.
#[cfg(feature = "redis")]
mod redis_server;

/// A gateway without sockets.
mod gate;

/// Decisions: rights, limits, caches.
mod enforce;

/// Sample configurations.
mod config_files;

/// Layers, lengths, links.
mod tidy;

/// An admin listener to speak to.
mod admin_support;

/// The portal's custom credentials: the guide's requests, and everything that is refused.
mod admin_credentials;

/// The portal's other objects, and the policies they become.
mod admin_objects;

/// What every answer of the admin listener looks like.
mod admin_envelope;

/// The built binary and an upstream that counts.
mod process;

/// Import a token, enforce it, forward.
mod main_job;
