//! A Ping client whose call is a span of its own trace, and the server's span a child of it.

use example_tracing::Telemetry;
use samehost::Channel;
use samehost::ping::{PingRequest, PingServiceClient};
use tonic_tracing_opentelemetry::middleware::client::OtelGrpcLayer;
use tower::Layer;
use tracing::Instrument;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or("unix:/tmp/ping.sock".into());
    let telemetry = Telemetry::start("ping-client")?;
    let channel = OtelGrpcLayer.layer(Channel::connect(address).await?);
    let mut client = PingServiceClient::new(channel);
    let work = tracing::info_span!("work");
    let reply = client.ping(PingRequest::ping()).instrument(work).await?;
    println!("{}", reply.into_inner().message);
    telemetry.stop().await
}
