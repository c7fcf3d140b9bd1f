//! Descriptors that are sent with calls.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use samehost::ping::{
    CollectRequest, CollectResponse, ConverseRequest, ConverseResponse, PingRequest, PingResponse,
    PingService, PingServiceClient, PingServiceServer, WatchRequest, WatchResponse,
};
use samehost::{Channel, Descriptors, SealedMemory, SealedMemoryErrorKind, Server};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::support::{Running, Transport, directory, socket_in};
use crate::wire::{Peer, data, go_away, headers, kind, message, request};

/// A service that returns the descriptors that it gets, in any kind of call. For a "ping" message
/// of "keep" it leaves them in the request's extensions, and for "wait" it never answers.
struct Returns;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Returns a response with the descriptors of the request. If its metadata has "open", it returns one
/// that it opens.
fn returning<T, M>(request: &mut Request<T>, message: M) -> Response<M> {
    let mut response = Response::new(message);
    if let Some(descriptors) = request.extensions_mut().remove::<Descriptors>() {
        response.extensions_mut().insert(Descriptors::from(descriptors.take()));
    }
    if request.metadata().contains_key("open") {
        let file = File::open("/dev/null").unwrap();
        response.extensions_mut().insert(Descriptors::from([file]));
    }
    response
}

#[tonic::async_trait]
impl PingService for Returns {
    async fn ping(
        &self,
        mut request: Request<PingRequest>,
    ) -> Result<Response<PingResponse>, Status> {
        match &*request.get_ref().message {
            "keep" => Ok(Response::new(PingResponse::default())),
            "wait" => std::future::pending().await,
            // The very list that came, of which nothing was taken.
            "list" => {
                let list = request.extensions_mut().remove::<Descriptors>().unwrap();
                let mut response = Response::new(PingResponse::default());
                response.extensions_mut().insert(list);
                Ok(response)
            }
            "open" => {
                let mut response = Response::new(PingResponse::default());
                let file = File::open("/dev/null")?;
                response.extensions_mut().insert(Descriptors::from([file]));
                Ok(response)
            }
            _ => {
                let list = request.extensions().get::<Descriptors>();
                let sequence = list.map_or(0, Descriptors::len) as u64;
                Ok(returning(&mut request, PingResponse { sequence, ..PingResponse::default() }))
            }
        }
    }

    type ConverseStream = Replies<ConverseResponse>;

    async fn converse(
        &self,
        mut request: Request<Streaming<ConverseRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let mut response = returning(&mut request, ());
        // The response is over when the request is.
        let rest = request.into_inner().filter_map(|_| None);
        let replies = tokio_stream::once(Ok(ConverseResponse::default())).chain(rest);
        let replies: Self::ConverseStream = Box::pin(replies);
        let extensions = std::mem::take(response.extensions_mut());
        Ok(Response::from_parts(MetadataMap::new(), replies, extensions))
    }

    type WatchStream = Replies<WatchResponse>;

    async fn watch(
        &self,
        mut request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let replies = Box::pin(tokio_stream::once(Ok(WatchResponse::default())));
        Ok(returning(&mut request, replies))
    }

    async fn collect(
        &self,
        mut request: Request<Streaming<CollectRequest>>,
    ) -> Result<Response<CollectResponse>, Status> {
        while request.get_mut().message().await?.is_some() {}
        Ok(returning(&mut request, CollectResponse::default()))
    }
}

fn service() -> PingServiceServer<Returns> {
    PingServiceServer::new(Returns)
}

async fn started(transport: Transport, max_per_call: u8) -> Running {
    Running::start(transport, Server::new().descriptors(max_per_call).add_service(service())).await
}

async fn client(server: &Running, max_per_call: u8) -> PingServiceClient<Channel> {
    let channel = Channel::builder(&server.address).descriptors(max_per_call).connect().await;
    PingServiceClient::new(channel.unwrap())
}

