//! The blocking client, in threads without a runtime.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use samehost::blocking::Channel;
use samehost::ping::{
    BlockingPingServiceClient as Client, CollectRequest, ConverseRequest, Ping, PingRequest,
    PingResponse, PingServiceServer, WatchRequest, WatchResponse,
};
use samehost::{ConnectErrorKind, Listener, Server};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Handle, Runtime};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, GrpcMethod, Request, Response, Status};

use crate::support::{Counted, Running, Scripted, Transport, directory, eventually, socket_in};
use crate::wire::{Peer, block, code, data, frame, go_away, headers, kind, message};

/// Runs each test on each transport, in a thread without a runtime.
macro_rules! on_each_transport {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn unix() {
                super::$name(super::Transport::Unix);
            }

            #[test]
            fn tcp() {
                super::$name(super::Transport::Tcp);
            }
        }
    )+};
}

pub(crate) use on_each_transport;

on_each_transport!(
    each_kind_of_call,
    statuses_and_metadata_come_as_they_were_sent,
    large_messages_pass_the_windows,
    a_deadline_ends_a_call_that_waits,
    the_channels_timeout_is_every_calls_deadline,
    a_call_after_a_restart_connects_again,
    every_kind_of_call_finds_the_next_server,
    a_call_that_waits_fails_with_the_server,
    threads_share_one_connection,
    a_thread_that_ends_makes_calls,
    a_stream_that_is_dropped_is_cancelled,
    a_server_that_ends_a_stream_early_is_heard,
    a_stream_that_is_refused_fails_at_once,
    an_interceptor_sees_each_request_first,
    an_interceptor_knows_the_method,
    the_length_of_another_message_is_left_out,
);

/// A server, on a runtime of its own threads.
pub(crate) struct Served {
    pub(crate) runtime: Runtime,
    pub(crate) running: Running,
}

impl Served {
    /// Replaces the server by another one, at the same address.
    pub(crate) fn replace(self, server: Server) -> Self {
        let Self { runtime, running } = self;
        let address = running.address.clone();
        let running = runtime.block_on(async {
            let folder = running.stop().await;
            let next = Running::start_at(&address, server).await;
            // The socket is in it.
            std::mem::forget(folder);
            next
        });
        Self { runtime, running }
    }

    pub(crate) fn start(transport: Transport, server: Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let running = runtime.block_on(Running::start(transport, server));
        Self { runtime, running }
    }

    pub(crate) fn client(&self) -> Client {
        assert!(Handle::try_current().is_err(), "no runtime is needed");
        Client::connect(&self.running.address).unwrap()
    }
}

pub(crate) fn ping_server(transport: Transport) -> Served {
    Served::start(transport, Scripted::default().server())
}

pub(crate) fn request(message: &str) -> PingRequest {
    PingRequest { message: message.into(), ..PingRequest::default() }
}

fn each_kind_of_call(transport: Transport) {
    let served = ping_server(transport);
    let mut client = served.client();
    for _ in 0..3 {
        assert_eq!(client.ping(PingRequest::ping()).unwrap().into_inner().message, "pong");
    }

    let watch = WatchRequest { count: 3, ..WatchRequest::default() };
    let pongs: Result<Vec<WatchResponse>, Status> =
        client.watch(watch).unwrap().into_inner().collect();
    assert_eq!(pongs.unwrap().len(), 3);

    let pings = (0..1_000).map(|_| CollectRequest { message: "ping".into(), ..Default::default() });
    let collected = client.collect(Request::new(pings)).unwrap().into_inner();
    assert_eq!(collected.count, 1_000);

    let mut conversation = client.converse(()).unwrap();
    for sequence in 0..3 {
        let ping = ConverseRequest { message: "ping".into(), sequence, ..Default::default() };
        assert!(conversation.send(&ping).unwrap());
        let pong = conversation.message().unwrap().unwrap();
        assert_eq!((&*pong.message, pong.sequence), ("pong", sequence));
        // Another call while the stream is open.
        client.ping(PingRequest::ping()).unwrap();
    }
    conversation.finish();
    assert!(conversation.message().unwrap().is_none());
    assert!(conversation.message().unwrap().is_none(), "the end stays the end");
}

