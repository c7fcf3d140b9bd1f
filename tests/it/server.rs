//! Other services than Ping on a server, and how a server ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use samehost::ping::{
    FILE_DESCRIPTOR_SET, Ping, PingRequest, PingServiceClient, PingServiceServer, WatchRequest,
    WatchResponse,
};
use samehost::{Address, Channel, LayeredService, Listener, RequestBody, ServeErrorKind, Server};
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;
use tonic::body::Body;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tower::util::MapResponseLayer;

use crate::notes::Notes;
use crate::support::{
    Running, Scripted, Transport, directory, eventually_async, names_in, on_both_transports,
    ping_server, socket_in,
};

on_both_transports!(
    health_and_reflection_plug_in,
    an_interceptor_sees_the_metadata,
    a_layer_sees_the_status_of_an_error_within,
    a_layer_that_fails_to_be_ready_answers_with_its_status,
    a_call_in_flight_finishes_after_the_signal,
    a_call_that_never_ends_is_cut_off_at_the_drain_deadline,
    an_unknown_method_is_unimplemented,
    dropping_the_server_cuts_calls_off,
);

async fn health_and_reflection_plug_in(transport: Transport) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<PingServiceServer<Ping>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let server = ping_server().add_service(health).add_service(reflection);
    let server = Running::start(transport, server).await;
    let channel = server.channel().await;

    let request = HealthCheckRequest { service: "ping.v1.PingService".to_owned() };
    let reply = HealthClient::new(channel.clone()).check(request).await.unwrap();
    assert_eq!(
        reply.into_inner().status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(ServerReflectionResponse {
        message_response: Some(MessageResponse::ListServicesResponse(list)),
        ..
    }) = replies.message().await.unwrap()
    else {
        panic!("not a list of services");
    };
    assert!(list.service.iter().any(|service| service.name == "ping.v1.PingService"), "{list:?}");
}

async fn an_interceptor_sees_the_metadata(transport: Transport) {
    fn check(request: Request<()>) -> Result<Request<()>, Status> {
        match request.metadata().get("token").map(|token| token.as_bytes()) {
            Some(b"sesame") => Ok(request),
            _ => Err(Status::unauthenticated("no token")),
        }
    }
    let service = PingServiceServer::with_interceptor(Ping::default(), check);
    let server = Running::start(transport, Server::new().add_service(service)).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "no token"));
    let mut request = Request::new(PingRequest::ping());
    request.metadata_mut().insert("token", "sesame".parse().unwrap());
    client.ping(request).await.unwrap();
}

#[tokio::test]
async fn a_tower_layer_sees_every_call_the_first_added_first() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let order = Arc::clone(&order);
        tower::util::MapRequestLayer::new(move |request: http::Request<tonic::body::Body>| {
            order.lock().unwrap().push(name);
            request
        })
    };
    let directory = directory();
    let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
    let address = listener.local_addr().clone();
    let server = ping_server().layer(note("first")).layer(note("second"));
    tokio::spawn(server.serve(listener));
    let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    client.ping(PingRequest::ping()).await.unwrap();
    assert_eq!(*order.lock().unwrap(), ["first", "second"]);
}

/// Requires what layers of other crates require: an error type that implements `Error`.
fn only_with_an_error<S>(service: S) -> S
where
    S: tower::Service<http::Request<tonic::body::Body>, Error: std::error::Error>,
{
    service
}

async fn a_layer_sees_the_status_of_an_error_within(transport: Transport) {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let status_of = tower::util::MapResponseLayer::new(move |response: http::Response<_>| {
        note.lock().unwrap().push(response.headers().get("grpc-status").cloned());
        response
    });
    let overloaded = tower::layer::layer_fn(|_| {
        tower::service_fn(|_: http::Request<tonic::body::Body>| async {
            let error = tower::load_shed::error::Overloaded::new();
            Err::<http::Response<tonic::body::Body>, _>(tower::BoxError::from(error))
        })
    });
    let server = ping_server()
        .layer(tower::layer::layer_fn(only_with_an_error::<LayeredService>))
        .layer(status_of)
        .layer(overloaded);
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(*seen.lock().unwrap(), [Some(http::HeaderValue::from_static("8"))]);
}

/// A service that is never ready.
#[derive(Clone)]
struct Broken;

impl tower::Service<http::Request<tonic::body::Body>> for Broken {
    type Response = http::Response<tonic::body::Body>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Err(Status::data_loss("broken")))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        unreachable!("it is not ready")
    }
}

