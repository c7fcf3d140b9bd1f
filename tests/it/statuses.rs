//! Statuses in rare cases: invalid or incomplete ones from peers, and those that the library makes
//! for handlers and layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use samehost::Channel;
use samehost::ping::{
    CollectRequest, CollectResponse, PingRequest, PingResponse, PingServiceClient, WatchRequest,
    WatchResponse,
};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer};
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;
use tower::{Service, ServiceBuilder};

use crate::support::{Log, Running, Scripted, Transport, on_both_transports};
use crate::wire::{Peer, block, code, data, headers, message, request, reset};

on_both_transports!(
    a_panic_is_internal_and_logged_a_few_times_a_second,
    towers_own_errors_have_their_codes,
    calls_wait_for_a_layer_that_is_not_ready,
    calls_that_were_shed_keep_no_permit,
    a_watch_of_more_than_a_year_is_refused,
    joined_binary_metadata_is_read_by_both_ends,
);

// ---- Half a message --------------------------------------------------------------------------

/// Returns the server's end of a connection, with the client's call on stream 1.
async fn called<F>(
    call: impl FnOnce(Channel) -> F,
) -> (Peer<DuplexStream>, tokio::task::JoinHandle<F::Output>)
where
    F: Future<Output: Send> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let call = tokio::spawn(call(Channel::from_stream(ours)));
    let mut server = Peer::server(theirs, &[]).await;
    server.sync().await;
    (server, call)
}

async fn ping(channel: Channel) -> Result<PingResponse, Status> {
    let mut client = PingServiceClient::new(channel);
    client.ping(PingRequest::ping()).await.map(Response::into_inner)
}

async fn watch(channel: Channel) -> Result<Vec<WatchResponse>, Status> {
    let mut client = PingServiceClient::new(channel);
    client.watch(WatchRequest::default()).await?.into_inner().collect().await
}

fn head() -> Vec<u8> {
    block(&[(":status", "200"), ("content-type", "application/grpc")])
}

#[tokio::test]
async fn half_a_message_before_a_status_of_success_is_internal_at_the_client() {
    let whole = message(b"\x0a\x04pong");
    let success = block(&[("grpc-status", "0")]);
    // A complete message is followed by a part of another one: by its prefix or a part of that.
    for cut in [1, 4, 5, 8] {
        let half = [&whole[..], &whole[..cut]].concat();
        let answer =
            [headers(1, &head(), false), data(1, &half, false), headers(1, &success, true)];
        let (mut server, call) = called(watch).await;
        server.send(&answer.concat()).await;
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert!(status.message().contains("inside a message"), "{status:?}");
    }
    // A failure already has its own reason.
    let failure = block(&[("grpc-status", "5")]);
    let answer =
        [headers(1, &head(), false), data(1, &whole[..7], false), headers(1, &failure, true)];
    let (mut server, call) = called(watch).await;
    server.send(&answer.concat()).await;
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::NotFound);
}

/// Calls through an interceptor, so that the call is an HTTP request.
async fn layered_ping(channel: Channel) -> Result<PingResponse, Status> {
    let mut client = PingServiceClient::with_interceptor(channel, Ok);
    client.ping(PingRequest::ping()).await.map(Response::into_inner)
}

#[tokio::test]
async fn half_a_message_ends_both_kinds_of_call_alike() {
    let half = data(1, &[0, 0, 0, 0, 9, 1, 2], false);
    let last = data(1, &[0, 0, 0, 0, 9, 1, 2], true);
    let failed = headers(1, &block(&[("grpc-status", "14"), ("grpc-message", "gone")]), true);
    let without = headers(1, &block(&[("x-other", "1")]), true);
    let succeeded = headers(1, &block(&[("grpc-status", "0")]), true);
    for (rest, expected) in [
        ([half.clone(), failed].concat(), Code::Unavailable),
        ([half.clone(), without].concat(), Code::Unknown),
        ([half, succeeded].concat(), Code::Internal),
        (last, Code::Internal),
    ] {
        let response = [headers(1, &head(), false), rest].concat();
        let (mut server, call) = called(ping).await;
        server.send(&response).await;
        let direct = call.await.unwrap().unwrap_err();
        let (mut server, call) = called(layered_ping).await;
        server.send(&response).await;
        let layered = call.await.unwrap().unwrap_err();
        assert_eq!(direct.code(), expected, "{direct}");
        assert_eq!(layered.to_string(), direct.to_string());
        assert!(direct.metadata().contains_key("content-type"), "{direct}");
    }
}