fn statuses_and_metadata_come_as_they_were_sent(transport: Transport) {
    let service = Scripted::default().on_ping(|request| async move {
        let token = request.metadata().get("token").cloned();
        let agent = request.metadata().get("user-agent").unwrap().to_str().unwrap().to_owned();
        assert!(agent.starts_with("grpc-rust-samehost/"), "{agent}");
        match token {
            Some(token) => {
                let mut response = Response::new(PingResponse::default());
                response.metadata_mut().insert("token", token);
                Ok(response)
            }
            None => Err(Status::unauthenticated("no token")),
        }
    });
    let served = Served::start(transport, service.server());
    let mut client = served.client();
    let status = client.ping(PingRequest::ping()).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "no token"));
    let mut with_token = Request::new(PingRequest::ping());
    with_token.metadata_mut().insert("token", "sesame".parse().unwrap());
    let response = client.ping(with_token).unwrap();
    assert_eq!(response.metadata().get("token").unwrap(), "sesame");
    // A status that comes after messages.
    let mut conversation = client.converse(()).unwrap();
    for message in ["ping", "no"] {
        let message = ConverseRequest { message: message.into(), ..Default::default() };
        conversation.send(&message).unwrap();
    }
    assert_eq!(conversation.message().unwrap().unwrap().message, "pong");
    assert_eq!(conversation.message().unwrap_err().code(), Code::InvalidArgument);
    assert!(conversation.message().unwrap().is_none(), "an error ends it");
}

fn large_messages_pass_the_windows(transport: Transport) {
    let served = ping_server(transport);
    let mut client = served.client();
    let payload: Vec<u8> = (0..3 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761) as u8).collect();
    let large = PingRequest { payload: payload.clone().into(), ..PingRequest::ping() };
    for _ in 0..2 {
        let echoed = client.ping(large.clone()).unwrap().into_inner();
        assert!(echoed.payload == payload);
    }
    let pings = (0..40).map(|_| CollectRequest {
        message: "ping".into(),
        payload: payload[..1 << 20].to_vec().into(),
        ..Default::default()
    });
    assert_eq!(client.collect(Request::new(pings)).unwrap().into_inner().count, 40);
    let watch = WatchRequest {
        count: 20,
        payload: payload[..1 << 20].to_vec().into(),
        ..Default::default()
    };
    assert_eq!(client.watch(watch).unwrap().into_inner().filter(Result::is_ok).count(), 20);
    let too_large = PingRequest { payload: vec![0; 5 << 20].into(), ..PingRequest::ping() };
    assert_eq!(client.ping(too_large).unwrap_err().code(), Code::ResourceExhausted);
    client.ping(PingRequest::ping()).unwrap();
}

fn never_answers() -> Scripted {
    Scripted::default().on_ping(|request| async move {
        match &*request.into_inner().message {
            "wait" => std::future::pending().await,
            _ => Ok(Response::new(PingResponse::default())),
        }
    })
}

fn a_deadline_ends_a_call_that_waits(transport: Transport) {
    let served = Served::start(transport, never_answers().server());
    let mut client = served.client();
    let began = Instant::now();
    let mut late = Request::new(request("wait"));
    late.set_timeout(Duration::from_millis(50));
    assert_eq!(client.ping(late).unwrap_err().code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_millis(50));
    client.ping(PingRequest::ping()).unwrap();
    // Of a stream it is the whole call's.
    let mut late = Request::new(WatchRequest::default());
    late.get_mut().interval = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    late.set_timeout(Duration::from_millis(50));
    // On a busy machine it may pass before the head of the response comes.
    let end = client.watch(late).and_then(|stream| stream.into_inner().last().unwrap().map(drop));
    assert_eq!(end.unwrap_err().code(), Code::DeadlineExceeded);
}

fn the_channels_timeout_is_every_calls_deadline(transport: Transport) {
    let served = Served::start(transport, never_answers().server());
    let channel = Channel::builder(&served.running.address).timeout(Duration::from_millis(50));
    let mut client = Client::new(channel.connect().unwrap());
    assert_eq!(client.ping(request("wait")).unwrap_err().code(), Code::DeadlineExceeded);
}

