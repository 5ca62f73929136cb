//! One test binary: links are slow, and helpers are shared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that panics is a test that fails"
)]

/// The merge of policies against recorded facts about Tyk's.
mod merge_vectors;

/// What holds of every merge by our rules.
mod merge_properties;
