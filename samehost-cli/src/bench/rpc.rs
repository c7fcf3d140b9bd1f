//! Calls of the Ping service through the stubs, on the channel of any stack. Here are the workers
//! of each [`Kind`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use samehost::ping::{ConverseRequest, ConverseResponse, PingRequest, WatchRequest};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming};

use super::cell::{Cell, Kind};
use super::memory;
use super::stubs::{Dial, Stub};
use super::worker::{Problem, Recorder, RecorderQueue, STALL_TIMEOUT, Share, Worker};
use crate::args::PAYLOAD_MAX;

/// How many messages a stream has in flight.
const WINDOW: usize = 256;

/// How many bytes of payload a stream has in flight, if that is less. Larger windows would only
/// make messages wait for each other.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// The size of everything in a message beside its payload.
pub(super) const FIELDS_MAX: usize = 1024;

/// The largest message that is received, at either end.
pub(super) const MESSAGE_MAX: usize = PAYLOAD_MAX + FIELDS_MAX;

/// Opens the connections and, for [`Kind::Stream`], the streams. Returns a worker for each call in
/// flight or stream.
pub(super) async fn workers(
    dialer: impl Dial,
    cell: &Cell,
) -> Result<Vec<Box<dyn Worker>>, Problem> {
    if let Some(carriage) = cell.carriage {
        return memory::workers(dialer, cell, carriage).await;
    }
    let payload = Bytes::from(vec![0; cell.payload]);
    let mut workers: Vec<Box<dyn Worker>> = Vec::new();
    if cell.kind == Kind::Connect {
        for _ in 0..cell.concurrency {
            workers
                .push(Box::new(ConnectWorker { dialer: dialer.clone(), payload: payload.clone() }));
        }
        return Ok(workers);
    }
    let mut clients = Vec::new();
    for _ in 0..cell.connections {
        clients.push(dialer.dial().await?);
    }
    for (open, client) in clients.iter().cycle().take(cell.concurrency).enumerate() {
        // Each worker has its own, as calls of a program do. Threads would wait for each other's
        // references to one that they share.
        let (client, payload) = (client.clone(), Bytes::copy_from_slice(&payload));
        workers.push(match cell.kind {
            Kind::Bulk => Box::new(BulkWorker { client, payload }),
            Kind::Stream => {
                let opened = timeout(STALL_TIMEOUT, StreamWorker::open(client, payload)).await;
                Box::new(opened.map_err(|_| match open {
                    0 => Problem::Stalled,
                    _ => Problem::Other(format!(
                        "the server takes {open} streams at once and no more: lower --concurrency"
                    )),
                })??)
            }
            Kind::Unary | Kind::Connect => Box::new(UnaryWorker { client, payload, sequence: 0 }),
        });
    }
    Ok(workers)
}

/// Makes one call and checks the response.
async fn ping(client: &mut impl Stub, payload: &Bytes, sequence: u64) -> Result<(), Problem> {
    let request = PingRequest { payload: payload.clone(), sequence, ..PingRequest::ping() };
    let reply = client.ping(Request::new(request)).await?.into_inner();
    check(&reply.message, &reply.payload, reply.sequence, payload, sequence)
}

/// Makes one call after the other.
struct UnaryWorker<T> {
    client: T,
    payload: Bytes,
    /// The sequence number of the last call.
    sequence: u64,
}

#[tonic::async_trait]
impl<T: Stub> Worker for UnaryWorker<T> {
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem> {
        let mut calls = 0;
        let mut now = Instant::now();
        let mut recorder = RecorderQueue::new(recorder);
        while share.goes_on(calls, now) {
            calls += 1;
            self.sequence += 1;
            let started = Instant::now();
            ping(&mut self.client, &self.payload, self.sequence).await?;
            now = Instant::now();
            recorder.record(now - started, now);
        }
        Ok(())
    }
}

/// Opens one connection after the other, and makes one call on each.
struct ConnectWorker<D> {
    dialer: D,
    payload: Bytes,
}

#[tonic::async_trait]
impl<D: Dial> Worker for ConnectWorker<D> {
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem> {
        let mut calls = 0;
        let mut now = Instant::now();
        while share.goes_on(calls, now) {
            calls += 1;
            let started = Instant::now();
            let mut client = self.dialer.dial().await?;
            ping(&mut client, &self.payload, calls).await?;
            now = Instant::now();
            recorder.record(now - started);
        }
        Ok(())
    }
}

/// Reads a stream that the server fills as fast as it is read.
struct BulkWorker<T> {
    client: T,
    payload: Bytes,
}

#[tonic::async_trait]
impl<T: Stub> Worker for BulkWorker<T> {
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem> {
        // Each run has its own stream, because what an earlier one has buffered would cost nothing.
        // If the count is not known or is out of range, the stream has no end.
        let count = match share {
            Share::Calls(calls) => calls.try_into().unwrap_or(0),
            Share::Until(_) => 0,
        };
        let request = WatchRequest { count, interval: None, payload: self.payload.clone() };
        let mut last = Instant::now();
        let mut messages = self.client.watch(request).await?.into_inner();
        let mut calls = 0;
        while share.goes_on(calls, last) {
            let message = messages.message().await?.ok_or_else(ended_early)?;
            let now = Instant::now();
            recorder.record(now - last);
            last = now;
            check(&message.message, &message.payload, message.sequence, &self.payload, calls)?;
            calls += 1;
        }
        Ok(())
    }
}

/// A stream with a window of messages in flight.
struct StreamWorker {
    requests: mpsc::UnboundedSender<ConverseRequest>,
    replies: Streaming<ConverseResponse>,
    payload: Bytes,
    /// The sequence number of the last message sent.
    sent: u64,
    /// The sequence number of the last echo.
    received: u64,
}

impl StreamWorker {
    /// Opens a stream and has one message echoed. Some servers send nothing before that, not even
    /// that they have accepted the call.
    async fn open<T: Stub>(mut client: T, payload: Bytes) -> Result<Self, Problem> {
        // The worker itself sees to it that no more than a window is in the queue. A limit of the queue
        // would be another lock for each message.
        let (requests, outgoing) = mpsc::unbounded_channel();
        let first = request(&payload, 1);
        requests.send(first).map_err(|_| Status::internal("the stream's queue is closed"))?;
        let outgoing = UnboundedReceiverStream::new(outgoing);
        let replies = client.converse(outgoing).await?.into_inner();
        let mut stream = Self { requests, replies, payload, sent: 1, received: 0 };
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
        let mut in_flight = VecDeque::with_capacity(window);
        let mut recorder = RecorderQueue::new(recorder);
        loop {
            while in_flight.len() < window && share.goes_on(started, now) {
                started += 1;
                self.sent += 1;
                // The clock was read when the last echo came, which is just before.
                in_flight.push_back(now);
                // The queue closes only with the call, and `receive` returns why the call ended.
                let _ = self.requests.send(request(&self.payload, self.sent));
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
        let Self { requests, mut replies, .. } = *self;
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

fn ended_early() -> Problem {
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
    use super::window;

    #[test]
    fn large_messages_have_a_smaller_window() {
        let payloads = [0, 1024, 16384, 65536, 1 << 20, (4 << 20) - 64];
        assert_eq!(payloads.map(window), [256, 256, 256, 64, 4, 1]);
    }
}
