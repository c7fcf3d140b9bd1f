//! `serve --metrics`: the server's metrics for Prometheus.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use samehost::{Address, BindOptions, Metrics};

use crate::failure::Failure;

/// Serves metrics over HTTP/1.1 at a TCP address from now on, and says where: port 0 is chosen by the
/// kernel.
pub(crate) async fn serve(address: &Address, allow_remote: bool) -> Result<SocketAddr, Failure> {
    if address.is_unix() {
        return Err(Failure::Usage(format!(
            "{address}: Prometheus reads metrics over TCP: give --metrics an address such as \
             127.0.0.1:9464"
        )));
    }
    // It resolves names and keeps to loopback. The exporter binds the same again by itself.
    let bound = BindOptions::new().allow_remote(allow_remote).bind(address).await;
    let bound = bound.map_err(|error| {
        let text = error.to_string();
        Failure::Failed(text.replace("allow remote addresses by name", "give --allow-remote"))
    })?;
    let place = bound.local_addr().to_string();
    drop(bound);
    let place: SocketAddr = place.parse().map_err(|_| {
        Failure::Failed(format!("{place}: no IP address and port to serve metrics at"))
    })?;
    let mut builder = PrometheusBuilder::new().with_http_listener(place);
    for (end, buckets) in
        [("duration", &Metrics::DURATION_BUCKETS[..]), ("message_size", &Metrics::SIZE_BUCKETS[..])]
    {
        builder = builder.set_buckets_for_metric(Matcher::Suffix(end.to_owned()), buckets)?;
    }
    builder.install().map_err(|error| {
        Failure::Failed(format!("{place}: metrics cannot be served here: {error}"))
    })?;
    Ok(place)
}
