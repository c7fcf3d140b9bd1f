//! What an observer of a channel is told, and in which order.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use samehost::ping::{PingRequest, PingResponse, PingServiceClient, WatchRequest};
use samehost::{
    Address, Channel, ChannelBuilder, ChannelState, ChannelStats, Event, Observer, RetryPolicy,
    Side,
};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tonic::{Code, Response, Status};

use crate::notes::Notes;
use crate::slow_observer;
use crate::support::{
    Running, Scripted, Transport, directory, eventually_async, on_both_transports, socket_in,
};
use crate::wire::{Peer, block, code, data, headers, kind, message, reset};

on_both_transports!(
    a_connection_and_its_calls_are_told_in_order,
    calls_on_stubs_of_tonic_are_told_alike,
    every_end_of_a_call_is_told,
    a_server_that_goes_is_told,
    an_attempt_that_is_given_up_has_no_further_event,
    a_slow_observer_harms_no_call_but_its_own,
    a_retried_call_is_one_call,
    a_panicking_observer_harms_no_call,
    an_observer_may_use_the_channel_within_each_event,
    a_snapshot_tells_what_the_channel_is_doing,
);

const PING: &str = "ping.v1.PingService/Ping";

async fn ping(client: &mut PingServiceClient<Channel>) -> Result<PingResponse, Status> {
    client.ping(PingRequest::ping()).await.map(Response::into_inner)
}

fn request(message: &str) -> PingRequest {
    PingRequest { message: message.into(), ..Default::default() }
}

fn began(method: &str) -> String {
    format!("began {method} 0 true")
}

async fn a_connection_and_its_calls_are_told_in_order(transport: Transport) {
    let server = Running::ping(transport).await;
    let notes = Notes::default();
    let channel = Channel::builder(&server.address).observer(notes.clone()).connect_lazy();
    let mut client = PingServiceClient::new(channel);
    for _ in 0..2 {
        ping(&mut client).await.unwrap();
    }
    drop(client);
    notes.until("closed 1 well").await;
    // "ping" and "pong" are a field of six bytes behind a prefix of five.
    let call = [began(PING), format!("ended {PING} Ok 11 11")];
    let connected = ["connecting", "opened 1"].map(str::to_owned);
    let closed = ["closed 1 well".to_owned()];
    // The first call is made before there is a connection.
    let expected = [&call[..1], &connected, &call[1..], &call, &closed].concat();
    assert_eq!(notes.all(), expected);
}

async fn calls_on_stubs_of_tonic_are_told_alike(transport: Transport) {
    let server = Running::ping(transport).await;
    let notes = Notes::default();
    let channel = Channel::builder(&server.address).observer(notes.clone()).connect().await;
    let mut client = tonic::client::Grpc::new(channel.unwrap());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/ping.v1.PingService/Ping");
    let codec = tonic_prost::ProstCodec::<PingRequest, PingResponse>::default();
    client.unary(tonic::Request::new(PingRequest::ping()), path, codec).await.unwrap();
    notes.until(&format!("ended {PING} Ok 11 11")).await;
}

async fn every_end_of_a_call_is_told(transport: Transport) {
    let began = Arc::new(Notify::new());
    let begins = Arc::clone(&began);
    let service = Scripted::default().on_ping(move |request| {
        let began = Arc::clone(&begins);
        async move {
            if request.into_inner().message == "fail" {
                return Err(Status::data_loss("as asked for"));
            }
            began.notify_one();
            std::future::pending().await
        }
    });
    let server = Running::start(transport, service.server()).await;
    let notes = Notes::default();
    let channel = Channel::builder(&server.address).observer(notes.clone()).connect().await;
    let mut client = PingServiceClient::new(channel.unwrap());
    client.ping(request("fail")).await.unwrap_err();
    notes.until(&format!("ended {PING} DataLoss 11 0")).await;

    let mut late = tonic::Request::new(request("deadline"));
    late.set_timeout(Duration::from_secs(1));
    client.ping(late).await.unwrap_err();
    notes.until(&format!("ended {PING} DeadlineExceeded 15 0")).await;
    began.notified().await;

    let mut cancelled = client.clone();
    let call = tokio::spawn(async move { cancelled.ping(request("cancel me")).await });
    began.notified().await;
    call.abort();
    notes.until(&format!("ended {PING} Cancelled 16 0")).await;

    let mut pongs = client.watch(WatchRequest { count: 3, ..Default::default() }).await.unwrap();
    while pongs.get_mut().message().await.unwrap().is_some() {}
    // The second and the third have a number, of two bytes.
    notes.until("ended ping.v1.PingService/Watch Ok 7 37").await;
    // A stream whose caller leaves it.
    let pongs = client.watch(WatchRequest { count: 0, ..Default::default() }).await.unwrap();
    drop(pongs);
    eventually_async("the stream is given up", || {
        notes.all().iter().any(|note| note.contains("Watch Cancelled"))
    })
    .await;
    let notes = notes.all();
    let count = |what: &str| notes.iter().filter(|note| note.starts_with(what)).count();
    assert_eq!(count("began"), count("ended"), "{notes:?}");
}