async fn a_layer_that_fails_to_be_ready_answers_with_its_status(transport: Transport) {
    for outer in [0, 1] {
        let mut server = ping_server();
        for _ in 0..outer {
            server = server.layer(tower::layer::util::Identity::new());
        }
        let server = server.layer(tower::layer::layer_fn(|_| Broken));
        let server = Running::start(transport, server).await;
        let mut client = PingServiceClient::new(server.channel().await);
        for _ in 0..2 {
            let status = client.ping(PingRequest::ping()).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::DataLoss, "broken"));
        }
    }
}

async fn an_unknown_method_is_unimplemented(transport: Transport) {
    let server = Running::start(transport, Server::new()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("/ping.v1.PingService/Ping"), "{}", status.message());
}

/// The Ping service with a function that runs before each call.
#[derive(Clone)]
struct Before<F>(F);

impl<F> tonic::server::NamedService for Before<F> {
    const NAME: &'static str = "ping.v1.PingService";
}

impl<F, W> tower::Service<http::Request<RequestBody>> for Before<F>
where
    F: Fn() -> W,
    W: Future<Output = ()> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> Self::Future {
        let before = self.0();
        Box::pin(async move {
            before.await;
            PingServiceServer::new(Ping::default()).into_service().call(request).await
        })
    }
}

/// Notifies when a call has started, and lets it answer when it is notified.
#[derive(Clone, Default)]
struct Slow {
    started: Arc<tokio::sync::Notify>,
    go: Arc<tokio::sync::Notify>,
}

impl Slow {
    fn server(&self) -> Server {
        let slow = self.clone();
        Server::new().add_service(Before(move || {
            let Self { started, go } = slow.clone();
            async move {
                started.notify_one();
                go.notified().await;
            }
        }))
    }
}

async fn a_call_in_flight_finishes_after_the_signal(transport: Transport) {
    let slow = Slow::default();
    let server = Running::start(transport, slow.server()).await;
    let address = server.address.clone();
    let mut client = PingServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { client.ping(PingRequest::ping()).await });
    slow.started.notified().await;

    let (serving, directory) = server.signal();
    if let Some(path) = address.as_path() {
        eventually_async("the socket file is gone", || !path.exists()).await;
        // A successor can bind before the drain has ended.
        let successor = Listener::bind(&address).await.unwrap();
        drop(successor);
        assert!(names_in(directory.path()).is_empty());
    }
    assert!(!serving.is_finished());
    slow.go.notify_one();
    assert_eq!(call.await.unwrap().unwrap().into_inner().message, "pong");
    serving.await.unwrap();
}

async fn a_call_that_never_ends_is_cut_off_at_the_drain_deadline(transport: Transport) {
    let server = ping_server().drain_timeout(Duration::from_millis(50));
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let interval = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let request = WatchRequest { count: 2, interval, payload: Default::default() };
    let mut pongs = client.watch(request).await.unwrap().into_inner();
    pongs.message().await.unwrap().unwrap();
    let address = server.address.to_string();
    let (serving, _directory) = server.signal();
    serving.await.unwrap();
    let status = pongs.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().starts_with(&address), "{status:?}");
}

/// A handler's value that takes its time to be dropped.
struct SlowlyDropped(Arc<AtomicU32>);

impl Drop for SlowlyDropped {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(50));
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handler_is_left_when_its_server_has_ended() {
    let (alive, notes) = (Arc::new(AtomicU32::new(0)), Notes::default());
    let count = Arc::clone(&alive);
    let service = Scripted::default().on_ping(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let dropped = SlowlyDropped(Arc::clone(&count));
        async move {
            let _dropped = dropped;
            std::future::pending().await
        }
    });
    let server = service.server().drain_timeout(Duration::ZERO).observer(notes.clone());
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { client.ping(PingRequest::ping()).await });
    eventually_async("the call runs", || alive.load(Ordering::SeqCst) == 1).await;
    server.stop().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert_eq!(notes.all().last().unwrap(), "drained, 1 cut off");
    call.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn the_address_of_a_dropped_server_is_free_after_a_yield() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut serving = Box::pin(ping_server().serve(Listener::bind(&address).await.unwrap()));
    tokio::select! {
        biased;
        served = &mut serving => panic!("{served:?}"),
        channel = Channel::connect(&address) => drop(channel.unwrap()),
    }
    drop(serving);
    tokio::task::yield_now().await;
    assert_eq!(names_in(directory.path()), [""; 0]);
    Listener::bind(&address).await.unwrap();
}