/// Returns a request with one end of a socket pair, and the other end.
fn carrying<T>(message: T) -> (Request<T>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut request = Request::new(message);
    request.extensions_mut().insert(Descriptors::from([theirs]));
    (request, ours)
}

/// Checks that the descriptor of a response is the peer of `ours`.
fn check<T>(response: &mut Response<T>, mut ours: UnixStream) {
    let list = response.extensions_mut().remove::<Descriptors>().expect("descriptors");
    let mut list = list.take();
    let returned = list.pop().expect("one descriptor");
    assert!(list.is_empty());
    let flags = rustix::io::fcntl_getfd(&returned).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    UnixStream::from(returned).write_all(b"mine").unwrap();
    let mut received = [0; 4];
    ours.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"mine");
    closed(ours);
}

/// Checks that no process and no call has the peer of `ours` any more.
fn closed(mut ours: UnixStream) {
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
}

/// Runs [`closed`], which blocks, beside the server and the client.
async fn is_closed(ours: UnixStream) {
    tokio::task::spawn_blocking(|| closed(ours)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_go_with_the_head_of_each_kind_of_call_and_come_back_with_a_response() {
    let server = started(Transport::Unix, 1).await;
    let mut client = client(&server, 1).await;

    let (request, ours) = carrying(PingRequest::default());
    let mut response = client.ping(request).await.unwrap();
    check(&mut response, ours);

    let (request, ours) = carrying(tokio_stream::iter([ConverseRequest::default()]));
    let mut response = client.converse(request).await.unwrap();
    check(&mut response, ours);
    assert!(response.into_inner().next().await.unwrap().is_ok());

    let (request, ours) = carrying(WatchRequest::default());
    let mut response = client.watch(request).await.unwrap();
    check(&mut response, ours);

    let (request, ours) = carrying(tokio_stream::iter([CollectRequest::default()]));
    let mut response = client.collect(request).await.unwrap();
    check(&mut response, ours);

    // A call without descriptors gets none.
    let response = client.ping(PingRequest::default()).await.unwrap();
    assert!(response.extensions().get::<Descriptors>().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_calls_at_once_has_its_own() {
    let server = started(Transport::Unix, 16).await;
    let client = client(&server, 16).await;
    let calls = (0..64_usize).map(|call| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let pairs: Vec<_> = (0..call % 17).map(|_| UnixStream::pair().unwrap()).collect();
            let (ours, theirs): (Vec<_>, Vec<OwnedFd>) =
                pairs.into_iter().map(|(ours, theirs)| (ours, theirs.into())).unzip();
            let inodes: Vec<_> = theirs.iter().map(inode).collect();
            let mut request = Request::new(PingRequest::default());
            request.extensions_mut().insert(Descriptors::from(theirs));
            let response = client.ping(request).await.unwrap();
            assert_eq!(response.get_ref().sequence, inodes.len() as u64);
            let list = response.extensions().get::<Descriptors>().cloned().unwrap_or_default();
            assert_eq!(list.take().iter().map(inode).collect::<Vec<_>>(), inodes);
            drop(response);
            for ours in ours {
                is_closed(ours).await;
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

fn inode(descriptor: impl AsFd) -> u64 {
    rustix::fs::fstat(descriptor).unwrap().st_ino
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_does_not_take_is_closed_when_its_call_ends() {
    let server = started(Transport::Unix, 1).await;
    let mut client = client(&server, 1).await;
    let (request, ours) = carrying(PingRequest { message: "keep".into(), ..Default::default() });
    client.ping(request).await.unwrap();
    is_closed(ours).await;

    let (request, ours) = carrying(PingRequest { message: "wait".into(), ..Default::default() });
    let call = tokio::time::timeout(Duration::from_millis(200), client.ping(request));
    assert!(call.await.is_err(), "cancelled");
    is_closed(ours).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_answer_with_the_list_that_came() {
    let server = started(Transport::Unix, 1).await;
    let mut client = client(&server, 1).await;
    let (request, ours) = carrying(PingRequest { message: "list".into(), ..Default::default() });
    let mut response = client.ping(request).await.unwrap();
    check(&mut response, ours);
}

/// The client says that it takes some.
#[tokio::test]
async fn a_server_that_does_not_ask_sends_none() {
    let server = started(Transport::Unix, 0).await;
    let io = tokio::net::UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    is_refused_descriptors(io).await;
    // It asks for some, but not over TCP.
    let server = started(Transport::Tcp, 1).await;
    let io = tokio::net::TcpStream::connect(server.address.to_string()).await.unwrap();
    is_refused_descriptors(io).await;
}

async fn is_refused_descriptors(io: impl AsyncRead + AsyncWrite + Unpin) {
    let mut peer = Peer::client(io, &[(0xfd00, 1)]).await;
    let head = headers(1, &request("/ping.v1.PingService/Ping"), false);
    let call = data(1, &message(b"\x0a\x04open"), true);
    peer.send(&[head, call].concat()).await;
    let answer = peer.until(|frame| frame.stream == 1).await;
    assert!(answer.kind == kind::HEADERS && answer.ends_stream(), "{answer:?}");
}

/// Answers whether the descriptors are among the extensions, and leaves them there.
#[allow(clippy::result_large_err, reason = "the type is tonic's")]
fn sees_them(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Descriptors>() {
        Some(list) if list.len() == 1 => Ok(request),
        _ => Err(Status::internal("the interceptor does not see the descriptors")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_pass_through_layers_and_interceptors_at_both_ends() {
    let layers = tower::ServiceBuilder::new()
        .map_request(|request: http::Request<tonic::body::Body>| {
            assert_eq!(request.extensions().get::<Descriptors>().map(Descriptors::len), Some(1));
            request
        })
        .map_response(|response: http::Response<tonic::body::Body>| {
            assert_eq!(response.extensions().get::<Descriptors>().map(Descriptors::len), Some(1));
            response
        });
    let server = Server::new()
        .descriptors(1)
        .layer(layers.into_inner())
        .add_service(PingServiceServer::with_interceptor(Returns, sees_them));
    let server = Running::start(Transport::Unix, server).await;
    let channel = Channel::builder(&server.address).descriptors(1).connect().await.unwrap();
    let timeouts = tower::timeout::TimeoutLayer::new(Duration::from_secs(60));
    let layered = tower::Layer::layer(&timeouts, channel.clone());
    let mut layered = PingServiceClient::with_interceptor(layered, sees_them);
    let mut intercepted = PingServiceClient::with_interceptor(channel, sees_them);

    let (request, ours) = carrying(PingRequest::default());
    check(&mut intercepted.ping(request).await.unwrap(), ours);
    let (request, ours) = carrying(PingRequest::default());
    check(&mut layered.ping(request).await.unwrap(), ours);
    let (request, ours) = carrying(WatchRequest::default());
    check(&mut layered.watch(request).await.unwrap(), ours);
    let (request, ours) = carrying(tokio_stream::iter([CollectRequest::default()]));
    check(&mut layered.collect(request).await.unwrap(), ours);
    let (request, ours) = carrying(tokio_stream::iter([ConverseRequest::default()]));
    check(&mut layered.converse(request).await.unwrap(), ours);
}

/// The code that tonic generates for a server of these two methods.
#[derive(Clone)]
struct TonicStubs;

impl tonic::server::NamedService for TonicStubs {
    const NAME: &'static str = PingServiceServer::<Returns>::NAME;
}

impl tower::Service<http::Request<samehost::RequestBody>> for TonicStubs {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<samehost::RequestBody>) -> Self::Future {
        let unary = tower::service_fn(|request: Request<PingRequest>| async move {
            Returns.ping(request).await
        });
        let stream = tower::service_fn(|request: Request<Streaming<ConverseRequest>>| async move {
            Returns.converse(request).await
        });
        Box::pin(async move {
            Ok(if request.uri().path().ends_with("/Ping") {
                let codec = tonic_prost::ProstCodec::<PingResponse, PingRequest>::default();
                tonic::server::Grpc::new(codec).unary(unary, request).await
            } else {
                let codec = tonic_prost::ProstCodec::<ConverseResponse, ConverseRequest>::default();
                tonic::server::Grpc::new(codec).streaming(stream, request).await
            })
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_travel_on_tonics_stubs_at_both_ends() {
    let server = Server::new().descriptors(1).add_service(TonicStubs);
    let server = Running::start(Transport::Unix, server).await;
    let channel = Channel::builder(&server.address).descriptors(1).connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    let path = |method| http::uri::PathAndQuery::from_static(method);

    client.ready().await.unwrap();
    let (request, ours) = carrying(PingRequest::default());
    let codec = tonic_prost::ProstCodec::<PingRequest, PingResponse>::default();
    let called = client.unary(request, path("/ping.v1.PingService/Ping"), codec);
    check(&mut called.await.unwrap(), ours);

    client.ready().await.unwrap();
    let (request, ours) = carrying(tokio_stream::iter([ConverseRequest::default()]));
    let codec = tonic_prost::ProstCodec::<ConverseRequest, ConverseResponse>::default();
    let called = client.streaming(request, path("/ping.v1.PingService/Converse"), codec);
    let mut response = called.await.unwrap();
    check(&mut response, ours);
    assert!(response.into_inner().next().await.unwrap().is_ok());
}

/// A server sends GOAWAY before it processes a call, and another is at the same address: the call
/// is sent again, with its descriptors.
#[tokio::test]
async fn a_call_that_is_sent_again_has_its_descriptors_again() {
    let directory = directory();
    let address = socket_in(directory.path());
    let listener = tokio::net::UnixListener::bind(address.as_path().unwrap()).unwrap();
    let channel = Channel::builder(&address).descriptors(1).connect_lazy();
    let (request, ours) = carrying(PingRequest::default());
    let call = tokio::spawn(async move { PingServiceClient::new(channel).ping(request).await });
    let (first, _) = listener.accept().await.unwrap();
    drop(listener);
    let mut first = Peer::server(first, &[(0xfd00, 1)]).await;
    first.until(|frame| frame.ends_stream()).await;
    std::fs::remove_file(address.as_path().unwrap()).unwrap();
    let listener = samehost::Listener::bind(&address).await.unwrap();
    let server = Server::new().descriptors(1).add_service(service());
    let serving = tokio::spawn(server.serve(listener));
    first.send(&go_away(0, 0)).await;
    let mut response = call.await.unwrap().unwrap();
    drop(first);
    tokio::task::spawn_blocking(move || check(&mut response, ours)).await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn a_server_that_takes_none_has_none_sent() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let server = started(transport, 0).await;
        let mut client = client(&server, 1).await;
        let (request, ours) = carrying(PingRequest::default());
        let status = client.ping(request).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("file descriptors"), "{status}");
        is_closed(ours).await;
        client.ping(PingRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn over_tcp_none_travel_even_where_both_ends_ask() {
    let server = started(Transport::Tcp, 1).await;
    let mut client = client(&server, 1).await;
    let (request, _ours) = carrying(PingRequest::default());
    assert_eq!(client.ping(request).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_channel_that_does_not_ask_sends_none() {
    let server = started(Transport::Unix, 1).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let (request, _ours) = carrying(PingRequest::default());
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    client.ping(PingRequest::default()).await.unwrap();
}

#[tokio::test]
async fn more_than_the_server_takes_are_refused_and_the_limit_is_named() {
    let server = started(Transport::Unix, 2).await;
    let mut client = client(&server, 9).await;
    let mut request = Request::new(PingRequest::default());
    let files = (0..3).map(|_| File::open("/dev/null").unwrap());
    request.extensions_mut().insert(files.collect::<Descriptors>());
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("with a call, 2"), "{status}");
}

#[tokio::test]
async fn a_response_with_more_than_the_client_takes_is_refused() {
    let server = started(Transport::Unix, 2).await;
    let mut client = client(&server, 1).await;
    let mut request = Request::new(PingRequest::default());
    let files = (0..2).map(|_| File::open("/dev/null").unwrap());
    request.extensions_mut().insert(files.collect::<Descriptors>());
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("the client takes 1"), "{status}");
}

#[tokio::test]
async fn a_streamed_response_that_is_refused_is_dropped_with_the_request_that_it_reads() {
    for transport in [Transport::Unix, Transport::Tcp] {
        for takes in [0, 1] {
            let server = started(transport, takes).await;
            let mut client = PingServiceClient::new(server.channel().await);
            let mut request = Request::new(tokio_stream::pending());
            request.metadata_mut().insert("open", "1".parse().unwrap());
            let status = client.converse(request).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            client.ping(PingRequest::default()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn sealed_memory_travels_and_is_read_without_a_copy() {
    let server = started(Transport::Unix, 1).await;
    let mut client = client(&server, 1).await;
    let memory = SealedMemory::copy_from(&[7; 100_000]).unwrap();
    for _ in 0..3 {
        let mut request = Request::new(PingRequest::default());
        let descriptor = memory.clone().into_fd().unwrap();
        request.extensions_mut().insert(Descriptors::from([descriptor]));
        let response = client.ping(request).await.unwrap();
        let list = response.extensions().get::<Descriptors>().unwrap().take();
        let received = SealedMemory::from_fd(list.into_iter().next().unwrap()).unwrap();
        assert_eq!(received.map(1 << 20).unwrap(), [7; 100_000][..]);
    }
}

#[tokio::test]
async fn a_message_is_decoded_from_sealed_memory_without_copying_its_bytes() {
    use prost::Message;
    let message = PingRequest { payload: vec![7; 1 << 20].into(), ..PingRequest::ping() };
    let memory = SealedMemory::copy_from(&message.encode_to_vec()).unwrap();
    let decoded: PingRequest = memory.decode(2 << 20).unwrap();
    assert_eq!(decoded, message);
    // The payload is in the mapping of the memory, which has the memory's name (proc_pid_maps(5)).
    let at = decoded.payload.as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("memfd:samehost")).any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |hex| usize::from_str_radix(hex, 16).unwrap();
        (number(from)..number(to)).contains(&at)
    });
    assert!(mapped, "the payload was copied");
    // The payload stays there after the memory's own value is dropped.
    drop(memory);
    assert_eq!(decoded.payload, message.payload);

    let memory = SealedMemory::copy_from(&[0xff; 100]).unwrap();
    let error = memory.decode::<PingRequest>(1_000).unwrap_err();
    assert_eq!(error.kind(), SealedMemoryErrorKind::NotDecodable);
    assert!(error.to_string().starts_with("the memory does not hold the message"), "{error}");
    let error = memory.decode::<PingRequest>(10).unwrap_err();
    assert_eq!(error.kind(), SealedMemoryErrorKind::TooLarge);
}

/// The client in Python follows docs/descriptors.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_python_over_raw_frames_sends_and_receives_them() {
    let client =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients/python/descriptors.py");
    let server = started(Transport::Unix, 1).await;
    let address = server.address.to_string();
    let path = address.strip_prefix("unix:").unwrap().to_owned();
    let run = |method: &'static str| {
        let mut command = Command::new("python3");
        command.arg(&client).arg(&path).arg(method);
        tokio::task::spawn_blocking(move || command.output())
    };
    let output = match run("/ping.v1.PingService/Ping").await.unwrap() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for call in [1, 3, 5] {
        assert!(said.contains(&format!("hello from the descriptor of call {call}")), "{said}");
    }
    let refused = run("/ping.v1.PingService/NoSuchMethod").await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("NoSuchMethod returned 0 descriptors"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
