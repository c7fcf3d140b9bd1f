//! [`Load`]: the client half. It has the workers of a cell, and measures their calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use samehost::{Address, BusyPoll};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::blocking::BlockingWorker;
use super::cell::{Cell, Stack, Stubs};
use super::raw::RawWorker;
use super::rpc;
use super::stacks;
use super::worker::{Limit, Problem, Recorder, STALL_TIMEOUT, Worker};
use crate::escaped::escaped;
use crate::failure::{Failure, in_options};

/// The workers of one cell, with their connections.
pub(super) struct Load {
    address: Address,
    workers: Vec<Box<dyn Worker>>,
}

/// The result of a measurement.
pub(super) struct Measured {
    pub(super) calls: u64,
    pub(super) elapsed: Duration,
    /// In nanoseconds.
    pub(super) latencies: Histogram<u64>,
}

impl Load {
    /// Connects, and makes the workers of `cell` ready to call.
    pub(super) async fn open(
        address: &Address,
        cell: &Cell,
        busy_poll: BusyPoll,
    ) -> Result<Self, Failure> {
        let mut load = Self { address: address.clone(), workers: Vec::new() };
        let address = address.clone();
        let workers = match cell.stack {
            Stack::Samehost => {
                let descriptors = u8::from(cell.delivery.is_some());
                let ours = stacks::Samehost { address, busy_poll, descriptors };
                match cell.stubs {
                    Some(Stubs::Tonic) => rpc::workers(stacks::WithTonicStubs(ours), cell).await,
                    _ => rpc::workers(ours, cell).await,
                }
            }
            Stack::Blocking => BlockingWorker::connect(address, cell)
                .await
                .map(|worker| vec![Box::new(worker) as Box<dyn Worker>]),
            Stack::Tonic => {
                rpc::workers(stacks::Tonic(samehost::Connector::new(address)), cell).await
            }
            Stack::Raw => Ok(vec![Box::new(RawWorker::new(address, cell)) as Box<dyn Worker>]),
        };
        load.workers = workers.map_err(|problem| load.failure(problem))?;
        Ok(load)
    }

    /// Makes calls up to the limit. Each worker makes at least one, and all responses are awaited.
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
        // It checks twice, because one check finds nothing new if all processes were stopped
        // meanwhile.
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
                    // The first check is immediate.
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

    /// Ends the streams by their protocol, rather than by cancelling them.
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
        // Any server may be at the other end, and send any text.
        let text = in_options(&escaped(&text));
        let address = self.address.to_string();
        Failure::Failed(if text.contains(&address) { text } else { format!("{address}: {text}") })
    }
}
