//! The events that an observer of a server gets, and their order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use samehost::ping::{PingRequest, PingResponse, PingServiceClient, WatchRequest};
use samehost::{
    BindOptions, Channel, Event, LayeredService, Observer, PeerPolicy, Server, ServerStats,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::{Code, Response, Status};

use crate::notes::Notes;
use crate::slow_observer;
use crate::support::{
    Running, Scripted, Transport, as_user, eventually_async, on_both_transports, open_directory,
    socket_in,
};
use crate::wire::{PREFACE, Peer, data, headers, message, request, settings};

on_both_transports!(
    a_connection_and_its_calls_are_told_in_order,
    every_end_of_a_call_is_told,
    a_connection_beyond_the_limit_is_told,
    a_drain_is_told,
    a_panicking_observer_harms_no_call,
    a_slow_observer_harms_no_call_but_its_own,
    an_observer_may_look_at_the_server_within_each_event,
    a_client_that_breaks_the_rules_is_told_to_go,
    a_client_that_is_silent_is_told_to_go,
    a_snapshot_tells_what_the_server_is_doing,
);

fn ping_server() -> Server {
    Scripted::default().server()
}

async fn ping(client: &mut PingServiceClient<Channel>) -> Result<PingResponse, Status> {
    client.ping(PingRequest::ping()).await.map(Response::into_inner)
}

async fn a_connection_and_its_calls_are_told_in_order(transport: Transport) {
    let notes = Notes::default();
    let server = Running::start(transport, ping_server().observer(notes.clone())).await;
    let mut client = PingServiceClient::new(server.channel().await);
    for _ in 0..2 {
        ping(&mut client).await.unwrap();
    }
    drop(client);
    notes.until("closed 1 well").await;
    // "ping" and "pong" are a field of six bytes after a prefix of five.
    let call = ["began ping.v1.PingService/Ping 1 true", "ended ping.v1.PingService/Ping Ok 11 11"];
    assert_eq!(notes.all(), [&["opened 1"][..], &call, &call, &["closed 1 well"]].concat());
}

async fn every_end_of_a_call_is_told(transport: Transport) {
    let notes = Notes::default();
    let began = Arc::new(Notify::new());
    let begins = Arc::clone(&began);
    let service = Scripted::default().on_ping(move |request| {
        let began = Arc::clone(&begins);
        async move {
            match &*request.into_inner().message {
                "fail" => Err(Status::data_loss("as asked for")),
                "panic" => panic!("as asked for"),
                "late panic" => {
                    tokio::task::yield_now().await;
                    panic!("as asked for")
                }
                _ => {
                    began.notify_one();
                    std::future::pending().await
                }
            }
        }
    });
    let server = Running::start(transport, service.server().observer(notes.clone())).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let request = |message: &str| PingRequest { message: message.into(), ..Default::default() };
    client.ping(request("fail")).await.unwrap_err();
    notes.until("ended ping.v1.PingService/Ping DataLoss 0 11").await;
    client.ping(request("panic")).await.unwrap_err();
    notes.until("ended ping.v1.PingService/Ping Internal 0 12").await;
    client.ping(request("late panic")).await.unwrap_err();
    notes.until("ended ping.v1.PingService/Ping Internal 0 17").await;

    let mut late = tonic::Request::new(request("deadline"));
    late.set_timeout(Duration::from_secs(1));
    client.ping(late).await.unwrap_err();
    began.notified().await;
    eventually_async("the deadline, by either end", || {
        let ends = ["DeadlineExceeded 0 15", "Cancelled 0 15"];
        ends.iter().any(|end| notes.all().iter().any(|note| note.ends_with(end)))
    })
    .await;

    let mut cancelled = client.clone();
    let call = tokio::spawn(async move { cancelled.ping(request("cancel me")).await });
    began.notified().await;
    call.abort();
    notes.until("ended ping.v1.PingService/Ping Cancelled 0 16").await;

    let mut pongs = client.watch(WatchRequest { count: 3, ..Default::default() }).await.unwrap();
    while pongs.get_mut().message().await.unwrap().is_some() {}
    // The second and the third message have a sequence number of two bytes.
    notes.until("ended ping.v1.PingService/Watch Ok 37 7").await;

    let mut other = tonic::client::Grpc::new(server.channel().await);
    other.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/no.Service/Method");
    let codec = tonic_prost::ProstCodec::<PingRequest, PingResponse>::default();
    let unknown = other.unary(tonic::Request::new(PingRequest::ping()), path, codec);
    assert_eq!(unknown.await.unwrap_err().code(), Code::Unimplemented);
    notes.until("began no.Service/Method 2 false").await;
    notes.until("ended no.Service/Method Unimplemented 0 0").await;
    let notes = notes.all();
    let count = |what: &str| notes.iter().filter(|note| note.starts_with(what)).count();
    assert_eq!(count("began"), count("ended"), "{notes:?}");
}

/// A layer's answers that are not gRPC's, with a body and without.
#[tokio::test]
async fn an_answer_without_a_status_of_grpc_has_that_of_http() {
    for body in ["", "no"] {
        let answers = move |_: LayeredService| {
            tower::service_fn(move |_: http::Request<Body>| async move {
                let body = Body::new(Full::from(body).map_err(|never| match never {}));
                let response = http::Response::builder().status(503).body(body);
                Ok::<_, std::convert::Infallible>(response.unwrap())
            })
        };
        let notes = Notes::default();
        let layer = tower::layer::layer_fn(answers);
        let server = ping_server().observer(notes.clone()).layer(layer);
        let server = Running::start(Transport::Unix, server).await;
        let mut client = PingServiceClient::new(server.channel().await);
        assert_eq!(ping(&mut client).await.unwrap_err().code(), Code::Unavailable);
        notes.until(&format!("ended ping.v1.PingService/Ping Unavailable {} 0", body.len())).await;
    }
}

async fn a_connection_beyond_the_limit_is_told(transport: Transport) {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone()).max_connections(1);
    let server = Running::start(transport, server).await;
    let mut inside = PingServiceClient::new(server.channel().await);
    ping(&mut inside).await.unwrap();
    let mut outside = PingServiceClient::new(server.channel().await);
    ping(&mut outside).await.unwrap_err();
    let notes = notes.all();
    assert_eq!(notes.last().unwrap(), "refused MaxConnections");
    // Calls on a refused connection are not observed.
    assert_eq!(notes.iter().filter(|note| note.starts_with("began")).count(), 1, "{notes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_users_connection_too_many_is_told() {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone()).max_connections_per_uid(1);
    let folder = open_directory();
    let address = socket_in(folder.path());
    let listener = BindOptions::new().mode(0o666).bind(&address).await.unwrap();
    let serving = tokio::spawn(server.serve(listener));
    let path = address.as_path().unwrap();
    let connect = || std::os::unix::net::UnixStream::connect(path).unwrap();
    let Some(_connections) = as_user(1234, 1234, &[], || [connect(), connect()]) else { return };
    notes.until("refused MaxConnectionsPerUid").await;
    assert_eq!(notes.all(), ["opened 1", "refused MaxConnectionsPerUid"]);
    serving.abort();
}

#[tokio::test]
async fn a_refused_peer_is_told() {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone()).peer_policy(PeerPolicy::uids([]));
    let server = Running::start(Transport::Unix, server).await;
    ping(&mut PingServiceClient::new(server.channel().await)).await.unwrap_err();
    assert_eq!(notes.all(), ["refused Policy"]);
}

