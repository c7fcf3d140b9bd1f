//! Deadlines and cancellation on both ends, of unary calls and of streams, and the end of the
//! handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use samehost::ping::{PingRequest, PingResponse, PingServiceClient, WatchRequest, WatchResponse};
use samehost::{Channel, Server};
use tokio::io::DuplexStream;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status};

use crate::notes::Notes;
use crate::support::{Counted, Running, Scripted, Transport, eventually_async, on_both_transports};
use crate::wire::{Peer, code, data, headers, kind, message, request_with, window_update};

const PING: &str = "/ping.v1.PingService/Ping";
const WATCH: &str = "/ping.v1.PingService/Watch";

on_both_transports!(
    a_dropped_call_drops_its_handler,
    a_dropped_stream_drops_its_handler,
    a_lost_client_drops_its_handlers,
    a_deadline_ends_the_call_on_both_ends,
);

/// Returns a service that never answers, and the number of its running handlers.
pub(crate) fn never() -> (Scripted, Arc<AtomicUsize>) {
    let alive = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&alive);
    let service = Scripted::default().on_ping(move |_| {
        let counted = Counted::new(&count);
        async move {
            let _counted = counted;
            std::future::pending().await
        }
    });
    (service, alive)
}

/// Returns a service whose stream sends one message and then nothing.
fn stuck() -> (Scripted, Arc<AtomicUsize>) {
    let alive = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&alive);
    let service = Scripted::default().on_watch(move |_| {
        let counted = Counted::new(&count);
        tokio_stream::once(Ok(WatchResponse::default())).chain(tokio_stream::pending()).map(
            move |message| {
                let _alive = &counted;
                message
            },
        )
    });
    (service, alive)
}

/// Returns a service whose stream always has another message.
fn endless() -> (Scripted, Arc<AtomicUsize>) {
    endless_of(Bytes::new())
}

fn endless_of(payload: Bytes) -> (Scripted, Arc<AtomicUsize>) {
    let alive = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&alive);
    let service = Scripted::default().on_watch(move |_| {
        let (counted, payload) = (Counted::new(&count), payload.clone());
        tokio_stream::iter(0..).map(move |sequence| {
            let _alive = &counted;
            Ok(WatchResponse { sequence, payload: payload.clone(), ..WatchResponse::default() })
        })
    });
    (service, alive)
}

async fn a_dropped_call_drops_its_handler(transport: Transport) {
    let (service, alive) = never();
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.ping(PingRequest::ping()).await });
    eventually_async("the handler runs", || alive.load(Ordering::SeqCst) == 1).await;
    call.abort();
    eventually_async("the handler is dropped", || alive.load(Ordering::SeqCst) == 0).await;
    // The connection still works.
    client.watch(WatchRequest::default()).await.unwrap();
}

async fn a_dropped_stream_drops_its_handler(transport: Transport) {
    let (service, alive) = stuck();
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut stream = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    drop(stream);
    eventually_async("the handler is dropped", || alive.load(Ordering::SeqCst) == 0).await;
}

async fn a_lost_client_drops_its_handlers(transport: Transport) {
    let (service, alive) = never();
    let server = Running::start(transport, service.server()).await;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let address = server.address.clone();
    runtime.spawn(async move {
        let channel = Channel::connect(&address).await.unwrap();
        let calls = (0..10).map(|_| {
            let mut client = PingServiceClient::new(channel.clone());
            tokio::spawn(async move { client.ping(PingRequest::ping()).await })
        });
        let _calls: Vec<_> = calls.collect();
        std::future::pending::<()>().await;
    });
    eventually_async("the handlers run", || alive.load(Ordering::SeqCst) == 10).await;
    runtime.shutdown_background();
    eventually_async("the handlers are dropped", || alive.load(Ordering::SeqCst) == 0).await;
}

async fn a_deadline_ends_the_call_on_both_ends(transport: Transport) {
    let (service, alive) = never();
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_millis(20));
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    eventually_async("the handler is dropped", || alive.load(Ordering::SeqCst) == 0).await;
}

// ---- With a paused clock -------------------------------------------------------------------

async fn peer(server: Server, settings: &[(u16, u32)]) -> Peer<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(server.serve_connection(theirs));
    Peer::client(ours, settings).await
}

