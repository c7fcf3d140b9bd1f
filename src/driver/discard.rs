//! [`discard`]: drops a value of a service on a task that serves others, too.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops a value. If that panics, only the value is lost: not the connection on whose task it is dropped.
pub(crate) fn discard<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}
