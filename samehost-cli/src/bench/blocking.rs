//! [`BlockingWorker`]: samehost's client without a runtime, on a thread of its own.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use samehost::Address;
use samehost::blocking::Channel;
use samehost::ping::{BlockingPingServiceClient, PingRequest};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::cell::Cell;
use super::rpc::MESSAGE_MAX;
use super::worker::{Problem, Recorder, Share, Worker, check};

/// One unary call after the other.
pub(super) struct BlockingWorker {
    client: BlockingPingServiceClient,
    payload: Bytes,
    /// Of the last call.
    sequence: u64,
}

impl BlockingWorker {
    pub(super) async fn connect(address: Address, cell: &Cell) -> Result<Self, Problem> {
        let channel = spawn_blocking(move || Channel::connect(address)).await;
        let channel = channel.map_err(|error| Problem::Other(error.to_string()))?;
        let channel = channel.map_err(|error| Problem::Other(error.to_string()))?;
        let client = BlockingPingServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        Ok(Self { client, payload: vec![0; cell.payload].into(), sequence: 0 })
    }

    fn ping(&mut self) -> Result<(), Problem> {
        let Self { payload, sequence, .. } = self;
        *sequence += 1;
        let request =
            PingRequest { payload: payload.clone(), sequence: *sequence, ..PingRequest::ping() };
        let response = self.client.ping(request)?.into_inner();
        let got = (&*response.message, &response.payload, response.sequence);
        check(got.0, got.1, got.2, payload, *sequence)
    }

    fn calls(&mut self, share: Share, recorder: &Recorder) -> Result<(), Problem> {
        let mut calls = 0;
        let mut now = Instant::now();
        while share.goes_on(calls, now) {
            calls += 1;
            let started = Instant::now();
            self.ping()?;
            now = Instant::now();
            recorder.record(now - started);
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Worker for BlockingWorker {
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem> {
        let Self { client, payload, sequence } = self;
        let mut worker =
            Self { client: client.clone(), payload: payload.clone(), sequence: *sequence };
        let (done, wait) = oneshot::channel();
        // Not a thread of the runtime, whose end would wait for a call that nobody answers.
        let calls = move || {
            let _ = done.send(worker.calls(share, &recorder).map(|()| worker.sequence));
        };
        let spawned = thread::Builder::new().name("blocking".to_owned()).spawn(calls);
        spawned.map_err(|error| Problem::Other(error.to_string()))?;
        let panicked = |_| Problem::Other("the client panicked".to_owned());
        *sequence = wait.await.map_err(panicked)??;
        Ok(())
    }
}