/// The client of this test has no deadline of its own.
#[tokio::test(start_paused = true)]
async fn the_server_enforces_the_deadline_by_itself() {
    let (service, alive) = never();
    let mut peer = peer(service.server(), &[]).await;
    let started = tokio::time::Instant::now();
    peer.send(&headers(1, &request_with(PING, &[("grpc-timeout", "3S")]), false)).await;
    peer.send(&data(1, &message(b""), true)).await;
    let answer = peer.until(|frame| frame.stream == 1).await;
    assert_eq!(started.elapsed().as_secs(), 3);
    // The trailers are a literal "grpc-status: 4", since they are the first.
    assert!(answer.ends_stream(), "{answer:?}");
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_response_stream_that_has_begun() {
    let (service, alive) = stuck();
    let mut peer = peer(service.server(), &[]).await;
    let started = tokio::time::Instant::now();
    peer.send(&headers(1, &request_with(WATCH, &[("grpc-timeout", "3S")]), false)).await;
    peer.send(&data(1, &message(b""), true)).await;
    peer.until(|frame| frame.kind == kind::DATA).await;
    let trailers = peer.until(|frame| frame.kind == kind::HEADERS).await;
    assert_eq!(started.elapsed().as_secs(), 3);
    assert!(trailers.ends_stream());
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

/// The stream never ends, but the client gives it no window, so the server does not poll it.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_response_stream_that_waits_for_a_window() {
    let (service, alive) = endless();
    let mut peer = peer(service.server(), &[]).await;
    let started = tokio::time::Instant::now();
    peer.send(&headers(1, &request_with(WATCH, &[("grpc-timeout", "3S")]), false)).await;
    peer.send(&data(1, &message(b""), true)).await;
    let end = peer.until(|frame| frame.kind == kind::RST_STREAM).await;
    assert_eq!((end.stream, end.code()), (1, code::CANCEL));
    assert_eq!(started.elapsed().as_secs(), 3);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

/// The stream never ends, and the client reads it and has no deadline of its own.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_response_stream_that_always_has_more() {
    let (service, alive) = endless();
    let mut peer = peer(service.server(), &[]).await;
    peer.send(&headers(1, &request_with(WATCH, &[("grpc-timeout", "3S")]), false)).await;
    peer.send(&data(1, &message(b""), true)).await;
    // The client reads a full window, lets time pass, and then gives more window.
    peer.until(|frame| frame.kind == kind::DATA).await;
    tokio::time::advance(Duration::from_secs(4)).await;
    peer.send(&[window_update(0, 1 << 20), window_update(1, 1 << 20)].concat()).await;
    let end = peer.until(|frame| frame.kind == kind::RST_STREAM || frame.ends_stream()).await;
    assert_eq!(end.stream, 1);
    eventually_async("the handler is dropped", || alive.load(Ordering::SeqCst) == 0).await;
}

/// The server has no deadlines. Its messages wait to be read until after the client's deadline.
#[tokio::test(start_paused = true)]
async fn a_caller_who_reads_after_the_deadline_reads_that_it_has_passed() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    let call = tokio::spawn(async move {
        let mut request = Request::new(WatchRequest::default());
        request.set_timeout(Duration::from_secs(7));
        client.watch(request).await
    });
    let mut server = Peer::server(theirs, &[]).await;
    let head = crate::wire::block(&[(":status", "200"), ("content-type", "application/grpc")]);
    server.send(&headers(1, &head, false)).await;
    let mut stream = call.await.unwrap().unwrap().into_inner();
    for _ in 0..10 {
        server.send(&data(1, &message(&[b'\x12'; 0]), false)).await;
    }
    stream.message().await.unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(8)).await;
    server.send(&data(1, &message(b""), false)).await;
    // tonic still returns the messages that it had already read.
    let status = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.until(|frame| frame.kind == kind::RST_STREAM && frame.code() == code::CANCEL).await;
}

#[tokio::test]
async fn a_timeout_is_sent_as_grpc_writes_it() {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let noted = Arc::clone(&seen);
    let service = Scripted::default().on_ping(move |request| {
        let timeout = request.metadata().get("grpc-timeout").cloned();
        *noted.lock().unwrap() = timeout;
        async { Ok(Response::new(PingResponse::default())) }
    });
    let server = Running::start(Transport::Unix, service.server()).await;
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(5));
    PingServiceClient::new(server.channel().await).ping(request).await.unwrap();
    assert_eq!(seen.lock().unwrap().as_ref().unwrap(), "5000000u");
}

