//! What makes one call after another: [`UnaryWorker`] has one in flight, [`StreamWorker`] a window
//! of messages on one stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use samehost::Channel;
use samehost::ping::{ConverseRequest, ConverseResponse, PingRequest, PingServiceClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::load::{Problem, Recorder, Share};

/// How many messages a stream has in flight.
const WINDOW: usize = 256;

/// How many bytes of payload, where that is less: large ones would only wait for each other.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

pub(super) enum Worker {
    Unary(UnaryWorker),
    Stream(StreamWorker),
}

impl Worker {
    /// Does its share and gives itself back for the next.
    pub(super) async fn run(self, share: Share, recorder: Arc<Recorder>) -> Result<Self, Problem> {
        match self {
            Self::Unary(mut worker) => {
                worker.run(share, &recorder).await?;
                Ok(Self::Unary(worker))
            }
            Self::Stream(mut worker) => {
                worker.run(share, &recorder).await?;
                Ok(Self::Stream(worker))
            }
        }
    }
}

pub(super) struct UnaryWorker {
    client: PingServiceClient<Channel>,
    payload: Bytes,
    /// Of the last call.
    sequence: u64,
}

impl UnaryWorker {
    pub(super) fn new(client: PingServiceClient<Channel>, payload: Bytes) -> Self {
        Self { client, payload, sequence: 0 }
    }

    async fn run(&mut self, share: Share, recorder: &Recorder) -> Result<(), Problem> {
        let mut calls = 0;
        let mut now = Instant::now();
        while share.goes_on(calls, now) {
            calls += 1;
            self.sequence += 1;
            let (payload, sequence) = (self.payload.clone(), self.sequence);
            let started = Instant::now();
            let request = PingRequest { payload, sequence, ..PingRequest::ping() };
            let reply = self.client.ping(request).await?.into_inner();
            now = Instant::now();
            recorder.record(now - started);
            check(&reply.message, &reply.payload, reply.sequence, &self.payload, self.sequence)?;
        }
        Ok(())
    }
}

pub(super) struct StreamWorker {
    requests: mpsc::Sender<ConverseRequest>,
    replies: Streaming<ConverseResponse>,
    payload: Bytes,
    /// Of the last message sent.
    sent: u64,
    /// Of the last echo.
    received: u64,
}

impl StreamWorker {
    /// Opens a stream and has one message echoed: some servers send nothing before it, not even
    /// that the call was accepted.
    pub(super) async fn open(
        mut client: PingServiceClient<Channel>,
        payload: Bytes,
    ) -> Result<Self, Problem> {
        let (requests, outgoing) = mpsc::channel(WINDOW);
        let first = request(&payload, 1);
        requests.try_send(first).map_err(|_| Status::internal("the stream's queue is closed"))?;
        let replies = client.converse(ReceiverStream::new(outgoing)).await?.into_inner();
        let mut stream = Self { requests, replies, payload, sent: 1, received: 0 };
        stream.receive().await?;
        Ok(stream)
    }

    async fn run(&mut self, share: Share, recorder: &Recorder) -> Result<(), Problem> {
        let mut started = 0;
        let mut now = Instant::now();
        let window = window(self.payload.len());
        let mut in_flight = VecDeque::with_capacity(window);
        loop {
            while in_flight.len() < window && share.goes_on(started, now) {
                started += 1;
                self.sent += 1;
                in_flight.push_back(Instant::now());
                // The queue holds a whole window. It closes only with the call, and why that has
                // ended is what `receive` says.
                let _ = self.requests.try_send(request(&self.payload, self.sent));
            }
            let Some(sent) = in_flight.pop_front() else {
                return Ok(());
            };
            self.receive().await?;
            now = Instant::now();
            recorder.record(now - sent);
        }
    }

    async fn receive(&mut self) -> Result<(), Problem> {
        let echo = self.replies.message().await?.ok_or_else(|| {
            Problem::WrongReply("the server ended the stream before it was told to".to_owned())
        })?;
        self.received += 1;
        check(&echo.message, &echo.payload, echo.sequence, &self.payload, self.received)
    }

    /// Says that nothing follows and waits for the server to say the same.
    pub(super) async fn close(self) {
        let Self { requests, mut replies, .. } = self;
        drop(requests);
        while let Ok(Some(_)) = replies.message().await {}
    }
}

fn window(payload: usize) -> usize {
    WINDOW.min(WINDOW_BYTES / payload.max(1)).max(1)
}

fn request(payload: &Bytes, sequence: u64) -> ConverseRequest {
    ConverseRequest { message: "ping".to_owned(), payload: payload.clone(), sequence }
}

/// A figure is worth nothing if the server did not do the work.
fn check(
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
    Err(Problem::WrongReply(format!(
        "wrong reply: expected \"pong\", {} bytes, sequence {sent_sequence}; received {message:?}, \
         {} bytes, sequence {sequence}",
        sent_payload.len(),
        payload.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::window;

    #[test]
    fn large_messages_have_a_smaller_window() {
        let payloads = [0, 1024, 16384, 65536, 1 << 20, (4 << 20) - 64];
        assert_eq!(payloads.map(window), [256, 256, 256, 64, 4, 1]);
    }
}