async fn a_server_that_goes_is_told(transport: Transport) {
    let server = Running::ping(transport).await;
    let notes = Notes::default();
    let channel =
        Channel::builder(&server.address).observer(notes.clone()).connect().await.unwrap();
    ping(&mut PingServiceClient::new(channel.clone())).await.unwrap();
    let _directory = server.stop().await;
    notes.until("closed 1 well").await;
    let expected = ["received go away 1 NO_ERROR", "closed 1 well"].map(str::to_owned);
    assert!(notes.all().ends_with(&expected), "{:?}", notes.all());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told() {
    let folder = directory();
    let address = socket_in(folder.path());
    let notes = Notes::default();
    let channel = Channel::builder(&address).observer(notes.clone()).connect_lazy();
    ping(&mut PingServiceClient::new(channel)).await.unwrap_err();
    let ended = format!("ended {PING} Unavailable 0 0");
    assert_eq!(notes.all(), [&began(PING), "connecting", "failed NoServer", &ended]);
}

/// A socket that takes connections and says nothing.
enum Silent {
    Unix { _listener: tokio::net::UnixListener, _folder: tempfile::TempDir },
    Tcp { _listener: tokio::net::TcpListener },
}

async fn silent(transport: Transport) -> (Silent, Address) {
    match transport {
        Transport::Unix => {
            let folder = directory();
            let address = socket_in(folder.path());
            let listener = tokio::net::UnixListener::bind(address.as_path().unwrap()).unwrap();
            (Silent::Unix { _listener: listener, _folder: folder }, address)
        }
        Transport::Tcp => {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().into();
            (Silent::Tcp { _listener: listener }, address)
        }
    }
}

async fn an_attempt_that_is_given_up_has_no_further_event(transport: Transport) {
    let (silent, address) = silent(transport).await;
    let notes = Notes::default();
    let channel = Channel::builder(&address).observer(notes.clone()).connect_lazy();
    let mut client = PingServiceClient::new(channel.clone());
    let call = tokio::spawn(async move { ping(&mut client).await });
    notes.until("connecting").await;
    assert_eq!(channel.state(), ChannelState::Connecting);
    call.abort();
    let ended = format!("ended {PING} Cancelled 11 0");
    notes.until(&ended).await;
    eventually_async("the attempt is given up", || channel.state() == ChannelState::Idle).await;
    // The next call makes an attempt of its own, which fails when the server closes its socket.
    let mut client = PingServiceClient::new(channel);
    let call = tokio::spawn(async move { ping(&mut client).await });
    eventually_async("the second attempt", || {
        notes.all().iter().filter(|note| *note == "connecting").count() == 2
    })
    .await;
    drop(silent);
    call.await.unwrap().unwrap_err();
    let notes = notes.all();
    assert_eq!(notes[..3], [began(PING), "connecting".to_owned(), ended], "{notes:?}");
    assert_eq!(notes[3..5], [began(PING), "connecting".to_owned()], "{notes:?}");
    assert!(notes[5].starts_with("failed ") && notes.len() == 7, "{notes:?}");
}

async fn a_slow_observer_harms_no_call_but_its_own(transport: Transport) {
    slow_observer::harms_no_call_but_its_own(move |slow| async move {
        let server = Running::ping(transport).await;
        let channel = Channel::builder(&server.address).observer(slow).connect().await;
        (server, channel.unwrap())
    });
}

/// Keeps how long calls have waited.
#[derive(Clone, Default)]
struct Waits(Arc<Mutex<Vec<Duration>>>);

impl Observer for Waits {
    fn observe(&self, event: &Event<'_>) {
        if let Event::CallEnded { end, .. } = event {
            assert!(end.waited() <= end.duration());
            self.0.lock().unwrap().push(end.waited());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_backoff_of_calls_that_wait_for_a_server_is_told() {
    let folder = directory();
    let (notes, waits) = (Notes::default(), Waits::default());
    let channel = Channel::builder(socket_in(folder.path()))
        .wait_for_ready(true)
        .timeout(Duration::from_secs(3))
        .observer(notes.clone())
        .observer(waits.clone())
        .connect_lazy();
    ping(&mut PingServiceClient::new(channel)).await.unwrap_err();
    let notes = notes.all();
    let attempt = ["connecting", "failed NoServer", "backoff"];
    assert_eq!(notes[1..7], [attempt, attempt].concat());
    assert_eq!(*notes.last().unwrap(), format!("ended {PING} DeadlineExceeded 0 0"));
    let waited = waits.0.lock().unwrap()[0];
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
}

/// Keeps how often calls were made again: by policy, and without.
#[derive(Clone, Default)]
struct Again(Arc<Mutex<Vec<(u32, u32)>>>);

impl Observer for Again {
    fn observe(&self, event: &Event<'_>) {
        if let Event::CallEnded { call, end, .. } = event {
            assert_eq!(call.side(), Side::Client);
            assert!(call.connection().is_some_and(|it| it.side() == Side::Client));
            self.0.lock().unwrap().push((end.retries(), end.resends()));
        }
    }
}

async fn a_retried_call_is_one_call(transport: Transport) {
    let failures = Arc::new(Mutex::new(2));
    let service = Scripted::default().on_ping(move |_| {
        let mut failures = failures.lock().unwrap();
        let fails = *failures > 0;
        *failures -= u32::from(fails);
        async move {
            if fails {
                Err(Status::unavailable("not now"))
            } else {
                Ok(PingResponse::default().into())
            }
        }
    });
    let server = Running::start(transport, service.server()).await;
    let (notes, again) = (Notes::default(), Again::default());
    let policy = RetryPolicy::new().backoff(Duration::from_millis(1), Duration::from_millis(2));
    let channel = Channel::builder(&server.address)
        .retry(policy)
        .observer(notes.clone())
        .observer(again.clone())
        .connect_lazy();
    ping(&mut PingServiceClient::new(channel)).await.unwrap();
    assert_eq!(*again.0.lock().unwrap(), [(2, 0)]);
    // The request's bytes count once.
    notes.until(&format!("ended {PING} Ok 11 5")).await;
}

/// Options of a channel on one end of a stream in memory, and the other end.
fn in_memory() -> (ChannelBuilder, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let ours = Mutex::new(Some(ours));
    let connect = move || {
        let ours = ours.lock().unwrap().take();
        async move { ours.ok_or(std::io::ErrorKind::NotConnected).map_err(std::io::Error::from) }
    };
    (ChannelBuilder::from_connector(connect), theirs)
}

/// Keeps the number of the connection that a call was answered on.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<Vec<Option<u64>>>>);

impl Observer for Answered {
    fn observe(&self, event: &Event<'_>) {
        if let Event::CallEnded { call, .. } = event {
            self.0.lock().unwrap().push(call.connection().map(|connection| connection.number()));
        }
    }
}

#[tokio::test]
async fn a_call_that_no_server_has_processed_is_one_call_too() {
    let (builder, theirs) = in_memory();
    let (again, answered) = (Again::default(), Answered::default());
    let channel = builder.observer(again.clone()).observer(answered.clone()).connect_lazy();
    let mut client = PingServiceClient::new(channel);
    let call = tokio::spawn(async move { ping(&mut client).await });
    let mut server = Peer::server(theirs, &[]).await;
    for _ in 0..2 {
        let request = server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
        server.send(&reset(request.stream, code::REFUSED_STREAM)).await;
    }
    let request = server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    server.send(&headers(request.stream, &head, false)).await;
    server.send(&data(request.stream, &message(b""), false)).await;
    server.send(&headers(request.stream, &block(&[("grpc-status", "0")]), true)).await;
    call.await.unwrap().unwrap();
    assert_eq!(*again.0.lock().unwrap(), [(0, 2)]);
    assert_eq!(*answered.0.lock().unwrap(), [Some(1)]);
}

#[tokio::test]
async fn an_end_without_a_status_is_told_as_unknown() {
    let notes = Notes::default();
    let (builder, theirs) = in_memory();
    let mut client = PingServiceClient::new(builder.observer(notes.clone()).connect_lazy());
    let call = tokio::spawn(async move { ping(&mut client).await });
    let mut server = Peer::server(theirs, &[]).await;
    let request = server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    server.send(&headers(request.stream, &head, false)).await;
    server.send(&headers(request.stream, &block(&[("a", "b")]), true)).await;
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    notes.until(&format!("ended {PING} Unknown 11 0")).await;
}

struct Panics;

impl Observer for Panics {
    fn observe(&self, event: &Event<'_>) {
        panic!("at {event:?}");
    }
}

async fn a_panicking_observer_harms_no_call(transport: Transport) {
    let server = Running::ping(transport).await;
    let notes = Notes::default();
    let builder = Channel::builder(&server.address).observer(Panics).observer(notes.clone());
    let mut client = PingServiceClient::new(builder.connect_lazy());
    for _ in 0..3 {
        assert_eq!(ping(&mut client).await.unwrap().message, "pong");
    }
    drop(client);
    notes.until("closed 1 well").await;
    assert_eq!(notes.all().len(), 3 + 2 * 3, "the others are told all: {:?}", notes.all());
}

/// Uses its channel at each event.
struct Uses {
    channel: Arc<OnceLock<Channel>>,
    stats: ChannelStats,
    states: Arc<Mutex<Vec<ChannelState>>>,
}

impl Observer for Uses {
    fn observe(&self, event: &Event<'_>) {
        self.stats.snapshot();
        let Some(channel) = self.channel.get() else { return };
        self.states.lock().unwrap().push(channel.state());
        drop(channel.state_changed());
        if let Event::ConnectionOpened { .. } = event {
            let mut client = PingServiceClient::new(channel.clone());
            tokio::spawn(async move { ping(&mut client).await });
        }
    }
}

async fn an_observer_may_use_the_channel_within_each_event(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut builder = Channel::builder(&server.address);
    let stats = builder.stats();
    let (place, states) = (Arc::new(OnceLock::new()), Arc::default());
    let uses =
        Uses { channel: Arc::clone(&place), stats: stats.clone(), states: Arc::clone(&states) };
    let channel = builder.observer(uses).connect_lazy();
    place.set(channel.clone()).unwrap();
    ping(&mut PingServiceClient::new(channel)).await.unwrap();
    eventually_async("its own call has ended", || stats.snapshot().calls_ended == 2).await;
    let _directory = server.stop().await;
    eventually_async("the end", || stats.snapshot().connections == 0).await;
    assert!(states.lock().unwrap().contains(&ChannelState::Ready));
}

async fn a_snapshot_tells_what_the_channel_is_doing(transport: Transport) {
    let service = Scripted::default().on_ping(|_| std::future::pending());
    let server = Running::start(transport, service.server()).await;
    let mut builder = Channel::builder(&server.address);
    let stats = builder.stats();
    assert_eq!(stats.snapshot(), Default::default());
    let channel = builder.connect_lazy();
    let calls = [0; 2].map(|_| {
        let mut client = PingServiceClient::new(channel.clone());
        tokio::spawn(async move { ping(&mut client).await })
    });
    eventually_async("two calls", || {
        let snapshot = stats.snapshot();
        snapshot.calls_in_flight == 2 && snapshot.connections == 1
    })
    .await;
    calls.each_ref().iter().for_each(|call| call.abort());
    drop(channel);
    eventually_async("all has ended", || {
        let snapshot = stats.snapshot();
        snapshot.connections == 0 && snapshot.calls_in_flight == 0 && snapshot.calls_ended == 2
    })
    .await;
    let snapshot = stats.snapshot();
    assert_eq!((snapshot.connections_opened, snapshot.connect_failures), (1, 0));

    let missing: Address = "unix:/nonexistent/app.sock".parse().unwrap();
    let mut builder = Channel::builder(missing);
    let stats = builder.stats();
    ping(&mut PingServiceClient::new(builder.connect_lazy())).await.unwrap_err();
    assert_eq!(stats.snapshot().connect_failures, 1);
}
