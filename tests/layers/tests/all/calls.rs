//! The calls that layers are tried with: Ping's on stubs of samehost-build, Health's on tonic's.

use samehost::Server;
use samehost::ping::{ConverseRequest, Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::tonic::body::Body;
use samehost::tonic::client::GrpcService;
use samehost::tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;

/// The methods that [`make`] calls, in that order, each with its status.
pub const MADE: [(&str, &str, Code); 5] = [
    ("ping.v1.PingService", "Ping", Code::Ok),
    ("ping.v1.PingService", "Ping", Code::InvalidArgument),
    // A stream: its status comes in trailers.
    ("ping.v1.PingService", "Converse", Code::InvalidArgument),
    ("grpc.health.v1.Health", "Check", Code::Ok),
    ("grpc.health.v1.Health", "Check", Code::NotFound),
];

/// Adds the services to a server that has its layers.
pub fn services(server: Server) -> Server {
    server.add_service(PingServiceServer::new(Ping::default())).add_service(health_reporter().1)
}

fn request(message: &str) -> PingRequest {
    PingRequest { message: message.into(), ..PingRequest::default() }
}

/// Makes the calls through what `channel` returns, a channel within layers.
pub async fn make<T>(channel: impl Fn() -> T)
where
    T: GrpcService<Body> + 'static,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut ping = PingServiceClient::new(channel());
    ping.ping(request("ping")).await.unwrap();
    assert_eq!(ping.ping(request("no")).await.unwrap_err().code(), Code::InvalidArgument);

    let messages = ["ping", "no"]
        .map(|message| ConverseRequest { message: message.into(), ..Default::default() });
    let mut pongs = ping.converse(tokio_stream::iter(messages)).await.unwrap().into_inner();
    assert_eq!(pongs.message().await.unwrap().unwrap().message, "pong");
    assert_eq!(pongs.message().await.unwrap_err().code(), Code::InvalidArgument);

    let mut health = HealthClient::new(channel());
    health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    let unknown = health.check(HealthCheckRequest { service: "no".into() });
    assert_eq!(unknown.await.unwrap_err().code(), Code::NotFound);
}
