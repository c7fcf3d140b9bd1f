//! [`Stub`]: the Ping service's client, by any of the code generators. Here is also the server of
//! tonic's generated code.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use samehost::ping::{
    CollectRequest, CollectResponse, ConverseRequest, ConverseResponse, PingRequest, PingResponse,
    PingService, PingServiceClient, WatchRequest, WatchResponse,
};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic::{Request, Response, Status, Streaming};

use self::generated::ping_service_client::PingServiceClient as TonicPingServiceClient;
use self::generated::ping_service_server::{
    PingService as TonicPingService, PingServiceServer as TonicPingServiceServer,
};

use super::requests::Requests;
use super::worker::Problem;

#[allow(
    unreachable_pub,
    missing_docs,
    clippy::all,
    reason = "it is tonic's generator that writes it"
)]
mod generated {
    tonic::include_proto!("ping.v1");
}

/// The services that the stubs can call through.
pub(super) trait Caller:
    GrpcService<
        Body,
        Future: Send,
        Error: Into<StdError>,
        ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> Caller for T where
    T: GrpcService<
            Body,
            Future: Send,
            Error: Into<StdError>,
            ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError> + Send>
                              + Send
                              + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

type Answer<T> = Result<Response<T>, Status>;

/// A client of the Ping service.
pub(super) trait Stub: Clone + Send + 'static {
    fn ping(
        &mut self,
        request: Request<PingRequest>,
    ) -> impl Future<Output = Answer<PingResponse>> + Send;

    fn converse(
        &mut self,
        requests: Requests,
    ) -> impl Future<Output = Answer<Streaming<ConverseResponse>>> + Send;

    fn watch(
        &mut self,
        request: WatchRequest,
    ) -> impl Future<Output = Answer<Streaming<WatchResponse>>> + Send;
}

/// How a stack connects.
pub(super) trait Dial: Clone + Send + Sync + 'static {
    /// Returns a client on a new connection.
    fn dial(&self) -> impl Future<Output = Result<impl Stub, Problem>> + Send;
}

/// Returns clients on so many new connections.
pub(super) async fn dial_all(
    dialer: &impl Dial,
    connections: usize,
) -> Result<Vec<impl Stub>, Problem> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(dialer.dial().await?);
    }
    Ok(clients)
}

/// The methods have the same names in the code of both generators.
macro_rules! stub {
    ($client:ident) => {
        impl<T: Caller> Stub for $client<T> {
            fn ping(
                &mut self,
                request: Request<PingRequest>,
            ) -> impl Future<Output = Answer<PingResponse>> + Send {
                Self::ping(self, request)
            }

            fn converse(
                &mut self,
                requests: Requests,
            ) -> impl Future<Output = Answer<Streaming<ConverseResponse>>> + Send {
                Self::converse(self, requests)
            }

            fn watch(
                &mut self,
                request: WatchRequest,
            ) -> impl Future<Output = Answer<Streaming<WatchResponse>>> + Send {
                Self::watch(self, request)
            }
        }
    };
}

stub!(PingServiceClient);
stub!(TonicPingServiceClient);

pub(super) fn samehost_client<T: Caller>(channel: T, limit: usize) -> impl Stub {
    PingServiceClient::new(channel).max_decoding_message_size(limit)
}

pub(super) fn tonic_client<T: Caller>(channel: T, limit: usize) -> impl Stub {
    TonicPingServiceClient::new(channel).max_decoding_message_size(limit)
}

/// Returns tonic's server of a service that was written for ours. It takes messages up to `limit`
/// bytes.
pub(super) fn tonic_server<S: PingService>(
    service: S,
    limit: usize,
) -> TonicPingServiceServer<OnTonic<S>> {
    TonicPingServiceServer::new(OnTonic(service)).max_decoding_message_size(limit)
}

/// The two traits differ only in their module. The futures are passed on unchanged.
pub(super) struct OnTonic<S>(S);

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Answer<T>> + Send + 'a>>;

impl<S: PingService> TonicPingService for OnTonic<S> {
    fn ping<'a, 'b>(&'a self, request: Request<PingRequest>) -> BoxFuture<'b, PingResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        self.0.ping(request)
    }

    type ConverseStream = S::ConverseStream;

    fn converse<'a, 'b>(
        &'a self,
        request: Request<Streaming<ConverseRequest>>,
    ) -> BoxFuture<'b, Self::ConverseStream>
    where
        'a: 'b,
        Self: 'b,
    {
        self.0.converse(request)
    }

    type WatchStream = S::WatchStream;

    fn watch<'a, 'b>(&'a self, request: Request<WatchRequest>) -> BoxFuture<'b, Self::WatchStream>
    where
        'a: 'b,
        Self: 'b,
    {
        self.0.watch(request)
    }

    fn collect<'a, 'b>(
        &'a self,
        request: Request<Streaming<CollectRequest>>,
    ) -> BoxFuture<'b, CollectResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        self.0.collect(request)
    }
}
