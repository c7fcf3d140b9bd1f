//! The events that an observer of a server gets, and their order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use samehost::ping::{PingRequest, PingResponse, PingServiceClient, WatchRequest};
use samehost::{Channel, Event, Observer, PeerPolicy, Server};
use tokio::sync::Notify;
use tonic::{Code, Response, Status};

use crate::support::{Running, Scripted, Transport, eventually_async, on_both_transports};
use crate::wire::{PREFACE, Peer};

on_both_transports!(
    a_connection_and_its_calls_are_told_in_order,
    every_end_of_a_call_is_told,
    a_connection_beyond_the_limit_is_told,
    a_drain_is_told,
    a_panicking_observer_harms_no_call,
    a_snapshot_tells_what_the_server_is_doing,
);

/// An observer that writes down its events.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>) {
        let note = match event {
            Event::ConnectionOpened { connection, .. } => format!("opened {}", connection.number()),
            Event::ConnectionClosed { connection, error, .. } => {
                let how = error.map_or("well", |_| "by an error");
                format!("closed {} {how}", connection.number())
            }
            Event::ConnectionRefused { reason, .. } => format!("refused {reason:?}"),
            Event::GoAwaySent { connection, reason, .. } => {
                format!("go away {} {reason:?}", connection.number())
            }
            Event::CallBegan { call, .. } => {
                let connection = call.connection().map_or(0, |connection| connection.number());
                format!("began {} {connection} {}", call.method(), call.service_is_known())
            }
            Event::CallEnded { call, end, .. } => format!(
                "ended {} {:?} {} {}",
                call.method(),
                end.code(),
                end.sent_bytes(),
                end.received_bytes()
            ),
            Event::DrainBegan { connections, .. } => format!("drain of {connections}"),
            Event::DrainEnded { cut_off, .. } => format!("drained, {cut_off} cut off"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(note);
    }
}

impl Notes {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits for a note, which may come after the other end has finished.
    async fn until(&self, note: &str) {
        let started = std::time::Instant::now();
        while !self.all().iter().any(|one| one == note) {
            let late = started.elapsed() > Duration::from_secs(10);
            assert!(!late, "no {note:?} within 10 s: {:?}", self.all());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

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
    late.set_timeout(Duration::from_millis(30));
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
    assert!(at("go away 1 Shutdown") < at("closed 1 well"), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn an_old_connections_go_away_is_told() {
    let notes = Notes::default();
    let server = ping_server().observer(notes.clone()).max_connection_age(Duration::from_secs(9));
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    ping(&mut client).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    notes.until("closed 1 well").await;
    assert!(notes.all().contains(&"go away 1 MaxAge".to_owned()), "{:?}", notes.all());
}

#[tokio::test]
async fn a_connection_that_fails_is_told_with_its_error() {
    let notes = Notes::default();
    let server = Running::start(Transport::Unix, ping_server().observer(notes.clone())).await;
    let path = server.address.as_path().unwrap();
    let mut peer = Peer::new(tokio::net::UnixStream::connect(path).await.unwrap());
    peer.send(&[PREFACE, b"no frame of HTTP/2's at all, and long"].concat()).await;
    notes.until("closed 1 by an error").await;
    assert_eq!(notes.all(), ["opened 1", "closed 1 by an error"]);
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
