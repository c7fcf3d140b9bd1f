//! [`Load`]: the client half. Workers that make calls and check the replies, and the time each
//! call took.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use samehost::{Address, BusyPoll};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Status;

use super::cell::{Cell, Stack};
use super::raw::RawWorker;
use super::rpc;
use super::stacks;
use crate::Failure;

/// A server that answers nothing for this long is given up.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// How much is measured at a stretch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    Calls(u64),
    Time(Duration),
}

/// The workers of one cell, with their connections.
pub(super) struct Load {
    address: Address,
    workers: Vec<Box<dyn Worker>>,
}

/// What makes one call after another.
#[tonic::async_trait]
pub(super) trait Worker: Send {
    /// Does its share.
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem>;

    /// Ends in good order what it has open.
    async fn close(self: Box<Self>) {}
}

/// What a stretch came to.
pub(super) struct Measured {
    pub(super) calls: u64,
    pub(super) elapsed: Duration,
    /// In nanoseconds.
    pub(super) latencies: Histogram<u64>,
}

impl Load {
    /// Connects and makes the workers of `cell` ready to call.
    pub(super) async fn open(
        address: &Address,
        cell: &Cell,
        busy_poll: BusyPoll,
    ) -> Result<Self, Failure> {
        let mut load = Self { address: address.clone(), workers: Vec::new() };
        let address = address.clone();
        let workers = match cell.stack {
            Stack::Samehost => rpc::workers(stacks::Samehost { address, busy_poll }, cell).await,
            Stack::Tonic => {
                rpc::workers(stacks::Tonic(samehost::Connector::new(address)), cell).await
            }
            Stack::Raw => Ok(vec![Box::new(RawWorker::new(address, cell)) as Box<dyn Worker>]),
        };
        load.workers = workers.map_err(|problem| load.failure(problem))?;
        Ok(load)
    }

    /// Makes calls up to the limit: at least one for each worker, and all replies awaited.
    pub(super) async fn run(&mut self, limit: Limit) -> Result<Measured, Failure> {
        let recorder = Arc::new(Recorder::new()?);
        let count = self.workers.len() as u64;
        let mut running = JoinSet::new();
        let started = Instant::now();
        for (mut worker, index) in self.workers.drain(..).zip(0..) {
            let share = limit.share(started, index, count);
            let recorder = Arc::clone(&recorder);
            running.spawn(async move { worker.run(share, recorder).await.map(|()| worker) });
        }
        // Twice, as a look finds nothing new when all processes have been stopped meanwhile.
        let mut look = interval(STALL_TIMEOUT / 2);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut calls, mut looks_in_vain) = (0, 0);
        loop {
            tokio::select! {
                ended = running.join_next() => match ended {
                    Some(Ok(Ok(worker))) => self.workers.push(worker),
                    Some(Ok(Err(problem))) => return Err(self.failure(problem)),
                    Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
                    None => break,
                },
                _ = look.tick() => {
                    let calls_before = std::mem::replace(&mut calls, recorder.calls());
                    looks_in_vain = if calls == calls_before { looks_in_vain + 1 } else { 0 };
                    // The first look is at once.
                    if looks_in_vain > 2 {
                        return Err(self.failure(Problem::Stalled));
                    }
                }
            }
        }
        let elapsed = started.elapsed();
        let latencies = recorder.latencies();
        Ok(Measured { calls: latencies.len(), elapsed, latencies })
    }

    /// Ends the streams as their protocol says, rather than by cancelling them.
    pub(super) async fn close(self) {
        for worker in self.workers {
            let _ = timeout(STALL_TIMEOUT, worker.close()).await;
        }
    }

    fn failure(&self, problem: Problem) -> Failure {
        let text = match problem {
            Problem::Other(text) => text,
            Problem::Call(status) if status.code() == tonic::Code::Unavailable => {
                status.message().to_owned()
            }
            Problem::Call(status) => format!("{:?}: {}", status.code(), status.message()),
            Problem::Stalled => format!(
                "no reply within {STALL_TIMEOUT:?}: check that the server is alive and serves \
                 ping.v1"
            ),
        };
        // Any server may be at the other end, and say anything.
        let text = text.replace(char::is_control, " ");
        let address = self.address.to_string();
        Failure::Failed(if text.contains(&address) { text } else { format!("{address}: {text}") })
    }
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
    /// One worker's part.
    fn share(self, started: Instant, index: u64, workers: u64) -> Share {
        match self {
            Self::Calls(calls) => {
                Share::Calls(calls / workers + u64::from(index < calls % workers))
            }
            // Where the clock ends there is no deadline.
            Self::Time(time) => {
                started.checked_add(time).map_or(Share::Calls(u64::MAX), Share::Until)
            }
        }
    }
}

/// What one worker is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    Calls(u64),
    Until(Instant),
}

impl Share {
    /// Whether another call is to be started after so many. The first one always is.
    pub(super) fn goes_on(&self, started: u64, now: Instant) -> bool {
        match self {
            _ if started == 0 => true,
            Self::Calls(calls) => started < *calls,
            Self::Until(deadline) => now < *deadline,
        }
    }

    /// How many calls may follow after so many.
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
    fn new() -> Result<Self, Failure> {
        Ok(Self(Mutex::new(Histogram::new_with_max(LATENCY_MAX.as_nanos() as u64, 3)?)))
    }

    pub(super) fn record(&self, latency: Duration) {
        self.record_many(latency, 1);
    }

    /// So many calls that took as long.
    pub(super) fn record_many(&self, latency: Duration, calls: u64) {
        self.lock().saturating_record_n(latency.as_nanos() as u64, calls);
    }

    fn calls(&self) -> u64 {
        self.lock().len()
    }

    fn latencies(&self) -> Histogram<u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