#[tokio::test]
async fn half_a_message_at_a_requests_end_is_internal_at_the_server() {
    type Pings = Request<Streaming<CollectRequest>>;
    let (outcome, outcomes) = std::sync::mpsc::channel();
    let service = Scripted::default().on_collect(move |pings: Pings| {
        let outcome = outcome.clone();
        async move {
            let mut pings = pings.into_inner();
            let mut received = 0;
            let ended = loop {
                match pings.message().await {
                    Ok(Some(_)) => received += 1,
                    Ok(None) => break Ok(received),
                    Err(status) => break Err(status),
                }
            };
            outcome.send(ended).unwrap();
            Ok(Response::new(CollectResponse::default()))
        }
    });
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(service.server().serve_connection(theirs));
    let mut peer = Peer::client(ours, &[]).await;
    let whole = message(b"");
    let half = [&whole[..], &message(b"\x08\x01")[..6]].concat();
    let collect = request("/ping.v1.PingService/Collect");
    let trailers = block(&[("x-trailer", "1")]);
    for (stream, end) in [(1, data(1, &half, true)), (3, headers(3, &trailers, true))] {
        peer.send(&headers(stream, &collect, false)).await;
        if stream == 3 {
            peer.send(&data(stream, &half, false)).await;
            // After this the request does not arrive as a whole.
            peer.sync().await;
        }
        peer.send(&end).await;
        peer.until(|frame| frame.stream == stream && frame.ends_stream()).await;
        let status = outcomes.recv().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status:?}");
    }
}

// ---- Deadlines -------------------------------------------------------------------------------

/// The server's deadline passes first, and it cancels the stream before the client's own timer has
/// fired.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cancelled_past_its_deadline_has_met_its_deadline() {
    for answer in [Vec::new(), headers(1, &head(), false)] {
        let (mut server, call) = called(|channel| async move {
            let mut request = Request::new(WatchRequest::default());
            request.set_timeout(Duration::from_millis(100));
            let mut client = PingServiceClient::new(channel);
            let mut watched = client.watch(request).await?.into_inner();
            // The stream is not polled before the deadline has passed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            watched.message().await
        })
        .await;
        server.send(&answer).await;
        server.sync().await;
        // A paused clock advances when all tasks wait, so that both happen at the same instant.
        std::future::poll_fn(|_| std::task::Poll::Ready(())).await;
        tokio::time::advance(Duration::from_millis(100)).await;
        server.send(&reset(1, code::CANCEL)).await;
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    // Before the deadline, the code of the reset decides.
    let (mut server, call) = called(|channel| async move {
        let mut request = Request::new(PingRequest::ping());
        request.set_timeout(Duration::from_secs(100));
        PingServiceClient::new(channel).ping(request).await
    })
    .await;
    server.send(&reset(1, code::CANCEL)).await;
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Cancelled);
}

// ---- What tonic does not read ----------------------------------------------------------------

async fn status_of(trailers: &[(&str, &str)]) -> Status {
    let (mut server, call) = called(ping).await;
    let answer = [&[(":status", "200"), ("content-type", "application/grpc")], trailers].concat();
    server.send(&headers(1, &block(&answer), true)).await;
    let in_the_head = call.await.unwrap().unwrap_err();
    let (mut server, call) = called(ping).await;
    let answer = [
        headers(1, &head(), false),
        data(1, &message(b""), false),
        headers(1, &block(trailers), true),
    ];
    server.send(&answer.concat()).await;
    let in_trailers = call.await.unwrap().unwrap_err();
    assert_eq!(in_the_head.code(), in_trailers.code());
    assert_eq!(in_the_head.message(), in_trailers.message());
    assert_eq!(in_the_head.details(), in_trailers.details());
    in_trailers
}

