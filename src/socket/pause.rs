//! [`Pause`]: how long a listener accepts nothing after accept(2) has failed.

use std::time::Duration;

/// The pauses: doubled from the first up to the last, so that a process without file descriptors
/// neither spins nor stops accepting.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The last one; zero after a success.
#[derive(Debug, Default)]
pub(crate) struct Pause(Duration);

impl Pause {
    /// After a failure.
    pub(crate) fn next(&mut self) -> Duration {
        let (first, longest) = PAUSES;
        self.0 = (self.0 * 2).clamp(first, longest);
        self.0
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_have_longer_pauses() {
        let mut pause = Pause::default();
        let pauses: Vec<_> = (0..10).map(|_| pause.next().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        pause.reset();
        assert_eq!(pause.next().as_millis(), 5);
    }
}
