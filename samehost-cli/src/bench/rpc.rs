//! Calls of the Ping service through the stubs, on the channel of any stack. Here are the workers
//! of each [`Kind`] but that of bidirectional streams.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use samehost::ping::{PingRequest, WatchRequest};
use tokio::time::timeout;
use tonic::Request;

use super::cell::{Cell, Kind};
use super::memory;
use super::stream::StreamWorker;
use super::stubs::{Dial, Stub, dial_all};
use super::worker::{
    Problem, Recorder, RecorderQueue, STALL_TIMEOUT, Share, Worker, check, ended_early,
};
use crate::args::PAYLOAD_MAX;

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
    if let Some(delivery) = cell.delivery {
        return memory::workers(dialer, cell, delivery).await;
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
    let clients = dial_all(&dialer, cell.connections).await?;
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
