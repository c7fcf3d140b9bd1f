//! [`Worker`]: makes calls one after the other. [`Share`] tells it how many, [`Recorder`] records
//! how long each call took, [`check`] checks the replies, and [`Problem`] is why it may give up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tonic::Status;

use crate::failure::Failure;

/// A server that answers nothing for this long is given up.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest latency that is recorded exactly.
const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// How much is measured without a break.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    Calls(u64),
    Time(Duration),
}

/// Makes one call after another.
#[tonic::async_trait]
pub(super) trait Worker: Send {
    /// Does its share of the calls.
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem>;

    /// Closes in order what it has open.
    async fn close(self: Box<Self>) {}
}

/// Why a worker gave up.
pub(super) enum Problem {
    Call(Status),
    Stalled,
    Other(String),
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl Limit {
    /// Returns one worker's part.
    pub(super) fn share(self, started: Instant, index: u64, workers: u64) -> Share {
        match self {
            Self::Calls(calls) => {
                Share::Calls(calls / workers + u64::from(index < calls % workers))
            }
            // A time that the clock cannot represent means no deadline.
            Self::Time(time) => {
                started.checked_add(time).map_or(Share::Calls(u64::MAX), Share::Until)
            }
        }
    }
}

/// What one worker has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    Calls(u64),
    Until(Instant),
}

impl Share {
    /// Returns whether to start another call after `started` calls. The first one is always
    /// started.
    pub(super) fn goes_on(&self, started: u64, now: Instant) -> bool {
        match self {
            _ if started == 0 => true,
            Self::Calls(calls) => started < *calls,
            Self::Until(deadline) => now < *deadline,
        }
    }

    /// Returns how many calls may follow after `started` calls.
    pub(super) fn left(&self, started: u64) -> u64 {
        match self {
            Self::Calls(calls) => calls.saturating_sub(started),
            Self::Until(_) => u64::MAX,
        }
    }
}

/// The latencies of all workers.
pub(super) struct Recorder(Mutex<Histogram<u64>>);

impl Recorder {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self(Mutex::new(Histogram::new_with_max(LATENCY_MAX.as_nanos() as u64, 3)?)))
    }

    pub(super) fn record(&self, latency: Duration) {
        self.record_many(latency, 1);
    }

    /// Records a number of calls that took equally long.
    pub(super) fn record_many(&self, latency: Duration, calls: u64) {
        self.lock().saturating_record_n(latency.as_nanos() as u64, calls);
    }

    pub(super) fn calls(&self) -> u64 {
        self.lock().len()
    }

    pub(super) fn latencies(&self) -> Histogram<u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many latencies a worker keeps before it records them, and for how long.
const QUEUED: (usize, Duration) = (64, Duration::from_millis(100));

/// Records the latencies of one worker, many at a time: each time takes a lock.
pub(super) struct RecorderQueue {
    recorder: Arc<Recorder>,
    latencies: Vec<u64>,
    /// When they were last recorded.
    recorded: Option<Instant>,
}

impl RecorderQueue {
    pub(super) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, latencies: Vec::with_capacity(QUEUED.0), recorded: None }
    }

    pub(super) fn record(&mut self, latency: Duration, now: Instant) {
        self.latencies.push(latency.as_nanos() as u64);
        let is_late = self.recorded.is_none_or(|recorded| now - recorded > QUEUED.1);
        if is_late || self.latencies.len() == QUEUED.0 {
            self.recorded = Some(now);
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut histogram = self.recorder.lock();
        self.latencies.drain(..).for_each(|latency| histogram.saturating_record(latency));
    }
}

impl Drop for RecorderQueue {
    fn drop(&mut self) {
        self.flush();
    }
}

pub(super) fn ended_early() -> Problem {
    Problem::Other("the server ended the stream before it was told to".to_owned())
}

/// Checks a response: a figure has no value if the server did not do the work.
pub(super) fn check(
    message: &str,
    payload: &Bytes,
    sequence: u64,
    sent_payload: &Bytes,
    sent_sequence: u64,
) -> Result<(), Problem> {
    if message == "pong" && payload.len() == sent_payload.len() && sequence == sent_sequence {
        return Ok(());
    }
    let message: String = message.chars().take(32).collect();
    Err(Problem::Other(format!(
        "wrong reply: expected \"pong\", {} bytes, sequence {sent_sequence}; received {message:?}, \
         {} bytes, sequence {sequence}",
        sent_payload.len(),
        payload.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_in_a_queue_are_recorded_soon_and_at_its_end() {
        let Ok(recorder) = Recorder::new().map(Arc::new) else { panic!("no histogram") };
        let mut queue = RecorderQueue::new(Arc::clone(&recorder));
        let (latency, now) = (Duration::from_micros(7), Instant::now());
        queue.record(latency, now);
        assert_eq!(recorder.calls(), 1, "the first one shows that there is progress");
        (0..QUEUED.0 - 1).for_each(|_| queue.record(latency, now));
        assert_eq!(recorder.calls(), 1);
        queue.record(latency, now);
        assert_eq!(recorder.calls(), 1 + QUEUED.0 as u64);
        queue.record(latency, now + 2 * QUEUED.1);
        assert_eq!(recorder.calls(), 2 + QUEUED.0 as u64);
        queue.record(latency, now + 2 * QUEUED.1);
        drop(queue);
        assert_eq!(recorder.calls(), 3 + QUEUED.0 as u64);
    }

    #[test]
    fn the_shares_of_a_number_of_calls_add_up_to_it() {
        let now = Instant::now();
        let shares: Vec<_> = (0..3).map(|i| Limit::Calls(11).share(now, i, 3)).collect();
        assert_eq!(shares, [Share::Calls(4), Share::Calls(4), Share::Calls(3)]);
    }

    #[test]
    fn every_worker_makes_a_call_however_short_the_time() {
        let now = Instant::now();
        let share = Limit::Time(Duration::ZERO).share(now, 0, 1);
        assert!(share.goes_on(0, now));
        assert!(!share.goes_on(1, now));
    }
}
