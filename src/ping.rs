//! The Ping service of `proto/ping/v1/ping.proto`: its messages, its stubs and its reference
//! implementation, [`Ping`].

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

pub use stubs::ping_service_client::PingServiceClient;
pub use stubs::ping_service_client::blocking::PingServiceClient as BlockingPingServiceClient;
pub use stubs::ping_service_server::{PingService, PingServiceServer};
pub use stubs::{
    CollectRequest, CollectResponse, ConverseRequest, ConverseResponse, PingRequest, PingResponse,
    WatchRequest, WatchResponse,
};

mod stubs {
    // The generated code names the crate as its users do.
    crate::include_proto!("ping.v1");
}

/// The proto and its imports as an encoded `FileDescriptorSet`, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ping.v1.bin"));

/// The longest interval of [`PingService::watch`].
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How many characters of a message's text an error repeats.
const SHOWN_MAX: usize = 64;

impl PingRequest {
    /// Returns a "ping" without payload.
    pub fn ping() -> Self {
        Self { message: "ping".to_owned(), ..Self::default() }
    }
}

/// The Ping service, which answers "ping" with "pong".
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Ping {}

/// A stream of responses whose type is erased.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

const PONG: &str = "pong";

/// Returns the text of the response to a message, in the memory of that message's text.
fn pong(mut message: String) -> String {
    PONG.clone_into(&mut message);
    message
}

/// Checks the text of a message: every method accepts "ping", and an empty text, which means the
/// same.
fn expect_ping(message: &str, allowed: &str) -> Result<(), Status> {
    if message.is_empty() || message == "ping" {
        return Ok(());
    }
    let mut shown: String = message.chars().take(SHOWN_MAX).collect();
    if shown.len() < message.len() {
        shown.push('…');
    }
    Err(Status::invalid_argument(format!("received {shown:?}: send {allowed}")))
}

/// Returns the duration if it is between zero and one year. prost's own conversion overflows at
/// some values.
fn checked(duration: prost_types::Duration) -> Option<Duration> {
    let prost_types::Duration { seconds, nanos } = duration;
    let seconds = Duration::from_secs(u64::try_from(seconds).ok()?);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let duration = seconds.checked_add(Duration::from_nanos(nanos.into()))?;
    (duration <= YEAR).then_some(duration)
}

#[tonic::async_trait]
impl PingService for Ping {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let PingRequest { message, payload, sequence } = request.into_inner();
        expect_ping(&message, "\"ping\"")?;
        Ok(Response::new(PingResponse { message: pong(message), payload, sequence }))
    }

    type ConverseStream = Replies<ConverseResponse>;

    async fn converse(
        &self,
        request: Request<Streaming<ConverseRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let turns = request.into_inner();
        let replies = turns.map_while(|turn| {
            let reply = turn.and_then(|ConverseRequest { message, payload, sequence }| {
                if message == "end" {
                    return Ok(None);
                }
                expect_ping(&message, "\"ping\", or \"end\" to end")?;
                Ok(Some(ConverseResponse { message: pong(message), payload, sequence }))
            });
            reply.transpose()
        });
        Ok(Response::new(Box::pin(replies)))
    }

    type WatchStream = Replies<WatchResponse>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { count, interval, payload } = request.into_inner();
        let interval = checked(interval.unwrap_or_default()).ok_or_else(|| {
            Status::invalid_argument("the interval must be a valid duration of 0 to 365 days")
        })?;
        let last = if count == 0 { u64::MAX } else { u64::from(count) };
        let pongs = tokio_stream::iter(0..last).map(move |sequence| {
            Ok(WatchResponse { message: PONG.to_owned(), payload: payload.clone(), sequence })
        });
        Ok(Response::new(Box::pin(pongs.throttle(interval))))
    }

    async fn collect(
        &self,
        request: Request<Streaming<CollectRequest>>,
    ) -> Result<Response<CollectResponse>, Status> {
        let mut pings = request.into_inner();
        let mut collected = CollectResponse::default();
        while let Some(CollectRequest { message, payload, .. }) = pings.message().await? {
            expect_ping(&message, "\"ping\"")?;
            collected.count += 1;
            collected.bytes += payload.len() as u64;
        }
        Ok(Response::new(collected))
    }
}
