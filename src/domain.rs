//! The rules: ids, policies and their merge, access rights, limits, leases, decisions.
//!
//! No I/O, no async, no clock, no logging, no serde, no HTTP types. Time is an argument.

pub mod api;
pub mod balance;
pub mod counter;
pub mod credential;
pub mod decision;
pub mod denial;
pub mod grant;
pub mod id;
pub mod lease;
pub mod limit;
pub mod merge;
pub mod path;
pub mod pattern;
pub mod period;
pub mod policy;
pub mod ratelog;
pub mod reading;
pub mod route;
pub mod seal;
pub mod server_clock;
pub mod shard;
pub mod time;
pub mod token;
