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

/// An admin listener to speak to.
mod admin_support;

/// The portal's custom credentials: the guide's requests, and everything that is refused.
mod admin_credentials;

/// The portal's other objects, and the policies they become.
mod admin_objects;

/// What every answer of the admin listener looks like.
mod admin_envelope;
