//! The options of a server, each on both transports.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use samehost::ping::{
    ConverseRequest, Ping, PingRequest, PingResponse, PingServiceClient, PingServiceServer,
    WatchRequest,
};
use samehost::{
    Address, Channel, ChannelState, Listener, PeerPolicy, RequestBody, ServeErrorKind, Server,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::{Code, Response, Status};

use crate::support::{Running, Scripted, Transport, names_in, on_both_transports, ping_server};
use crate::wire::{PREFACE, Peer, code, kind, settings};

/// Makes a test of each function for each transport, with a clock that advances by itself while all
/// tasks wait.
macro_rules! on_both_transports_with_a_paused_clock {
    ($($name:ident),+ $(,)?) => {
        mod unix_paused {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::$name($crate::support::Transport::Unix).await;
                }
            )+
        }
        mod tcp_paused {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::$name($crate::support::Transport::Tcp).await;
                }
            )+
        }
    };
}

on_both_transports_with_a_paused_clock!(
    a_client_may_take_long_to_speak_until_permits_are_scarce,
    the_handshake_timeout_can_be_set,
    a_time_without_end_is_no_limit,
    an_idle_timeout_of_zero_is_none,
    a_maximum_age_of_zero_is_none,
    an_old_connection_ends_without_haste,
    an_old_connection_ends_within_its_grace,
    a_server_that_stops_does_not_wait_for_an_old_connection,
    a_limit_of_no_calls_admits_one,
    a_call_may_take_as_long_as_the_server_says,
    a_deadline_before_the_servers_holds,
    an_old_connection_is_left_for_a_new_one,
    calls_on_an_old_connection_have_a_grace,
    a_server_ends_when_it_is_idle,
);

on_both_transports!(
    calls_beyond_the_limit_wait_for_their_turn,
    calls_beyond_the_limit_are_shed,
    what_on_connect_gives_is_on_every_request,
    a_fallback_can_be_a_proxy,
    a_fallback_can_be_a_router_of_http_requests,
    a_failure_of_a_request_that_is_not_grpc_is_one_of_http,
    a_request_that_is_not_grpc_is_shed_by_an_http_status,
    an_optional_service_may_be_missing,
    given_connections_have_every_limit_and_the_drain,
);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens a connection whose frames the test writes.
async fn connect(address: &Address) -> Peer<Box<dyn Io>> {
    Peer::new(match address.as_path() {
        Some(path) => Box::new(UnixStream::connect(path).await.unwrap()) as Box<dyn Io>,
        None => Box::new(TcpStream::connect(address.to_string()).await.unwrap()),
    })
}

async fn a_client_may_take_long_to_speak_until_permits_are_scarce(transport: Transport) {
    let server = Running::start(transport, ping_server().max_connections(2)).await;
    let mut first = connect(&server.address).await;
    sleep(Duration::from_secs(50)).await;
    first.send(&[PREFACE, &settings(&[])].concat()).await;
    first.shake().await;

    let connected = Instant::now();
    let mut second = connect(&server.address).await;
    assert_eq!(second.until_go_away().await, code::SETTINGS_TIMEOUT);
    assert_eq!(connected.elapsed().as_secs(), 5);

    drop(first);
    sleep(Duration::from_secs(1)).await;
    let connected = Instant::now();
    let mut third = connect(&server.address).await;
    assert_eq!(third.until_go_away().await, code::SETTINGS_TIMEOUT);
    assert_eq!(connected.elapsed().as_secs(), 60, "the first permit is free again");
}

async fn the_handshake_timeout_can_be_set(transport: Transport) {
    for seconds in [3, 0] {
        let server = ping_server().handshake_timeout(Duration::from_secs(seconds));
        let server = Running::start(transport, server).await;
        let connected = Instant::now();
        let mut peer = connect(&server.address).await;
        assert_eq!(peer.until_go_away().await, code::SETTINGS_TIMEOUT);
        assert_eq!(connected.elapsed().as_secs(), seconds);
    }
}

