//! `serve --metrics`: the server's metrics for Prometheus, over HTTP/1.1. Whoever can connect to the
//! port can hold only so many connections, and each only so long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use samehost::{Address, BindOptions, Conn, Listener, Metrics};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, timeout};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;

/// How many connections are served at a time. The others wait in the socket's queue. A scrape takes
/// milliseconds.
const CONNECTIONS: usize = 16;

/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection lasts at most, so that a slow reader holds its place no longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// How often the values of histograms are put into their buckets. Otherwise they would collect
/// while nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often a failure of accept(2) is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The content type of Prometheus' text format.
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Serves metrics over HTTP/1.1 at a TCP address from now on. Returns the address that was bound,
/// since the kernel chooses the port for port 0.
pub(crate) async fn serve(address: &Address, allow_remote: bool) -> Result<Address, Failure> {
    if address.is_unix() {
        return Err(Failure::Usage(format!(
            "{address}: Prometheus reads metrics over TCP: give --metrics an address such as \
             127.0.0.1:9464"
        )));
    }
    let listener = BindOptions::new().allow_remote(allow_remote).bind(address).await;
    let listener = listener.map_err(|error| Failure::bind(&error))?;
    let bound_at = listener.local_addr().clone();
    let recorder = install_recorder()?;
    tokio::spawn(keep_up(recorder.clone()));
    tokio::spawn(accept(listener, recorder));
    Ok(bound_at)
}

fn install_recorder() -> Result<PrometheusHandle, Failure> {
    // Names end in the unit and, of counters, in `_total`, as OpenTelemetry's rules for Prometheus
    // want it.
    let mut builder = PrometheusBuilder::new().with_recommended_naming(true);
    for (end, buckets) in
        [("duration", &Metrics::DURATION_BUCKETS[..]), ("message_size", &Metrics::SIZE_BUCKETS[..])]
    {
        builder = builder.set_buckets_for_metric(Matcher::Suffix(end.to_owned()), buckets)?;
    }
    Ok(builder.install_recorder()?)
}

async fn keep_up(recorder: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}

async fn accept(mut listener: Listener, recorder: PrometheusHandle) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut logged: Option<Instant> = None;
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        // After a failure the listener pauses by itself.
        let conn = match listener.next().await {
            Some(Ok(conn)) => conn,
            Some(Err(error)) => {
                if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
                    logged = Some(Instant::now());
                    tracing::warn!(address = %listener.local_addr(), %error, "accept failed");
                }
                continue;
            }
            None => return,
        };
        let recorder = recorder.clone();
        tokio::spawn(async move {
            match timeout(CONNECTION_TIMEOUT, serve_connection(conn, recorder)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request for metrics failed"),
                Err(_) => tracing::debug!("a connection for metrics took too long"),
            }
            drop(permit);
        });
    }
}

/// Answers one request.
async fn serve_connection(conn: Conn, recorder: PrometheusHandle) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<_>| {
        let response = response(request.method(), &recorder);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(conn), service)
        .await
}

/// Returns the metrics, at any path.
fn response(method: &Method, recorder: &PrometheusHandle) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    if !matches!(*method, Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    *response.body_mut() = Full::from(recorder.render());
    response
}
