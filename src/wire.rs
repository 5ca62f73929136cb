//! Serde shapes of what lies in files, in the store and in admin bodies, and their ways into the
//! domain. Nothing here does I/O.

pub mod portal;
pub mod record;