fn a_call_after_a_restart_connects_again(transport: Transport) {
    let served = ping_server(transport);
    let mut client = served.client();
    client.ping(PingRequest::ping()).unwrap();
    let Served { runtime, running } = served;
    let address = running.address.clone();
    let folder = runtime.block_on(running.stop());
    let status = client.ping(PingRequest::ping()).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let running = runtime.block_on(Running::start_at(&address, Scripted::default().server()));
    client.ping(PingRequest::ping()).unwrap();
    drop((running, folder));
}

fn every_kind_of_call_finds_the_next_server(transport: Transport) {
    let mut served = ping_server(transport);
    let mut client = served.client();
    for kind in 0..4 {
        client.ping(PingRequest::ping()).unwrap();
        served = served.replace(Scripted::default().server());
        match kind {
            0 => drop(client.ping(PingRequest::ping()).unwrap()),
            1 => drop(client.watch(WatchRequest::default()).unwrap()),
            2 => {
                let one = CollectRequest { message: "ping".into(), ..Default::default() };
                let collected = client.collect(Request::new([one])).unwrap().into_inner();
                assert_eq!(collected.count, 1);
            }
            _ => {
                let mut conversation = client.converse(()).unwrap();
                let ping = ConverseRequest { message: "ping".into(), ..Default::default() };
                assert!(conversation.send(&ping).unwrap());
                assert_eq!(conversation.message().unwrap().unwrap().message, "pong");
            }
        }
    }
}

/// A server that drains closes the connection of an idle client, which may be sending its next call just
/// then. The last GOAWAY tells that the server has not processed it.
#[test]
fn a_call_that_meets_the_end_of_an_idle_connection_goes_to_the_next() {
    let answer = [
        headers(1, &block(&[(":status", "200"), ("content-type", "application/grpc")]), false),
        // This is a PingResponse, whose field 1 is `string message`.
        data(1, &message(b"\x0a\x04pong"), false),
        headers(1, &block(&[("grpc-status", "0")]), true),
    ]
    .concat();
    let directory = directory();
    let address = socket_in(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(Listener::bind(&address)).unwrap();
    let calls = thread::spawn(move || {
        let mut client = Client::connect(address).unwrap();
        [(); 2].map(|()| client.ping(PingRequest::ping()).unwrap().into_inner().message)
    });
    runtime.block_on(async {
        let mut old = Peer::server(listener.accept().await.unwrap(), &[]).await;
        old.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
        old.send(&answer).await;
        // The second call is on its way, and most of it is never read.
        old.io.read_exact(&mut [0]).await.unwrap();
        let bye = [go_away(0x7fff_ffff, code::NO_ERROR), frame(kind::PING, 0, 0, b"goodbye.")];
        old.send(&[bye.concat(), go_away(1, code::NO_ERROR)].concat()).await;
        drop(old);
        let mut next = Peer::server(listener.accept().await.unwrap(), &[]).await;
        next.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
        next.send(&answer).await;
    });
    assert_eq!(calls.join().unwrap(), ["pong", "pong"]);
}

fn a_call_that_waits_fails_with_the_server(transport: Transport) {
    let server = never_answers().server().drain_timeout(Duration::from_millis(10));
    let Served { runtime, running } = Served::start(transport, server);
    let mut client = Client::connect(&running.address).unwrap();
    let waiting = thread::spawn(move || client.ping(request("wait")));
    let probe = running.address.clone();
    let folder = runtime.block_on(async {
        // Once it has answered another call, the first has come perhaps; either way it fails.
        samehost::Channel::connect(&probe).await.unwrap();
        running.stop().await
    });
    assert_eq!(waiting.join().unwrap().unwrap_err().code(), Code::Unavailable);
    drop(folder);
}

fn threads_share_one_connection(transport: Transport) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = Scripted::default().server().on_connect(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        http::Extensions::new()
    });
    let served = Served::start(transport, server);
    let client = served.client();
    thread::scope(|scope| {
        for thread in 0..4 {
            let mut client = client.clone();
            scope.spawn(move || {
                for sequence in 0..200 {
                    let sequence = thread * 1_000 + sequence;
                    let ping = PingRequest { sequence, ..PingRequest::ping() };
                    assert_eq!(client.ping(ping).unwrap().into_inner().sequence, sequence);
                }
            });
        }
        // One that waits for a stream holds up none of them.
        let mut client = client.clone();
        scope.spawn(move || {
            let mut conversation = client.converse(()).unwrap();
            for _ in 0..200 {
                let ping = ConverseRequest { message: "ping".into(), ..Default::default() };
                conversation.send(&ping).unwrap();
                conversation.message().unwrap().unwrap();
            }
        });
    });
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// Makes a call when it is dropped.
struct LastCall(Client, mpsc::Sender<Result<PingResponse, Status>>);

