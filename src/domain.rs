//! The rules: ids, policies and their merge, access rights, limits, leases, decisions.
//!
//! No I/O, no async, no clock, no logging, no serde, no HTTP types. Time is an argument.

pub mod credential;
pub mod id;
pub mod limit;
pub mod merge;
pub mod policy;
pub mod time;
pub mod token;
