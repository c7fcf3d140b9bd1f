//! [`StreamWorker`]: a bidirectional stream with a window of messages in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use samehost::ping::ConverseResponse;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::requests::Requests;
use super::stubs::Stub;
use super::worker::{Problem, Recorder, RecorderQueue, Share, Worker, check, ended_early};

/// How many messages a stream has in flight.
const WINDOW: usize = 256;

/// How many bytes of payload a stream has in flight, if that is less. Larger windows would only
/// make messages wait for each other.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// The worker permits so many parts of a window at a time. To permit each message alone would take as
/// long as a tenth of what a stack does for it.
const PARTS: usize = 16;

/// A stream with a window of messages in flight.
pub(super) struct StreamWorker {
    permits: mpsc::UnboundedSender<u64>,
    replies: Streaming<ConverseResponse>,
    payload: Bytes,
    /// The sequence number of the last message that may be sent.
    permitted: u64,
    /// The sequence number of the last echo.
    received: u64,
}

impl StreamWorker {
    /// Opens a stream and has one message echoed. Some servers send nothing before that, not even
    /// that they have accepted the call.
    pub(super) async fn open<T: Stub>(mut client: T, payload: Bytes) -> Result<Self, Problem> {
        let (permits, permitted) = mpsc::unbounded_channel();
        let requests = Requests::new(permitted, payload.clone());
        let replies = client.converse(requests).await?.into_inner();
        let mut stream = Self { permits, replies, payload, permitted: 1, received: 0 };
        stream.receive().await?;
        Ok(stream)
    }

    async fn receive(&mut self) -> Result<(), Problem> {
        let echo = self.replies.message().await?.ok_or_else(ended_early)?;
        self.received += 1;
        check(&echo.message, &echo.payload, echo.sequence, &self.payload, self.received)
    }
}

#[tonic::async_trait]
impl Worker for StreamWorker {
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem> {
        let mut started = 0;
        let mut now = Instant::now();
        let window = window(self.payload.len());
        let part = (window / PARTS).max(1);
        // When each message was started, and how many of the last ones are not permitted yet.
        let (mut in_flight, mut held) = (VecDeque::with_capacity(window), 0);
        let mut recorder = RecorderQueue::new(recorder);
        loop {
            while in_flight.len() < window && share.goes_on(started, now) {
                started += 1;
                // The clock was read when the last echo came, which is just before.
                in_flight.push_back(now);
                held += 1;
            }
            if held >= part || held == in_flight.len() {
                self.permitted += held as u64;
                held = 0;
                // The queue closes only with the call, and `receive` returns why the call ended.
                let _ = self.permits.send(self.permitted);
            }
            let Some(sent) = in_flight.pop_front() else {
                return Ok(());
            };
            self.receive().await?;
            now = Instant::now();
            recorder.record(now - sent, now);
        }
    }

    /// Ends the requests, and waits for the server to end the responses.
    async fn close(self: Box<Self>) {
        let Self { permits, mut replies, .. } = *self;
        drop(permits);
        while let Ok(Some(_)) = replies.message().await {}
    }
}

fn window(payload: usize) -> usize {
    WINDOW.min(WINDOW_BYTES / payload.max(1)).max(1)
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