async fn a_drain_is_told(transport: Transport) {
    let notes = Notes::default();
    let service = Scripted::default().on_ping(|_| std::future::pending());
    let server = service.server().observer(notes.clone()).drain_timeout(Duration::from_millis(50));
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { ping(&mut client).await });
    notes.until("began ping.v1.PingService/Ping 1 true").await;
    server.stop().await;
    call.await.unwrap().unwrap_err();
    notes.until("ended ping.v1.PingService/Ping Cancelled 0 11").await;
    let notes = notes.all();
    let at = |note: &str| notes.iter().position(|one| one == note).expect(note);
    assert!(at("drain of 1") < at("drained, 1 cut off"), "{notes:?}");
    assert!(at("drain of 1") < at("go away 1 Shutdown"), "{notes:?}");
    assert!(at("go away 1 Shutdown") < at("closed 1 well"), "{notes:?}");
    assert!(at("closed 1 well") < at("drained, 1 cut off"), "{notes:?}");
}

#[tokio::test]
async fn a_drain_is_told_before_any_client_is_told_to_go() {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone());
    let server = Running::start(Transport::Unix, server).await;
    let mut clients = Vec::new();
    for _ in 0..32 {
        clients.push(server.channel().await);
    }
    server.stop().await;
    let notes = notes.all();
    let first = notes.iter().position(|note| note.starts_with("go away")).expect("a GOAWAY");
    let began = notes.iter().position(|note| note == "drain of 32").expect("a drain");
    assert!(began < first, "{notes:?}");
}