#[tokio::test]
async fn details_that_are_no_base64_do_no_harm() {
    let (log, _guard) = Log::start();
    for (details, read) in [
        ("!", &b""[..]),
        ("AQI,AwQ", &[1, 2]),
        ("AQI=,!!", &[1, 2]),
        ("AQJ", &[1, 2]),
        ("====", b""),
        ("A", b""),
    ] {
        let status = status_of(&[
            ("grpc-status", "9"),
            ("grpc-message", "kept"),
            ("grpc-status-details-bin", details),
        ])
        .await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{details}");
        assert_eq!((status.message(), status.details()), ("kept", read), "{details}");
    }
    assert!(!log.lines("no base64").is_empty(), "what is dropped is logged");
}

#[tokio::test]
async fn a_message_that_is_no_utf8_keeps_its_code_and_its_text() {
    let status = status_of(&[("grpc-status", "3"), ("grpc-message", "bad %C3%28 value")]).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "bad \u{fffd}( value");
}

async fn joined_binary_metadata_is_read_by_both_ends(transport: Transport) {
    let values = |metadata: &tonic::metadata::MetadataMap| -> Vec<Vec<u8>> {
        let values = metadata.get_all_bin("x-bin").iter();
        values.map(|value| value.to_bytes().unwrap().to_vec()).collect()
    };
    let joined = || {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-bin", "AQI,AwQ".parse().unwrap());
        tonic::metadata::MetadataMap::from_headers(headers)
    };
    let service = Scripted::default().on_ping(move |request| async move {
        assert_eq!(values(request.metadata()), [[1, 2], [3, 4]]);
        let mut response = Response::new(PingResponse::default());
        *response.metadata_mut() = joined();
        Ok(response)
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut request = Request::new(PingRequest::ping());
    *request.metadata_mut() = joined();
    let response = client.ping(request).await.unwrap();
    assert_eq!(values(response.metadata()), [[1, 2], [3, 4]]);
}

// ---- Handlers --------------------------------------------------------------------------------

async fn a_watch_of_more_than_a_year_is_refused(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut watch = async |seconds, nanos| {
        let interval = Some(prost_types::Duration { seconds, nanos });
        let request = WatchRequest { count: 2, interval, ..WatchRequest::default() };
        client.watch(request).await.map(drop)
    };
    for (seconds, nanos) in
        [(i64::MAX, 0), (i64::MAX, 999_999_999), (i64::MIN, -1), (31_536_000, 1), (0, -1)]
    {
        let status = watch(seconds, nanos).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{seconds}: {status:?}");
    }
    watch(31_536_000, 0).await.unwrap();
}

async fn a_panic_is_internal_and_logged_a_few_times_a_second(transport: Transport) {
    let service = Scripted::default()
        .on_ping(|request| async move {
            if request.get_ref().sequence == 1 {
                tokio::task::yield_now().await;
            }
            panic!("a bug of this test's \x1b[31m")
        })
        .on_watch(|_| {
            tokio_stream::iter(0..).then(|sequence| async move {
                if sequence == 1 {
                    // The first message is sent before the panic.
                    tokio::task::yield_now().await;
                    panic!("another bug of this test's");
                }
                Ok(WatchResponse::default())
            })
        });
    let server = Running::start(transport, service.server()).await;
    let (log, _guard) = Log::start();
    let mut client = PingServiceClient::new(server.channel().await);
    for call in 0..100 {
        let request = PingRequest { sequence: call % 2, ..PingRequest::ping() };
        let status = client.ping(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "the handler panicked");
    }
    let mut watched = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    watched.message().await.unwrap().expect("the first response");
    let status = watched.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "the handler panicked"));
    let lines = log.lines("a handler panicked");
    // The limit counts other tests' panics, too, and other threads log elsewhere.
    assert!(lines.len() < 80, "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:?}");
}

