//! `serve --metrics`: the server's metrics for Prometheus.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use samehost::{Address, BindOptions, Metrics};

use crate::failure::{Failure, with_options};

/// Serves metrics over HTTP/1.1 at a TCP address from now on. Returns the address that was bound,
/// since the kernel chooses the port for port 0.
pub(crate) async fn serve(address: &Address, allow_remote: bool) -> Result<SocketAddr, Failure> {
    if address.is_unix() {
        return Err(Failure::Usage(format!(
            "{address}: Prometheus reads metrics over TCP: give --metrics an address such as \
             127.0.0.1:9464"
        )));
    }
    // This resolves names and refuses addresses beyond loopback. The exporter then binds the same
    // address itself.
    let bound = BindOptions::new().allow_remote(allow_remote).bind(address).await;
    let bound = bound.map_err(|error| Failure::Failed(with_options(&error.to_string())))?;
    let text = bound.local_addr().to_string();
    drop(bound);
    let bound_at: SocketAddr = text.parse().map_err(|_| {
        Failure::Failed(format!("{text}: no IP address and port to serve metrics at"))
    })?;
    let mut builder = PrometheusBuilder::new().with_http_listener(bound_at);
    for (end, buckets) in
        [("duration", &Metrics::DURATION_BUCKETS[..]), ("message_size", &Metrics::SIZE_BUCKETS[..])]
    {
        builder = builder.set_buckets_for_metric(Matcher::Suffix(end.to_owned()), buckets)?;
    }
    builder.install().map_err(|error| {
        Failure::Failed(format!("{bound_at}: metrics cannot be served here: {error}"))
    })?;
    Ok(bound_at)
}
