//! `--memory`: the server receives one payload after the other, in each possible way: in a message,
//! or in memory whose descriptor travels with the call. Here are the worker ([`workers`]) and the
//! service ([`Taker`]).
//!
//! The server answers each call with its result: the length of the payload or, if it has to read
//! every byte, their sum.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use samehost::ping::{
    CollectRequest, CollectResponse, ConverseRequest, ConverseResponse, PingRequest, PingResponse,
    PingService, WatchRequest, WatchResponse,
};
use samehost::{Descriptors, SealedMemory, SealedMemoryError};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::cell::{Carrier, Cell, Delivery};
use super::stubs::{Dial, Stub, dial_all};
use super::worker::{Problem, Recorder, Share, Worker};
use crate::args::MEMORY_MAX;

/// What the service has to do with a payload: receive it, or also read it.
const RECEIVE: &str = "receive";
const READ: &str = "read";

/// Returns bytes that are not all the same.
pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

/// Returns what a receiver answers. It proves that the receiver had all bytes, or read them.
pub(super) fn seen(payload: &[u8], read: bool) -> u64 {
    match read {
        true => sum(payload),
        false => payload.len() as u64,
    }
}

/// Returns the sum of all bytes as eight-byte numbers, which is as fast as memory can be read.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words.chain(rest.iter().map(|byte| u64::from(*byte))).fold(0, u64::wrapping_add)
}

/// Returns the workers of a cell that has a [`Delivery`].
pub(super) async fn workers(
    dialer: impl Dial,
    cell: &Cell,
    delivery: Delivery,
) -> Result<Vec<Box<dyn Worker>>, Problem> {
    let payload = Bytes::from(payload(cell.payload));
    let memory = SealedMemory::copy_from(&payload)?;
    let expected = seen(&payload, delivery.read);
    let mut workers: Vec<Box<dyn Worker>> = Vec::new();
    let clients = dial_all(&dialer, cell.connections).await?;
    for client in clients.iter().cycle().take(cell.concurrency) {
        workers.push(Box::new(MemoryWorker {
            client: client.clone(),
            delivery,
            payload: payload.clone(),
            memory: memory.clone(),
            expected,
        }));
    }
    Ok(workers)
}

/// Sends one payload after the other.
struct MemoryWorker<T> {
    client: T,
    delivery: Delivery,
    payload: Bytes,
    /// The payload in sealed memory.
    memory: SealedMemory,
    /// The answer that the server must give.
    expected: u64,
}

impl<T: Stub> MemoryWorker<T> {
    fn request(&self) -> Result<Request<PingRequest>, Problem> {
        let message = if self.delivery.read { READ } else { RECEIVE }.to_owned();
        let mut request = Request::new(PingRequest { message, ..PingRequest::default() });
        let memory = match self.delivery.by {
            Carrier::Message | Carrier::Socket => {
                request.get_mut().payload = self.payload.clone();
                return Ok(request);
            }
            Carrier::SealedOnce => self.memory.clone(),
            Carrier::SealedAnew => SealedMemory::copy_from(&self.payload)?,
        };
        request.extensions_mut().insert(Descriptors::from([memory.into_fd()?]));
        Ok(request)
    }
}

#[tonic::async_trait]
impl<T: Stub> Worker for MemoryWorker<T> {
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem> {
        let mut calls = 0;
        let mut now = Instant::now();
        while share.goes_on(calls, now) {
            calls += 1;
            let started = Instant::now();
            let request = self.request()?;
            let seen = self.client.ping(request).await?.into_inner().sequence;
            now = Instant::now();
            recorder.record(now - started);
            if seen != self.expected {
                return Err(Problem::Other(format!(
                    "the server saw {seen} of a payload, not {}",
                    self.expected
                )));
            }
        }
        Ok(())
    }
}

impl From<SealedMemoryError> for Problem {
    fn from(error: SealedMemoryError) -> Self {
        Self::Other(format!("sealed memory failed: {error}"))
    }
}

/// Takes payloads, in a message or in memory.
pub(super) struct Taker;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn only_payloads<T>() -> Result<T, Status> {
    Err(Status::unimplemented("this server takes payloads by Ping and nothing else"))
}

#[tonic::async_trait]
impl PingService for Taker {
    async fn ping(
        &self,
        mut request: Request<PingRequest>,
    ) -> Result<Response<PingResponse>, Status> {
        let descriptors = request.extensions_mut().remove::<Descriptors>().unwrap_or_default();
        let PingRequest { message, payload, .. } = request.into_inner();
        let read = message == READ;
        let sequence = match descriptors.take().pop() {
            Some(descriptor) => {
                let refused =
                    |error: SealedMemoryError| Status::invalid_argument(error.to_string());
                let memory = SealedMemory::from_fd(descriptor).map_err(refused)?;
                seen(&memory.map(MEMORY_MAX as u64).map_err(refused)?, read)
            }
            None => seen(&payload, read),
        };
        Ok(Response::new(PingResponse { sequence, ..PingResponse::default() }))
    }

    type ConverseStream = Responses<ConverseResponse>;

    async fn converse(
        &self,
        _request: Request<Streaming<ConverseRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        only_payloads()
    }

    type WatchStream = Responses<WatchResponse>;

    async fn watch(
        &self,
        _request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        only_payloads()
    }

    async fn collect(
        &self,
        _request: Request<Streaming<CollectRequest>>,
    ) -> Result<Response<CollectResponse>, Status> {
        only_payloads()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::report::tests::CELL;
    use super::super::requests::Requests;
    use super::*;

    /// Counts connections, and has none.
    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicUsize>);

    impl Dial for Counter {
        async fn dial(&self) -> Result<impl Stub, Problem> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(self.clone())
        }
    }

    impl Stub for Counter {
        async fn ping(
            &mut self,
            _: Request<PingRequest>,
        ) -> Result<Response<PingResponse>, Status> {
            only_payloads()
        }

        async fn converse(
            &mut self,
            _: Requests,
        ) -> Result<Response<Streaming<ConverseResponse>>, Status> {
            only_payloads()
        }

        async fn watch(
            &mut self,
            _: WatchRequest,
        ) -> Result<Response<Streaming<WatchResponse>>, Status> {
            only_payloads()
        }
    }

    #[tokio::test]
    async fn workers_share_the_connections() {
        let delivery = Delivery { by: Carrier::Message, read: false };
        let cell = Cell { concurrency: 5, connections: 2, delivery: Some(delivery), ..CELL };
        let counter = Counter::default();
        let workers = workers(counter.clone(), &cell, delivery).await.ok().unwrap();
        assert_eq!((workers.len(), counter.0.load(Ordering::Relaxed)), (5, 2));
    }

    #[test]
    fn what_was_seen_depends_on_all_bytes() {
        let payload = payload(1003);
        assert_eq!(seen(&payload, false), 1003);
        for index in [0, 500, 1000, 1002] {
            let mut other = payload.clone();
            other[index] ^= 1;
            assert_ne!(seen(&other, true), seen(&payload, true), "{index}");
        }
    }
}
