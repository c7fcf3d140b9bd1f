//! What other crates have for observability, around our server and our channel, with the stubs of both
//! generators.

mod calls;
mod joined;
mod tonic_prometheus;
mod tonic_tracing;
mod tower_http_trace;
mod tower_otel_layers;