impl Drop for LastCall {
    fn drop(&mut self) {
        let answer = self.0.ping(PingRequest::ping()).map(Response::into_inner);
        self.1.send(answer).unwrap();
    }
}

fn a_thread_that_ends_makes_calls(transport: Transport) {
    thread_local! {
        static LAST: OnceCell<LastCall> = const { OnceCell::new() };
    }
    let served = ping_server(transport);
    let mut client = served.client();
    let (answered, answer) = mpsc::channel();
    let thread = thread::spawn(move || {
        // What a thread has is dropped in the reverse order, so the library's own before this.
        let last = LastCall(client.clone(), answered);
        assert!(LAST.with(|kept| kept.set(last)).is_ok());
        client.ping(PingRequest::ping()).unwrap();
    });
    thread.join().unwrap();
    answer.recv().unwrap().unwrap();
}

fn a_stream_that_is_dropped_is_cancelled(transport: Transport) {
    let alive = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&alive);
    let service = Scripted::default().on_watch(move |_| {
        let counted = Counted::new(&counts);
        tokio_stream::StreamExt::map(tokio_stream::pending(), move |()| {
            let _ = &counted;
            Ok(WatchResponse::default())
        })
    });
    let served = Served::start(transport, service.server());
    let mut client = served.client();
    let stream = client.watch(WatchRequest::default()).unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    drop(stream);
    eventually("its handler is dropped", || alive.load(Ordering::SeqCst) == 0);
    client.ping(PingRequest::ping()).unwrap();
}

fn a_server_that_ends_a_stream_early_is_heard(transport: Transport) {
    let service = Scripted::default().on_collect(|_| async { Err(Status::aborted("enough")) });
    let served = Served::start(transport, service.server());
    let mut client = served.client();
    let endless = std::iter::repeat_with(|| CollectRequest {
        message: "ping".into(),
        payload: vec![0; 64 * 1024].into(),
        ..Default::default()
    });
    let status = client.collect(Request::new(endless)).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "enough"));
    client.ping(PingRequest::ping()).unwrap();
}

/// The response is a head with the status alone.
fn a_stream_that_is_refused_fails_at_once(transport: Transport) {
    let refuse = |_: Request<()>| Err::<Request<()>, _>(Status::permission_denied("not you"));
    let service = PingServiceServer::with_interceptor(Ping::default(), refuse);
    let served = Served::start(transport, Server::new().add_service(service));
    let mut client = served.client();
    let watch = client.watch(WatchRequest::default()).unwrap_err();
    let mut conversation = client.converse(()).unwrap();
    let converse = conversation.metadata().unwrap_err();
    for status in [watch, converse] {
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not you"));
    }
    assert!(conversation.message().unwrap().is_none());
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let folder = directory();
    let address = socket_in(folder.path());
    let error = Channel::connect(&address).unwrap_err();
    assert_eq!((error.kind(), error.address()), (ConnectErrorKind::NoServer, Some(&address)));
    // `connect` tries once even if the channel's calls wait.
    let (tell, told) = mpsc::channel();
    let waits = Channel::builder(&address).wait_for_ready(true);
    thread::spawn(move || tell.send(waits.connect().map(drop)));
    let error = told.recv_timeout(Duration::from_secs(20)).expect("an outcome").unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::NoServer);
    let mut client = Client::new(Channel::builder(&address).connect_lazy());
    let status = client.ping(PingRequest::ping()).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, &*error.to_string()));
    let error = Channel::connect("no address").unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::InvalidAddress);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let channel = Channel::builder(listener.local_addr().unwrap());
    let error = channel.connect_timeout(Duration::from_millis(50)).connect().unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::TimedOut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_an_async_function_does_not_panic() {
    let server = Running::ping(Transport::Unix).await;
    let mut client = Client::connect(&server.address).unwrap();
    client.ping(PingRequest::ping()).unwrap();
}

