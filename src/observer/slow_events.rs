//! [`SlowEvents`]: whether the observers of a server or a channel take long.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// If an observer takes longer than this, its events are told where no other task has to wait.
pub(super) const SLOW: Duration = Duration::from_millis(1);

/// One slow event may be chance.
const SLOW_EVENTS: u32 = 2;

/// After so many events in a row that took no longer, the observers count as quick again. The time is
/// what a clock shows, so a quick observer is slow if the kernel runs another thread meanwhile.
const QUICK_EVENTS: u32 = 8;

/// How long the last events took.
#[derive(Default)]
pub(super) struct SlowEvents {
    /// How many events were slow since the observers last counted as quick.
    slow: AtomicU32,
    /// How many events in a row were quick after that.
    quick: AtomicU32,
}

impl SlowEvents {
    /// Returns whether the next event is likely to take long.
    pub(super) fn are_likely(&self) -> bool {
        self.slow.load(Ordering::Relaxed) >= SLOW_EVENTS
    }

    /// Notes how long the observers took for an event.
    pub(super) fn note(&self, time: Duration) {
        if time > SLOW {
            self.quick.store(0, Ordering::Relaxed);
            self.slow.fetch_add(1, Ordering::Relaxed);
        } else if self.slow.load(Ordering::Relaxed) > 0
            && self.quick.fetch_add(1, Ordering::Relaxed) + 1 >= QUICK_EVENTS
        {
            self.quick.store(0, Ordering::Relaxed);
            self.slow.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(2);
    const SHORT: Duration = Duration::from_micros(1);

    #[test]
    fn observers_are_slow_after_two_slow_events_until_several_in_a_row_were_quick() {
        let events = SlowEvents::default();
        let note_quick = |times| (0..times).for_each(|_| events.note(SHORT));
        events.note(LONG);
        assert!(!events.are_likely());
        note_quick(QUICK_EVENTS - 1);
        events.note(LONG);
        assert!(events.are_likely());
        note_quick(QUICK_EVENTS - 1);
        events.note(LONG);
        note_quick(QUICK_EVENTS - 1);
        assert!(events.are_likely());
        note_quick(1);
        assert!(!events.are_likely());
        // It begins anew.
        events.note(LONG);
        assert!(!events.are_likely());
        events.note(LONG);
        assert!(events.are_likely());
    }
}
