//! [`FAR`]: a time that stands for "never".

use std::time::{Duration, Instant};

/// Longer than anything waits. A clock can still tell a moment that is so far away.
pub(crate) const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Returns the moment that comes `time` after `start`. A time without end, such as `Duration::MAX`, is
/// [`FAR`]: the moment itself could not be told.
#[inline]
pub(crate) fn after(start: Instant, time: Duration) -> Instant {
    start + time.min(FAR)
}
