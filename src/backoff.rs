//! [`Backoff`]: how long to wait before a failed operation is tried again, and random changes of
//! such times.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A wait that doubles from `first` up to `longest` with each failure, until a success.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    /// The last wait, or zero after a success.
    last: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, last: Duration::ZERO }
    }

    /// Returns how long to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        self.last = self.last.saturating_mul(2).clamp(self.first, self.longest);
        self.last
    }

    /// Starts again from the first wait, after a success.
    pub(crate) fn reset(&mut self) {
        self.last = Duration::ZERO;
    }
}

/// Returns `wait`, changed by up to 20 % at random, so that processes that failed together do not
/// try again together.
pub(crate) fn jittered(wait: Duration) -> Duration {
    varied(wait, 0.2)
}

/// Returns `time`, changed at random by up to the fraction `by` of it in either direction.
pub(crate) fn varied(time: Duration, by: f64) -> Duration {
    // Each `RandomState` has other keys, which are random for each thread.
    let random = RandomState::new().hash_one(0_u8);
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    let factor = 1.0 - by + 2.0 * by * share;
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_have_longer_waits() {
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
        let waits: Vec<_> = (0..10).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 5);
    }

    #[test]
    fn jitter_is_a_fifth_to_both_sides() {
        let waits: Vec<_> = (0..1_000).map(|_| jittered(Duration::from_secs(1))).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= Duration::from_millis(800), "{least:?}");
        assert!(*most <= Duration::from_millis(1_200), "{most:?}");
        assert!(*least < Duration::from_millis(900), "{least:?}");
        assert!(*most > Duration::from_millis(1_100), "{most:?}");
    }
}