fn an_interceptor_sees_each_request_first(transport: Transport) {
    let token = |metadata: &MetadataMap| metadata.get("token").map(|it| it.to_str().unwrap().len());
    let service = Scripted::default()
        .on_ping(move |request| {
            let sequence = token(request.metadata()).unwrap_or_default() as u64;
            async move { Ok(Response::new(PingResponse { sequence, ..PingResponse::default() })) }
        })
        .on_watch(move |request| {
            let sequence = token(request.metadata()).unwrap_or_default() as u64;
            tokio_stream::once(Ok(WatchResponse { sequence, ..WatchResponse::default() }))
        });
    let served = Served::start(transport, service.server());
    let mut calls = 0;
    let interceptor = move |mut request: Request<()>| {
        calls += 1;
        let value = "x".repeat(calls).parse().unwrap();
        request.metadata_mut().insert("token", value);
        match request.extensions().get::<Refused>() {
            Some(Refused) => Err(Status::unauthenticated("not with this")),
            None => Ok(request),
        }
    };
    let channel = Channel::connect(&served.running.address).unwrap();
    let mut client = Client::with_interceptor(channel, interceptor);
    assert_eq!(client.ping(PingRequest::ping()).unwrap().into_inner().sequence, 1);
    // A clone counts on from there, on its own.
    let mut other = client.clone();
    let mut watch = client.watch(WatchRequest::default()).unwrap().into_inner();
    assert_eq!(watch.next().unwrap().unwrap().sequence, 2);
    assert_eq!(other.ping(PingRequest::ping()).unwrap().into_inner().sequence, 2);
    // It sees requests that are streams, too, and can refuse any.
    let pings = [CollectRequest { message: "ping".into(), ..Default::default() }];
    client.collect(Request::new(pings)).unwrap();
    client.converse(()).unwrap();
    assert_eq!(client.ping(PingRequest::ping()).unwrap().into_inner().sequence, 5);
    let refused = |status: Status| assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let mut request = Request::new(PingRequest::ping());
    request.extensions_mut().insert(Refused);
    refused(client.ping(request).unwrap_err());
    let mut request = Request::new(());
    request.extensions_mut().insert(Refused);
    refused(client.converse(request).map(drop).unwrap_err());
}

fn an_interceptor_knows_the_method(transport: Transport) {
    let served = Served::start(transport, Scripted::default().server());
    let interceptor = |request: Request<()>| {
        let method = request.extensions().get::<GrpcMethod<'_>>().expect("the method");
        Err::<Request<()>, _>(Status::aborted(format!(
            "{} of {}",
            method.method(),
            method.service()
        )))
    };
    let channel = Channel::connect(&served.running.address).unwrap();
    let mut client = Client::with_interceptor(channel, interceptor);
    let pings = Request::new(std::iter::empty::<CollectRequest>());
    for (status, method) in [
        (client.ping(PingRequest::ping()).unwrap_err(), "Ping"),
        (client.watch(WatchRequest::default()).unwrap_err(), "Watch"),
        (client.collect(pings).unwrap_err(), "Collect"),
        (client.converse(()).unwrap_err(), "Converse"),
    ] {
        assert_eq!(status.message(), format!("{method} of ping.v1.PingService"));
    }
}

/// Metadata that a program passes on may have the length of the message that it came with.
fn the_length_of_another_message_is_left_out(transport: Transport) {
    const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
    let service = PingServiceServer::new(Ping::default()).accept_compressed(GZIP);
    let served = Served::start(transport, Server::new().add_service(service));
    for mut client in [served.client(), served.client().send_compressed(GZIP)] {
        let mut request = Request::new(PingRequest::ping());
        request.metadata_mut().insert("content-length", "100".parse().unwrap());
        client.ping(request).unwrap();
        let mut request = Request::new(WatchRequest { count: 1, ..WatchRequest::default() });
        request.metadata_mut().insert("content-length", "100".parse().unwrap());
        client.watch(request).unwrap().into_inner().next().unwrap().unwrap();
    }
}

/// Marks a request that the interceptor refuses.
#[derive(Clone)]
struct Refused;