async fn a_time_without_end_is_no_limit(transport: Transport) {
    let server = ping_server()
        .handshake_timeout(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .keep_alive_interval(Duration::MAX)
        .keep_alive_timeout(Duration::MAX)
        .timeout(Duration::MAX)
        .max_connection_age(Duration::MAX)
        .max_connection_age_grace(Duration::MAX)
        .drain_timeout(Duration::MAX);
    let server = Running::start(transport, server).await;
    let channel = Channel::builder(&server.address)
        .connect_timeout(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .keep_alive_interval(Duration::MAX)
        .keep_alive_timeout(Duration::MAX)
        .timeout(Duration::MAX);
    let mut client = PingServiceClient::new(channel.connect().await.unwrap());
    client.ping(PingRequest::ping()).await.unwrap();
    server.stop().await;
}

async fn an_idle_timeout_of_zero_is_none(transport: Transport) {
    let mut server = ping_server().idle_timeout(Duration::ZERO);
    let stats = server.stats();
    let server = Running::start(transport, server).await;
    let channel = Channel::builder(&server.address).idle_timeout(Duration::ZERO);
    let mut client = PingServiceClient::new(channel.connect().await.unwrap());
    for _ in 0..3 {
        client.ping(PingRequest::ping()).await.unwrap();
        sleep(Duration::from_secs(3_600)).await;
    }
    assert_eq!(stats.snapshot().connections(), 1);
    server.stop().await;
}

async fn a_maximum_age_of_zero_is_none(transport: Transport) {
    let mut server = ping_server().max_connection_age(Duration::ZERO);
    let stats = server.stats();
    let server = Running::start(transport, server).await;
    let channel = server.channel().await;
    let mut client = PingServiceClient::new(channel.clone());
    let first = client.ping(PingRequest::ping()).await.unwrap();
    assert_eq!(first.into_inner().message, "pong");
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(channel.state(), ChannelState::Ready);
    assert_eq!(stats.snapshot().connections(), 1);
}

async fn a_limit_of_no_calls_admits_one(transport: Transport) {
    for server in [ping_server().concurrency_limit(0), ping_server().max_concurrent_streams(0)] {
        let server = Running::start(transport, server).await;
        let mut client = PingServiceClient::new(server.channel().await);
        let mut request = tonic::Request::new(PingRequest::ping());
        request.set_timeout(Duration::from_secs(5));
        client.ping(request).await.unwrap();
    }
}

/// Returns a server whose method never answers.
fn silent_server() -> Server {
    Scripted::default().on_ping(|_| std::future::pending()).server()
}

async fn a_call_may_take_as_long_as_the_server_says(transport: Transport) {
    let server = silent_server().timeout(Duration::from_millis(2_500));
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let started = Instant::now();
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(
        status.message(),
        "/ping.v1.PingService/Ping: its deadline of 2.5s (Server::timeout) has passed at the server"
    );
    assert_eq!(started.elapsed().as_millis() / 100, 25);

    // The time of the response's body counts, too.
    let interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let watch = WatchRequest { count: 0, interval, payload: Bytes::new() };
    let mut pongs = client.watch(watch).await.unwrap().into_inner();
    let mut received = 0;
    let status = loop {
        match pongs.message().await {
            Ok(pong) => received += pong.map(|_| 1).expect("it has no end"),
            Err(status) => break status,
        }
    };
    assert_eq!((received, status.code()), (3, Code::DeadlineExceeded), "{status:?}");
}

async fn a_deadline_before_the_servers_holds(transport: Transport) {
    let server = silent_server().timeout(Duration::from_secs(100));
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let started = Instant::now();
    let mut request = tonic::Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(1));
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(started.elapsed().as_secs(), 1);
}

async fn an_old_connection_is_left_for_a_new_one(transport: Transport) {
    let server = ping_server().max_connection_age(Duration::from_secs(10));
    let server = Running::start(transport, server).await;
    let interval = Some(prost_types::Duration { seconds: 7, nanos: 0 });
    let watch = WatchRequest { count: 5, interval, payload: Bytes::new() };
    let mut client = PingServiceClient::new(server.channel().await);
    let mut pongs = client.watch(watch).await.unwrap().into_inner();

    let mut peer = connect(&server.address).await;
    peer.send(&[PREFACE, &settings(&[])].concat()).await;
    peer.shake().await;
    let started = Instant::now();
    let go_away = peer.until(|frame| frame.kind == kind::GOAWAY).await;
    assert_eq!(go_away.code(), code::NO_ERROR);
    assert!((9..=11).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());

    // The call in flight goes on for half a minute, and new calls use another connection.
    for _ in 0..5 {
        assert!(pongs.message().await.unwrap().is_some());
        client.ping(PingRequest::ping()).await.unwrap();
    }
    assert!(pongs.message().await.unwrap().is_none());
}

/// Returns a server, and a client that was told just now that its connection is old. It does not answer the
/// PING that asks whether it has seen that.
async fn old_connection(transport: Transport, server: Server) -> (Running, Peer<Box<dyn Io>>) {
    let server = server.max_connection_age(Duration::from_secs(10));
    let server = Running::start(transport, server).await;
    let mut peer = connect(&server.address).await;
    peer.send(&[PREFACE, &settings(&[])].concat()).await;
    peer.shake().await;
    assert_eq!(peer.until(|frame| frame.kind == kind::GOAWAY).await.code(), code::NO_ERROR);
    (server, peer)
}

async fn last_stream_is_named_after(peer: &mut Peer<Box<dyn Io>>) -> u64 {
    let began = Instant::now();
    peer.until(|frame| frame.kind == kind::GOAWAY).await;
    began.elapsed().as_secs()
}

/// A client may be about to send a request, so it has time to see that an old connection ends.
async fn an_old_connection_ends_without_haste(transport: Transport) {
    let (_server, mut peer) = old_connection(transport, ping_server()).await;
    assert_eq!(last_stream_is_named_after(&mut peer).await, 5);
}

async fn an_old_connection_ends_within_its_grace(transport: Transport) {
    let server = ping_server().max_connection_age_grace(Duration::from_secs(2));
    let (_server, mut peer) = old_connection(transport, server).await;
    assert_eq!(last_stream_is_named_after(&mut peer).await, 0);
}

async fn a_server_that_stops_does_not_wait_for_an_old_connection(transport: Transport) {
    let (server, mut peer) = old_connection(transport, ping_server()).await;
    sleep(Duration::from_secs(1)).await;
    let (serving, _directory) = server.signal();
    assert_eq!(last_stream_is_named_after(&mut peer).await, 0);
    serving.await.unwrap();
}

async fn calls_on_an_old_connection_have_a_grace(transport: Transport) {
    let server = silent_server()
        .max_connection_age(Duration::from_secs(10))
        .max_connection_age_grace(Duration::from_secs(5));
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let started = Instant::now();
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!((14..=16).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

async fn a_server_ends_when_it_is_idle(transport: Transport) {
    let address: Address = "127.0.0.1:0".parse().unwrap();
    let directory = crate::support::directory();
    let address = match transport {
        Transport::Unix => crate::support::socket_in(directory.path()),
        Transport::Tcp => address,
    };
    let listener = Listener::bind(&address).await.unwrap();
    let address = listener.local_addr().clone();
    let started = Instant::now();
    let idle = Duration::from_secs(60);
    let server = ping_server().serve_until_idle(listener, idle, std::future::pending());
    let serving = tokio::spawn(server);
    sleep(Duration::from_secs(50)).await;
    let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    client.ping(PingRequest::ping()).await.unwrap();
    drop(client);
    sleep(Duration::from_secs(50)).await;
    // The last connection has no further call.
    let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    client.ping(PingRequest::ping()).await.unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(started.elapsed().as_secs(), 50 + 50 + 60 + 60);
    if matches!(transport, Transport::Unix) {
        assert!(!names_in(directory.path()).contains(&"ping.sock".to_owned()));
    }
}

/// Returns a server whose method notifies when it has begun, and answers when it is notified.
fn held_server() -> (Server, Arc<Notify>, Arc<Notify>) {
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes) = (Arc::clone(&began), Arc::clone(&go));
    let service = Scripted::default().on_ping(move |_| {
        let (began, go) = (Arc::clone(&begins), Arc::clone(&goes));
        async move {
            began.notify_one();
            go.notified().await;
            Ok(Response::new(PingResponse::default()))
        }
    });
    (service.server(), began, go)
}

async fn calls_beyond_the_limit_wait_for_their_turn(transport: Transport) {
    let (server, began, go) = held_server();
    let server = Running::start(transport, server.concurrency_limit(1)).await;
    // Each call has its own connection, since the limit is for the whole server.
    let call = |channel: Channel| {
        let mut client = PingServiceClient::new(channel);
        tokio::spawn(async move { client.ping(PingRequest::ping()).await })
    };
    let first = call(server.channel().await);
    began.notified().await;
    let second = call(server.channel().await);
    // A call waits no longer than its deadline.
    let mut third = PingServiceClient::new(server.channel().await);
    let mut request = tonic::Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_millis(50));
    let status = third.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    go.notify_one();
    first.await.unwrap().unwrap();
    began.notified().await;
    go.notify_one();
    second.await.unwrap().unwrap();
}

async fn calls_beyond_the_limit_are_shed(transport: Transport) {
    let (server, began, go) = held_server();
    let server = server.concurrency_limit(1).load_shed(true);
    let server = Running::start(transport, server).await;
    let mut first = PingServiceClient::new(server.channel().await);
    let mut second = PingServiceClient::new(server.channel().await);
    let first = tokio::spawn(async move { first.ping(PingRequest::ping()).await });
    began.notified().await;
    let status = second.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let text = status.message();
    assert!(text.starts_with("the server runs 1 calls, and no more at a time"), "{text}");
    assert!(text.ends_with("raise Server::concurrency_limit"), "{text}");
    go.notify_one();
    first.await.unwrap().unwrap();

    // A call runs until its response has been read.
    let mut pongs = second.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut third = PingServiceClient::new(server.channel().await);
    let status = third.watch(WatchRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    pongs.message().await.unwrap();
    drop(pongs);
    go.notify_one();
    eventually(async || third.ping(PingRequest::ping()).await.is_ok()).await;
}

/// Waits until something succeeds.
async fn eventually(mut succeeds: impl AsyncFnMut() -> bool) {
    let started = std::time::Instant::now();
    while !succeeds().await {
        assert!(started.elapsed() < Duration::from_secs(60), "not within 60 s");
        sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Clone)]
struct Number(usize);

async fn what_on_connect_gives_is_on_every_request(transport: Transport) {
    let connections = Arc::new(AtomicUsize::new(0));
    let service = Scripted::default().on_ping(|request: tonic::Request<PingRequest>| async move {
        let number = request.extensions().get::<Number>().map(|number| number.0 as u64);
        let sequence = number.ok_or_else(|| Status::internal("no extension"))?;
        Ok(Response::new(PingResponse { sequence, ..PingResponse::default() }))
    });
    let server = service.server().on_connect(move |peer| {
        assert_eq!(peer.identity().is_some(), matches!(transport, Transport::Unix));
        let number = connections.fetch_add(1, Ordering::SeqCst);
        assert_ne!(number, 2, "the third panics");
        let mut extensions = http::Extensions::new();
        extensions.insert(Number(number));
        extensions
    });
    let server = Running::start(transport, server).await;
    for number in [0, 1] {
        let mut client = PingServiceClient::new(server.channel().await);
        for _ in 0..3 {
            let response = client.ping(PingRequest::ping()).await.unwrap().into_inner();
            assert_eq!(response.sequence, number);
        }
    }
    // A panic only ends its own connection.
    assert_eq!(connect(&server.address).await.next().await, None);
    PingServiceClient::new(server.channel().await).ping(PingRequest::ping()).await.unwrap();
}

/// Returns a server that forwards every call.
fn proxy(to: Channel) -> Server {
    Server::new().fallback(tower::service_fn(move |request: Request<RequestBody>| {
        tower::Service::call(&mut to.clone(), request.map(Body::new))
    }))
}

async fn a_fallback_can_be_a_proxy(transport: Transport) {
    let behind = Running::ping(Transport::Unix).await;
    let front = Running::start(transport, proxy(behind.channel().await)).await;
    let mut client = PingServiceClient::new(front.channel().await);
    let pong = client.ping(PingRequest::ping()).await.unwrap().into_inner();
    assert_eq!(pong.message, "pong");
    let status = client.ping(PingRequest { message: "?".into(), ..PingRequest::default() }).await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);

    // Messages are forwarded one by one in both directions.
    let (pings, sent) = mpsc::unbounded_channel();
    let sent = UnboundedReceiverStream::new(sent);
    let mut pongs = client.converse(sent).await.unwrap().into_inner();
    for _ in 0..3 {
        pings.send(ConverseRequest { message: "ping".into(), ..Default::default() }).unwrap();
        assert_eq!(pongs.message().await.unwrap().unwrap().message, "pong");
    }
    drop(pings);
    assert!(pongs.message().await.unwrap().is_none());
    behind.stop().await;
}

#[tokio::test]
async fn what_panics_in_place_of_a_connection_is_told() {
    let (_ours, theirs) = tokio::io::duplex(1);
    let server = ping_server().on_connect(|_| panic!("as asked for"));
    let error = server.serve_connection(theirs).await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Connection);
    assert_eq!(error.to_string(), "Server::on_connect panicked");

    let incoming =
        tokio_stream::once(()).map(|()| -> io::Result<DuplexStream> { panic!("the stream's own") });
    let serving = tokio::spawn(ping_server().serve_incoming(incoming, std::future::pending()));
    let panic = serving.await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the stream's own"));
}

