//! The lock that a slot is behind. The exhaustive test of the lease cell puts its own in its place.

pub(super) use parking_lot::{Mutex, MutexGuard};
