//! `serve --metrics`: the server's metrics for Prometheus, over HTTP/1.1. Whoever can connect to the
//! port can hold only so many connections, and each only so long.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_stream::StreamExt as _;

use crate::failure::Failure;

/// How many connections are served at a time. The others wait, all but one in the socket's queue. A
/// scrape takes milliseconds.
const CONNECTIONS: usize = 16;

/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection without a head is kept while another one waits.
const SILENCE: Duration = Duration::from_millis(100);

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
    let mut connections = Connections::default();
    let mut logged: Option<Instant> = None;
    // After a failure the listener pauses by itself.
    while let Some(accepted) = listener.next().await {
        match accepted {
            Ok(conn) => {
                connections.make_room().await;
                connections.serve(conn, recorder.clone());
            }
            Err(error) => {
                if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
                    logged = Some(Instant::now());
                    tracing::warn!(address = %listener.local_addr(), %error, "accept failed");
                }
            }
        }
    }
}

/// The connections that are served.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Those whose head may not have come yet, the oldest first.
    silent: VecDeque<Silent>,
}

/// A connection that may have sent no head yet.
struct Silent {
    since: Instant,
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Connections {
    /// Waits until another connection may be served. The oldest one without a head gives way, so
    /// that idle ones hold up no scrape.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        while self.tasks.len() >= CONNECTIONS {
            self.silent
                .retain(|it| !it.has_asked.load(Ordering::Relaxed) && !it.task.is_finished());
            let Some(oldest) = self.silent.front() else {
                self.tasks.join_next().await;
                continue;
            };
            let gives_way_at = oldest.since + SILENCE;
            if gives_way_at <= Instant::now() {
                oldest.task.abort();
                self.tasks.join_next().await;
                continue;
            }
            // Until then it may send its head, or another one may end.
            tokio::select! {
                _ = self.tasks.join_next() => {}
                () = sleep_until(gives_way_at) => {}
            }
        }
    }

    fn serve(&mut self, conn: Conn, recorder: PrometheusHandle) {
        let has_asked = Arc::new(AtomicBool::new(false));
        let served = serve_connection(conn, recorder, Arc::clone(&has_asked));
        let task = self.tasks.spawn(async move {
            match timeout(CONNECTION_TIMEOUT, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request for metrics failed"),
                Err(_) => tracing::debug!("a connection for metrics took too long"),
            }
        });
        self.silent.retain(|it| !it.task.is_finished());
        self.silent.push_back(Silent { since: Instant::now(), has_asked, task });
    }
}

/// Answers one request. `has_asked` becomes true once its head has come.
async fn serve_connection(
    conn: Conn,
    recorder: PrometheusHandle,
    has_asked: Arc<AtomicBool>,
) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<_>| {
        has_asked.store(true, Ordering::Relaxed);
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