async fn a_fallback_can_be_a_router_of_http_requests(transport: Transport) {
    let router = axum::Router::new().route("/healthz", axum::routing::get(async || "well"));
    let server = ping_server().fallback(router.clone()).fallback_takes_http(true);
    let server = Running::start(transport, server).await;
    assert_eq!(get(&server.address, "/healthz").await, (StatusCode::OK, "well".into()));
    assert_eq!(get(&server.address, "/other").await.0, StatusCode::NOT_FOUND);
    // The server's own service does not go to the router.
    PingServiceClient::new(server.channel().await).ping(PingRequest::ping()).await.unwrap();

    let server = Running::start(transport, ping_server().fallback(router)).await;
    assert_eq!(get(&server.address, "/healthz").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

async fn a_failure_of_a_request_that_is_not_grpc_is_one_of_http(transport: Transport) {
    let fallback = tower::service_fn(|request: Request<RequestBody>| {
        let path = request.uri().path().to_owned();
        assert_ne!(path, "/panic-at-once", "as asked for");
        async move {
            let status = match path.as_str() {
                "/panic" => panic!("as asked for"),
                "/late-panic" => {
                    tokio::task::yield_now().await;
                    panic!("as asked for")
                }
                "/error" => return Err(Status::internal("as asked for").into()),
                "/overload" => return Err(tower::load_shed::error::Overloaded::new().into()),
                _ => Status::internal("as asked for"),
            };
            let pieces = [Ok(Frame::data(Bytes::from("a part"))), Err(status)];
            let pieces = tokio_stream::iter(pieces).map(move |piece| {
                assert!(piece.is_ok() || path != "/body-panic", "as asked for");
                piece
            });
            Ok::<_, tower::BoxError>(http::Response::new(StreamBody::new(pieces)))
        }
    });
    let server = ping_server().fallback(fallback).fallback_takes_http(true);
    let server = Running::start(transport, server).await;
    for (path, status) in [
        ("/panic-at-once", StatusCode::INTERNAL_SERVER_ERROR),
        ("/panic", StatusCode::INTERNAL_SERVER_ERROR),
        ("/late-panic", StatusCode::INTERNAL_SERVER_ERROR),
        ("/error", StatusCode::INTERNAL_SERVER_ERROR),
        ("/overload", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        assert_eq!(get(&server.address, path).await, (status, Bytes::new()), "{path}");
    }
    // A client knows that the rest of such a body is missing.
    for path in ["/body-error", "/body-panic"] {
        assert!(try_get(&server.address, path).await.is_err(), "{path}");
    }
}

async fn a_request_that_is_not_grpc_is_shed_by_an_http_status(transport: Transport) {
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes) = (Arc::clone(&began), Arc::clone(&go));
    let router = axum::routing::get(async move || {
        begins.notify_one();
        goes.notified().await;
    });
    let router = axum::Router::new().route("/healthz", router);
    let server = ping_server().fallback(router).fallback_takes_http(true);
    let server = Running::start(transport, server.concurrency_limit(1).load_shed(true)).await;
    let address = server.address.clone();
    let first = tokio::spawn(async move { get(&address, "/healthz").await });
    began.notified().await;
    let refused = get(&server.address, "/healthz").await;
    assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()));
    go.notify_one();
    assert_eq!(first.await.unwrap().0, StatusCode::OK);
}

