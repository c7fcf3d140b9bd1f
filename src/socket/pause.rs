//! [`Pause`]: how long a listener that is a stream accepts nothing after accept(2) failed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

/// The pauses: doubled from the first up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

#[derive(Debug, Default)]
pub(super) struct Pause {
    /// Zero after a success.
    last: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    /// After a failure.
    pub(super) fn start(&mut self) {
        let (first, longest) = PAUSES;
        self.last = (self.last * 2).clamp(first, longest);
        self.sleep = Some(Box::pin(tokio::time::sleep(self.last)));
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.last = Duration::ZERO;
    }

    /// Ready when there is nothing to wait for, or no longer.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_have_longer_pauses() {
        let mut pause = Pause::default();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pause.start();
            let started = Instant::now();
            poll_fn(|cx| pause.poll_over(cx)).await;
            pauses.push(started.elapsed().as_millis());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        pause.reset();
        pause.start();
        let started = Instant::now();
        poll_fn(|cx| pause.poll_over(cx)).await;
        assert_eq!(started.elapsed().as_millis(), 5);
    }
}
