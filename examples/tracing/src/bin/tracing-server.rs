//! A Ping server whose calls are spans of the trace that their client is in.
//!
//! ```sh
//! export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317
//! cargo run --bin tracing-server -- unix:/tmp/ping.sock
//! cargo run --bin tracing-client -- unix:/tmp/ping.sock
//! ```

use example_tracing::Telemetry;
use samehost::ping::{Ping, PingServiceServer};
use samehost::{Listener, Server};
use tonic_tracing_opentelemetry::middleware::server::OtelGrpcLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or("unix:/tmp/ping.sock".into());
    let telemetry = Telemetry::start("ping-server")?;
    let listener = Listener::bind(address).await?;
    println!("listening on {}", listener.local_addr());
    Server::new()
        .layer(OtelGrpcLayer::default())
        .add_service(PingServiceServer::new(Ping::default()))
        .serve_with_shutdown(listener, async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    telemetry.stop().await
}