/// Returns the response to a request that is not gRPC.
async fn get(address: &Address, path: &str) -> (StatusCode, Bytes) {
    try_get(address, path).await.unwrap()
}

/// Does the same, and returns an error if the response is not complete.
async fn try_get(address: &Address, path: &str) -> hyper::Result<(StatusCode, Bytes)> {
    let io = TokioIo::new(connect(address).await.io);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://localhost{path}"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

async fn an_optional_service_may_be_missing(transport: Transport) {
    for there in [true, false] {
        let service = there.then(|| PingServiceServer::new(Ping::default()));
        let server = Server::new().add_optional_service(service);
        let server = Running::start(transport, server).await;
        let mut client = PingServiceClient::new(server.channel().await);
        let called = client.ping(PingRequest::ping()).await;
        assert_eq!(called.is_ok(), there);
    }
}

/// The test accepts these connections itself.
async fn given_connections_have_every_limit_and_the_drain(transport: Transport) {
    let directory = crate::support::directory();
    let address = match transport {
        Transport::Unix => crate::support::socket_in(directory.path()),
        Transport::Tcp => "127.0.0.1:0".parse().unwrap(),
    };
    let listener = Listener::bind(&address).await.unwrap();
    let address = listener.local_addr().clone();
    let (accepted, incoming) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // An error does not end the server.
        accepted.send(Err(io::Error::other("a failure"))).unwrap();
        while let Ok(conn) = listener.accept().await {
            if accepted.send(Ok(conn)).is_err() {
                break;
            }
        }
    });
    let (server, began, go) = held_server();
    let (stop, stopped) = oneshot::channel::<()>();
    let policy = matches!(transport, Transport::Unix).then(PeerPolicy::same_user);
    let mut server = server.max_connections(1);
    if let Some(policy) = policy {
        // These connections know their peers.
        server = server.peer_policy(policy);
    }
    let incoming = UnboundedReceiverStream::new(incoming);
    let serving = tokio::spawn(server.serve_incoming(incoming, async { drop(stopped.await) }));
    let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    let call = tokio::spawn(async move { client.ping(PingRequest::ping()).await });
    began.notified().await;
    let mut other = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    let status = other.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    stop.send(()).unwrap();
    go.notify_one();
    call.await.unwrap().unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn given_connections_without_a_peer_are_refused_where_there_is_a_policy() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let server = ping_server().peer_policy(PeerPolicy::anyone());
    let incoming = tokio_stream::iter([Ok::<_, io::Error>(theirs)]);
    let serving = tokio::spawn(server.serve_incoming(incoming, std::future::pending()));
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_of_connections_that_ends_is_no_shutdown() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let incoming = tokio_stream::once(theirs).map(Ok::<_, io::Error>);
    let serving = tokio::spawn(ping_server().serve_incoming(incoming, std::future::pending()));
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    for _ in 0..3 {
        client.ping(PingRequest::ping()).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!serving.is_finished());
    drop(client);
    serving.await.unwrap().unwrap();
}
