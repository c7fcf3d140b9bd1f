//! [`Throttle`]: keeps log events that a peer can cause at will from filling a disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Lets a number of events through in each second, and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    per_second: u32,
    state: Mutex<ThrottleState>,
}

#[derive(Debug, Default)]
struct ThrottleState {
    began: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    pub(crate) const fn new(per_second: u32) -> Self {
        let state = ThrottleState { began: None, passed: 0, held_back: 0 };
        Self { per_second, state: Mutex::new(state) }
    }

    /// Returns `Some` if an event at `now` is to be logged, with the number of events that were not
    /// logged since the last one.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            state.began = Some(now);
            state.passed = 0;
        }
        if state.passed == self.per_second {
            state.held_back += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_second_and_the_others_are_counted() {
        let throttle = Throttle::new(2);
        let now = Instant::now();
        let pass = |milliseconds| throttle.pass(now + Duration::from_millis(milliseconds));
        assert_eq!([0, 1, 2, 999].map(pass), [Some(0), Some(0), None, None]);
        assert_eq!([1000, 1999, 1999].map(pass), [Some(2), Some(0), None]);
        // A clock that goes back a little lets nothing through.
        assert_eq!([1500, 2000].map(pass), [None, Some(2)]);
    }
}
