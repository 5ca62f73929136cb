//! The lease cell (`enforce::slot`) under every interleaving of a few threads: its own source, with
//! loom's lock in the place of the product's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test is to panic")]

use turnpike::domain;

#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a part of the product's source, used in part"
)]
#[path = "../src/enforce"]
mod enforce {
    #[path = "../../tests/loom/cell.rs"]
    mod cell;
    mod slot;

    /// What `src/enforce/sync.rs` is to the product.
    mod sync {
        use std::ops::{Deref, DerefMut};

        use loom::sync::atomic::{AtomicUsize, Ordering};

        /// What it guards may be taken by others as soon as it is dropped, before what comes next:
        /// loom alone would only let them in at the next lock.
        #[derive(Debug)]
        pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>, &'a AtomicUsize);

        #[derive(Debug)]
        pub(crate) struct Mutex<T>(loom::sync::Mutex<T>, AtomicUsize);

        impl<T> Mutex<T> {
            pub(crate) fn new(value: T) -> Self {
                Self(loom::sync::Mutex::new(value), AtomicUsize::new(0))
            }

            pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
                MutexGuard(Some(self.0.lock().unwrap()), &self.1)
            }
        }

        impl<T> Deref for MutexGuard<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                self.0.as_ref().unwrap()
            }
        }

        impl<T> DerefMut for MutexGuard<'_, T> {
            fn deref_mut(&mut self) -> &mut T {
                self.0.as_mut().unwrap()
            }
        }

        impl<T> Drop for MutexGuard<'_, T> {
            fn drop(&mut self) {
                drop(self.0.take());
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