async fn dropping_the_server_cuts_calls_off(transport: Transport) {
    let slow = Slow::default();
    let server = Running::start(transport, slow.server()).await;
    let address = server.address.clone();
    let mut client = PingServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { client.ping(PingRequest::ping()).await });
    slow.started.notified().await;
    let (serving, _directory) = {
        let (serving, directory) = server.signal();
        serving.abort();
        (serving, directory)
    };
    assert!(serving.await.unwrap_err().is_cancelled());
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().starts_with(&address.to_string()), "{status:?}");
    if let Some(path) = address.as_path() {
        assert!(!path.exists());
    }
}

/// There are more clients than tokio's budget for one poll of a task, and they connect before the
/// runtime knows of any.
#[tokio::test]
async fn all_clients_that_wait_at_the_shutdown_are_accepted() {
    use std::io::{Read, Write};
    let server = ping_server().drain_timeout(Duration::from_secs(60));
    let server = Running::start(Transport::Unix, server).await;
    // After this call the accept loop waits.
    PingServiceClient::new(server.channel().await).ping(PingRequest::ping()).await.unwrap();

    let path = server.address.as_path().unwrap();
    let mut clients: Vec<_> = (0..300)
        .map(|_| {
            let mut client = std::os::unix::net::UnixStream::connect(path).unwrap();
            client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
            client
        })
        .collect();
    let (serving, _directory) = server.signal();
    // They read while the server drains, however long that takes, and then close.
    let read = tokio::task::spawn_blocking(move || {
        for client in &mut clients {
            let mut first_frame = [0; 9];
            client.read_exact(&mut first_frame).unwrap();
            assert_eq!(first_frame[3], 4, "SETTINGS");
        }
    });
    read.await.unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn one_server_serves_several_listeners() {
    let directory = directory();
    let unix = Listener::bind(&socket_in(directory.path())).await.unwrap();
    let tcp = Listener::bind("localhost:0").await.unwrap();
    let addresses: Vec<Address> =
        [&unix, &tcp].map(|listener| listener.local_addr().clone()).to_vec();
    tokio::spawn(ping_server().serve([unix, tcp]));
    for address in &addresses {
        let channel = Channel::connect(address).await.unwrap();
        PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_needs_a_listener() {
    let error = ping_server().serve(Vec::new()).await.unwrap_err();
    assert!(error.kind() == ServeErrorKind::NoListener, "{error}");
}

/// `main` prints a returned error with `Debug`.
#[tokio::test]
async fn two_services_of_one_name_are_an_error_at_start() {
    let twice = || ping_server().add_service(PingServiceServer::new(Ping::default()));
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    for error in [twice().serve(listener).await, twice().serve_connection(theirs).await] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ServeErrorKind::DuplicateService);
        assert!(error.to_string().contains("ping.v1.PingService"), "{error}");
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}

#[tokio::test]
async fn a_socketpair_carries_calls() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = tokio::spawn(ping_server().serve_connection(theirs));
    let channel = Channel::from_stream(ours);
    let mut client = PingServiceClient::new(channel.clone());
    for _ in 0..3 {
        client.ping(PingRequest::ping()).await.unwrap();
    }
    drop((client, channel));
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_error_of_one_connection_tells_its_reason_once() {
    use tokio::io::AsyncWriteExt;
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let broken = ping_server().serve_connection(theirs).await.unwrap_err();
    assert_eq!(broken.kind(), ServeErrorKind::Connection);
    assert_eq!(broken.to_string().matches("the connection failed").count(), 1, "{broken}");
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let full = ping_server().max_connections(0).serve_connection(theirs).await.unwrap_err();
    assert_eq!(full.to_string(), "the connection was refused: too many connections");
}

#[tokio::test]
async fn a_channel_whose_stream_has_ended_says_so() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let channel = Channel::from_stream(ours);
    drop(theirs);
    let status = PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_connection_that_speaks_no_http2_harms_no_other() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Running::ping(Transport::Unix).await;
    let mut garbage = UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // The server closes the connection, whatever it sends before.
    let _ = garbage.read_to_end(&mut rest).await;
    let mut client = PingServiceClient::new(server.channel().await);
    client.ping(PingRequest::ping()).await.unwrap();
}

#[tokio::test]
async fn a_panicking_handler_harms_no_other_call() {
    let calls = Arc::new(AtomicU32::new(0));
    let service = Before(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move { assert_ne!(call, 0, "the first call panics") }
    });
    let server = Running::start(Transport::Unix, Server::new().add_service(service)).await;
    let mut client = PingServiceClient::new(server.channel().await);
    client.ping(PingRequest::ping()).await.unwrap_err();
    client.ping(PingRequest::ping()).await.unwrap();
}