/// The client reads one message and then nothing, so that its window stays shut.
#[tokio::test(start_paused = true)]
async fn the_servers_own_deadline_of_a_stream_that_waits_for_a_window_is_told() {
    let (service, alive) = endless();
    let notes = Notes::default();
    let server = service.server().timeout(Duration::from_secs(3)).observer(notes.clone());
    let mut client = PingServiceClient::new(Channel::to(server));
    let mut stream = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let status = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("Server::timeout"), "{status:?}");
    let ended = notes.all().into_iter().find(|note| note.starts_with("ended")).unwrap();
    assert!(ended.starts_with("ended ping.v1.PingService/Watch DeadlineExceeded"), "{ended}");
}

/// A client that got half of a message would not look at the status.
#[tokio::test(start_paused = true)]
async fn the_servers_own_deadline_comes_after_a_message_that_has_begun() {
    // A large message is sent in parts.
    for (payload, window) in [(0, 3), (100 << 10, 3), (100 << 10, 90 << 10)] {
        let (service, alive) = endless_of(Bytes::from(vec![7; payload]));
        let server = service.server().timeout(Duration::from_secs(3));
        let mut peer = peer(server, &[(4, window)]).await;
        peer.send(&headers(1, &request_with(WATCH, &[]), false)).await;
        peer.send(&data(1, &message(b""), true)).await;
        let mut bytes = peer.until(|frame| frame.kind == kind::DATA).await.payload;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        peer.send(&window_update(1, 1 << 20)).await;
        peer.send(&window_update(0, 1 << 20)).await;
        let trailers = loop {
            let frame = peer.next().await.unwrap();
            match frame.kind {
                kind::DATA => bytes.extend_from_slice(&frame.payload),
                kind::HEADERS => break frame,
                _ => {}
            }
        };
        assert!(trailers.ends_stream());
        let mut rest = &bytes[..];
        while let Some((prefix, after)) = rest.split_first_chunk::<5>() {
            let [_, length @ ..] = *prefix;
            rest = after.get(u32::from_be_bytes(length) as usize..).expect("a whole message");
        }
        assert!(rest.is_empty(), "half a message of {payload}: {} bytes", rest.len());
    }
}

#[tokio::test]
async fn a_handler_that_is_ready_at_once_needs_no_time_whatever_stands_before_it() {
    let server = || Scripted::default().server().timeout(Duration::ZERO);
    for server in [
        server(),
        server().observer(Notes::default()),
        server().layer(tower::layer::util::Identity::new()),
        server().concurrency_limit(1),
    ] {
        let mut client = PingServiceClient::new(Channel::to(server));
        client.ping(PingRequest::ping()).await.unwrap();
        let stream = client.watch(WatchRequest { count: 0, ..WatchRequest::default() }).await;
        let mut stream = stream.unwrap().into_inner();
        let status = loop {
            if let Err(status) = stream.message().await {
                break status;
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
}

/// A handler that is ready at once answers even with a deadline of zero.
#[tokio::test]
async fn a_handler_that_is_ready_at_once_needs_no_time() {
    let server = Running::ping(Transport::Unix).await;
    let stream = tokio::net::UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    let mut peer = Peer::client(stream, &[]).await;
    peer.send(&headers(1, &request_with(PING, &[("grpc-timeout", "0n")]), false)).await;
    peer.send(&data(1, &message(b""), true)).await;
    peer.until(|frame| frame.stream == 1 && frame.ends_stream()).await;
}

#[tokio::test]
async fn dropping_a_call_sends_cancel() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let channel = Channel::from_stream(ours);
    let call = tokio::spawn(async move {
        let status: Result<_, Status> =
            PingServiceClient::new(channel).ping(PingRequest::ping()).await;
        status
    });
    let mut server = Peer::server(theirs, &[]).await;
    server.sync().await;
    call.abort();
    let reset = server.until(|frame| frame.kind == kind::RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (1, code::CANCEL));
}
