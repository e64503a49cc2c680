//! Locks that survive a panic elsewhere: every critical section here leaves its data whole, so a
//! poisoned lock says nothing about the data.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
