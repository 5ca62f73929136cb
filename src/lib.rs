//! Turnpike: a gateway-side auth and quota enforcement proxy.
//!
//! The map, in reading order. Each module may use only those named for it in `ARCHITECTURE.md`
//! ("Layers"); `tests/it/tidy.rs` fails when an import breaks that.

pub mod domain;

pub mod clock;
pub mod config;
pub mod metrics;
pub mod telemetry;
pub mod wire;

pub mod store;

pub mod catalog;

pub mod enforce;

pub mod admin;
pub mod proxy;

pub mod client;

pub mod app;