/// Returns a server whose connections may become 9 s old, and a client of it.
async fn with_maximum_age() -> (Notes, Running, PingServiceClient<Channel>) {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone()).max_connection_age(Duration::from_secs(9));
    let server = Running::start(Transport::Unix, server).await;
    let client = PingServiceClient::new(server.channel().await);
    (notes, server, client)
}

#[tokio::test(start_paused = true)]
async fn an_old_connections_go_away_is_told() {
    let (notes, _server, mut client) = with_maximum_age().await;
    ping(&mut client).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    notes.until("closed 1 well").await;
    assert!(notes.all().contains(&"go away 1 MaxAge".to_owned()), "{:?}", notes.all());
}

/// When the server stops, an old connection has had its GOAWAY.
#[tokio::test(start_paused = true)]
async fn the_go_away_of_an_old_connection_is_told_once() {
    let (notes, server, mut client) = with_maximum_age().await;
    let mut pongs = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    pongs.message().await.unwrap();
    notes.until("go away 1 MaxAge").await;
    let (serving, _directory) = server.signal();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(pongs);
    serving.await.unwrap();
    assert_eq!(notes.all().iter().filter(|note| note.starts_with("go away")).count(), 1);
}

#[tokio::test]
async fn a_connection_that_fails_is_told_with_its_error() {
    let notes = Notes::default();
    let server = Running::start(Transport::Unix, ping_server().observer(notes.clone())).await;
    let path = server.address.as_path().unwrap();
    let mut peer = Peer::new(tokio::net::UnixStream::connect(path).await.unwrap());
    peer.send(&[PREFACE, b"no frame of HTTP/2's at all, and long"].concat()).await;
    notes.until("closed 1 by an error").await;
    assert_eq!(notes.all(), ["opened 1", "go away 1 Violation", "closed 1 by an error"]);
}