async fn towers_own_errors_have_their_codes(transport: Transport) {
    let begun = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&begun);
    let service = Scripted::default().on_ping(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<Response<PingResponse>, Status>>()
    });
    let layers = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .into_inner();
    let server = Running::start(transport, service.server().layer(layers)).await;
    let client = PingServiceClient::new(server.channel().await);
    let mut first = client.clone();
    let held = tokio::spawn(async move { first.ping(PingRequest::ping()).await });
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let status = client.clone().ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    held.abort();

    let service = Scripted::default().on_ping(|_| std::future::pending());
    let layered = service.server().layer(TimeoutLayer::new(Duration::from_millis(1)));
    let server = Running::start(transport, layered).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

/// Counts how often a service is not ready.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    not_ready: Arc<AtomicU32>,
}

impl<S: Service<R>, R> Service<R> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let ready = self.inner.poll_ready(cx);
        self.not_ready.fetch_add(ready.is_pending().into(), Ordering::SeqCst);
        ready
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

/// A limit gives its turns to those who wait, in their order. A service that has begun to wait and
/// then makes no call must not keep a turn.
async fn calls_wait_for_a_layer_that_is_not_ready(transport: Transport) {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let service = Scripted::default().on_ping(move |_| {
        let (end, ended) = oneshot::channel();
        begun.send(end).unwrap();
        async move {
            ended
                .await
                .map_err(|_| Status::aborted(""))
                .map(|()| Response::new(PingResponse::default()))
        }
    });
    let not_ready = Arc::<AtomicU32>::default();
    let count = Arc::clone(&not_ready);
    let layers = ServiceBuilder::new()
        .layer_fn(move |inner| Counted { inner, not_ready: Arc::clone(&count) })
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .into_inner();
    let server = Running::start(transport, service.server().layer(layers)).await;
    let (one, other) = (server.channel().await, server.channel().await);
    let call = |channel: &Channel| {
        let mut client = PingServiceClient::new(channel.clone());
        tokio::spawn(async move { client.ping(PingRequest::ping()).await })
    };
    let mut calls = vec![call(&one)];
    while begins.is_empty() {
        tokio::task::yield_now().await;
    }
    // Nothing else happens on this connection while the call waits.
    calls.push(call(&one));
    while not_ready.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    calls.push(call(&other));
    for call in calls {
        let running = timeout(Duration::from_secs(10), begins.recv()).await;
        running.expect("a call that waits gets its turn").unwrap().send(()).unwrap();
        call.await.unwrap().unwrap();
    }
}

/// A call that was shed must not keep the permit that it waited for, as long as its connection is open.
async fn calls_that_were_shed_keep_no_permit(transport: Transport) {
    let service = Scripted::default().on_ping(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Response::new(PingResponse::default()))
    });
    let layers = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .into_inner();
    let server = Running::start(transport, service.server().layer(layers)).await;
    let (mut channels, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let channel = server.channel().await;
        let mut client = PingServiceClient::new(channel.clone());
        calls.push(tokio::spawn(async move { client.ping(PingRequest::ping()).await }));
        channels.push(channel);
    }
    let mut shed = 0;
    for call in calls {
        shed += u32::from(call.await.unwrap().is_err());
    }
    assert!(shed > 0, "they came one after the other");
    let mut client = PingServiceClient::new(server.channel().await);
    for _ in 0..3 {
        client.ping(PingRequest::ping()).await.unwrap();
    }
}

/// tonic's generated clients with an interceptor require this of a channel.
#[tokio::test]
async fn a_generated_client_takes_an_interceptor() {
    let server = Running::ping(Transport::Unix).await;
    let channel = server.channel().await;
    let mut client = PingServiceClient::with_interceptor(channel, |mut request: Request<()>| {
        request.metadata_mut().insert("x-intercepted", "yes".parse().unwrap());
        Ok(request)
    });
    assert_eq!(client.ping(PingRequest::ping()).await.unwrap().into_inner().message, "pong");
}
