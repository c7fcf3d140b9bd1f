//! [`TimeSlice`]: how long a connection's handlers run in place, one after the other, in one turn.

use std::time::{Duration, Instant};

/// When handlers have run for this long in a turn, the other requests have to wait for the next
/// turn, so that other connections need not wait for all of them.
const LONGEST: Duration = Duration::from_micros(200);

/// If a reading of the time is no later than this after the one before, the next one is after several
/// handlers: to read it takes as long as a small part of a quick handler.
const QUICK: Duration = Duration::from_micros(20);

/// How many handlers those are.
const SEVERAL: u8 = 8;

/// The handlers that have run in a turn.
#[derive(Debug)]
pub(super) struct TimeSlice {
    began: Instant,
    /// When the time was last read. The end of a handler is the beginning of the next one.
    last: Instant,
    /// After how many handlers the time is read.
    handlers_left: u8,
    /// Whether it is read after each handler.
    reads_each: bool,
}

impl TimeSlice {
    /// Begins to measure the time. `reads_each` tells whether the time of each handler has to be known.
    pub(super) fn begin(reads_each: bool) -> Self {
        let now = Instant::now();
        Self { began: now, last: now, handlers_left: 1, reads_each }
    }

    /// Notes that a handler has run. If the time is read now, returns how much has passed since it was
    /// last read. `now` reads the time.
    #[inline]
    pub(super) fn note_handler(&mut self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        self.handlers_left -= 1;
        if self.handlers_left > 0 {
            return None;
        }
        let now = now();
        let taken = now.saturating_duration_since(self.last);
        self.last = now;
        self.handlers_left = if taken <= QUICK && !self.reads_each { SEVERAL } else { 1 };
        Some(taken)
    }

    /// Returns whether the other requests have to wait.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.last - self.began > LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets handlers of this duration run until the time is over. Returns how many ran.
    fn handlers(taken: Duration, reads_each: bool) -> u32 {
        let mut time_slice = TimeSlice::begin(reads_each);
        let (mut now, mut handlers) = (time_slice.began, 0);
        while !time_slice.is_over() {
            (now, handlers) = (now + taken, handlers + 1);
            time_slice.note_handler(|| now);
        }
        handlers
    }

    #[test]
    fn the_time_is_read_seldom_only_while_handlers_are_quick() {
        assert_eq!(handlers(Duration::from_micros(1), true), 201);
        assert!((201..201 + 8).contains(&handlers(Duration::from_micros(1), false)));
        // The first one is quick enough, those after it are found to be not.
        assert!((21..=21 + 8).contains(&handlers(Duration::from_micros(10), false)));
        assert_eq!(handlers(Duration::from_micros(21), false), 10);
        assert_eq!(handlers(Duration::from_millis(1), false), 1);
    }
}