/// Panics when it is dropped.
#[derive(Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "as asked for");
    }
}

#[tokio::test]
async fn a_value_that_panics_when_it_is_dropped_ends_no_connection() {
    let opened = Arc::new(AtomicU32::new(0));
    // With a timeout of zero the server drops a handler that has not ended, in the connection's task.
    for timeout in [Duration::MAX, Duration::ZERO] {
        let opened = Arc::clone(&opened);
        let service = Scripted::default()
            .on_ping(|_| {
                let bomb = Bomb;
                async move {
                    let _bomb = bomb;
                    std::future::pending().await
                }
            })
            .on_watch(|_| {
                let bomb = Bomb;
                tokio_stream::once(Ok(WatchResponse::default())).map(move |message| {
                    let _bomb = &bomb;
                    message
                })
            });
        let with_extension = MapResponseLayer::new(|mut response: http::Response<Body>| {
            response.extensions_mut().insert(Bomb);
            response
        });
        let on_connect = move |_: &_| {
            opened.fetch_add(1, Ordering::Relaxed);
            http::Extensions::new()
        };
        let server = service.server().timeout(timeout).layer(with_extension).on_connect(on_connect);
        let server = Running::start(Transport::Unix, server).await;
        let mut client = PingServiceClient::new(server.channel().await);
        let watch = client.watch(WatchRequest::default()).await;
        if timeout.is_zero() {
            let status = client.ping(PingRequest::ping()).await.unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        } else {
            let mut messages = watch.unwrap().into_inner();
            assert!(messages.message().await.unwrap().is_some());
            assert!(messages.message().await.unwrap().is_none());
        }
    }
    assert_eq!(opened.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_client_keeps_to_the_servers_limit_and_all_its_calls_succeed() {
    let slow = Slow::default();
    let server = slow.server().max_concurrent_streams(2);
    let server = Running::start(Transport::Unix, server).await;
    let channel = server.channel().await;
    // With the first call the client learns the server's limit.
    slow.go.notify_one();
    PingServiceClient::new(channel.clone()).ping(PingRequest::ping()).await.unwrap();
    slow.started.notified().await;

    let calls: Vec<_> = (0..5)
        .map(|_| {
            let mut client = PingServiceClient::new(channel.clone());
            tokio::spawn(async move { client.ping(PingRequest::ping()).await })
        })
        .collect();
    // Each call that ends lets another start: two run at a time, and all end.
    eventually_async("all calls have ended", || {
        slow.go.notify_one();
        calls.iter().all(|call| call.is_finished())
    })
    .await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// Returns the tasks that answered four calls to a method whose handler blocks its thread.
async fn tasks_of_slow_calls() -> Vec<tokio::task::Id> {
    let tasks = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = Arc::clone(&tasks);
    let slow = tower::layer::layer_fn(move |routes: LayeredService| {
        let note = Arc::clone(&note);
        tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let (mut routes, note) = (routes.clone(), Arc::clone(&note));
            async move {
                note.lock().unwrap().push(tokio::task::id());
                std::thread::sleep(Duration::from_millis(1));
                tower::Service::call(&mut routes, request).await
            }
        })
    });
    let server = Running::start(Transport::Unix, ping_server().layer(slow)).await;
    let mut client = PingServiceClient::new(server.channel().await);
    for _ in 0..4 {
        client.ping(PingRequest::ping()).await.unwrap();
    }
    server.stop().await;
    std::mem::take(&mut *tasks.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_method_gets_tasks_of_its_own_where_other_threads_can_run_them() {
    let tasks = tasks_of_slow_calls().await;
    assert_eq!(tasks[0], tasks[1], "once may be chance");
    assert_ne!(tasks[1], tasks[2]);
    assert_ne!(tasks[2], tasks[3]);
}

#[tokio::test]
async fn a_slow_method_is_answered_in_place_where_there_is_one_thread() {
    let tasks = tasks_of_slow_calls().await;
    assert!(tasks.iter().all(|task| *task == tasks[0]));
}