/// Opens a connection, for a client that writes frames by hand.
async fn connect(server: &Running) -> Box<dyn Duplex> {
    match server.address.as_path() {
        Some(path) => Box::new(tokio::net::UnixStream::connect(path).await.unwrap()),
        None => {
            let address = server.address.to_string();
            Box::new(tokio::net::TcpStream::connect(address).await.unwrap())
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

async fn a_client_that_breaks_the_rules_is_told_to_go(transport: Transport) {
    let notes = Notes::default();
    let server = Running::start(transport, ping_server().observer(notes.clone())).await;
    let mut peer = Peer::client(connect(&server).await, &[]).await;
    // DATA of a stream that was never opened.
    peer.send(&data(7, &message(b""), true)).await;
    notes.until("closed 1 by an error").await;
    assert_eq!(notes.all(), ["opened 1", "go away 1 Violation", "closed 1 by an error"]);
}

async fn a_client_that_is_silent_is_told_to_go(transport: Transport) {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone());
    let server = server.handshake_timeout(Duration::from_millis(30));
    let server = Running::start(transport, server).await;
    let _silent = connect(&server).await;
    notes.until("closed 1 by an error").await;
    assert_eq!(notes.all(), ["opened 1", "go away 1 Timeout", "closed 1 by an error"]);
}

#[tokio::test]
async fn a_client_that_meets_a_limit_is_told_to_go() {
    let notes = Notes::default();
    let server = Running::start(Transport::Unix, ping_server().observer(notes.clone())).await;
    let mut peer = Peer::client(connect(&server).await, &[]).await;
    // Frames that advance nothing.
    peer.send(&settings(&[]).repeat(20_000)).await;
    notes.until("closed 1 by an error").await;
    assert_eq!(notes.all(), ["opened 1", "go away 1 Limit", "closed 1 by an error"]);
}

/// It ends its side before it has its responses. No GOAWAY follows.
#[tokio::test]
async fn a_client_that_has_said_all_is_not_told_to_go() {
    for stays in [true, false] {
        let (notes, go) = (Notes::default(), Arc::new(Notify::new()));
        let goes = Arc::clone(&go);
        let service = Scripted::default().on_ping(move |_| {
            let go = Arc::clone(&goes);
            async move {
                go.notified().await;
                Ok(Response::new(PingResponse::default()))
            }
        });
        let server = service.server().observer(notes.clone());
        let server = Running::start(Transport::Unix, server).await;
        let mut peer = Peer::client(connect(&server).await, &[]).await;
        let head = headers(1, &request("/ping.v1.PingService/Ping"), false);
        peer.send(&[head, data(1, &message(b""), true)].concat()).await;
        notes.until("began ping.v1.PingService/Ping 1 true").await;
        peer.io.shutdown().await.unwrap();
        // Once another connection is set up, the server has polled this one, too.
        Peer::client(connect(&server).await, &[]).await.sync().await;
        if stays {
            go.notify_one();
            while peer.next().await.is_some() {}
        }
        drop(peer);
        notes.until("closed 1 well").await;
        assert!(!notes.all().iter().any(|note| note.contains("go away")), "{:?}", notes.all());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connections_go_away_is_told() {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone()).idle_timeout(Duration::from_secs(9));
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    ping(&mut client).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    notes.until("closed 1 well").await;
    let notes = notes.all();
    let end = ["go away 1 Idle", "closed 1 well"].map(str::to_owned);
    assert!(notes.ends_with(&end), "{notes:?}");
}

/// Looks at the server at each event, and notes how many calls it sees.
struct Looks(ServerStats, Arc<Mutex<Vec<usize>>>);

impl Observer for Looks {
    fn observe(&self, event: &Event<'_>) {
        let snapshot = self.0.snapshot();
        if let Event::CallBegan { .. } | Event::CallEnded { .. } = event {
            self.1.lock().unwrap().push(snapshot.calls_in_flight);
        }
    }
}

async fn an_observer_may_look_at_the_server_within_each_event(transport: Transport) {
    let mut server = ping_server();
    let stats = server.stats();
    let (seen, notes) = (Arc::default(), Notes::default());
    let server = server.observer(Looks(stats, Arc::clone(&seen))).observer(notes.clone());
    let server = Running::start(transport, server.max_connections(1)).await;
    let mut client = PingServiceClient::new(server.channel().await);
    ping(&mut client).await.unwrap();
    ping(&mut PingServiceClient::new(server.channel().await)).await.unwrap_err();
    server.stop().await;
    notes.until("closed 1 well").await;
    assert_eq!(*seen.lock().unwrap(), [1, 0], "the statistics get each event first");
}

async fn a_slow_observer_harms_no_call_but_its_own(transport: Transport) {
    slow_observer::harms_no_call_but_its_own(move |slow| async move {
        let server = Running::start(transport, ping_server().observer(slow)).await;
        let channel = server.channel().await;
        (server, channel)
    });
}

struct Panics;

impl Observer for Panics {
    fn observe(&self, event: &Event<'_>) {
        panic!("at {event:?}");
    }
}

async fn a_panicking_observer_harms_no_call(transport: Transport) {
    let notes = Notes::default();
    let server = ping_server().observer(Panics).observer(notes.clone());
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    for _ in 0..3 {
        assert_eq!(ping(&mut client).await.unwrap().message, "pong");
    }
    drop(client);
    notes.until("closed 1 well").await;
    assert_eq!(notes.all().len(), 2 + 2 * 3, "the others are told all: {:?}", notes.all());
    server.stop().await;
}

async fn a_snapshot_tells_what_the_server_is_doing(transport: Transport) {
    let service = Scripted::default().on_ping(|_| std::future::pending());
    let mut server = service.server().max_connections(2);
    let stats = server.stats();
    assert_eq!(stats.snapshot(), Default::default());
    let server = Running::start(transport, server).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = PingServiceClient::new(server.channel().await);
        clients.push(tokio::spawn(async move { ping(&mut client).await }));
    }
    eventually_async("two calls", || stats.snapshot().calls_in_flight == 2).await;
    ping(&mut PingServiceClient::new(server.channel().await)).await.unwrap_err();
    let snapshot = stats.snapshot();
    let uid = match transport {
        Transport::Unix => Some(rustix::process::geteuid().as_raw()),
        Transport::Tcp => None,
    };
    assert_eq!(snapshot.connections_by_uid, [(uid, 2)].into());
    assert_eq!(snapshot.connections(), 2);
    assert_eq!((snapshot.refused_by_limit, snapshot.refused_by_policy), (1, 0));
    for client in clients {
        client.abort();
    }
    eventually_async("all has ended", || {
        let snapshot = stats.snapshot();
        snapshot.connections() == 0 && snapshot.calls_in_flight == 0 && snapshot.calls_ended == 2
    })
    .await;
}
