//! Many connections: the limits on their number and memory, and servers without free file
//! descriptors.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use samehost::ping::{
    CollectRequest, CollectResponse, Ping, PingRequest, PingResponse, PingServiceClient,
    PingServiceServer,
};
use samehost::{Channel, Event, GoAwayReason, Listener, Observer, Server};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status, Streaming};

use crate::support::{
    Running, Scripted, Serving, Transport, as_user, block_on, directory, eventually_async,
    need_descriptors, nix_signal, on_both_transports, open_descriptors, open_directory, socket_in,
};
use crate::wire::{
    PREFACE, Peer, code, data, flag, frame, headers, kind, message, request, settings,
};

on_both_transports!(one_connection_too_many_is_told_so);

async fn one_connection_too_many_is_told_so(transport: Transport) {
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    let server = Running::start(transport, server.max_connections(2)).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = PingServiceClient::new(server.channel().await);
        client.ping(PingRequest::ping()).await.unwrap();
        clients.push(client);
    }
    let mut third = PingServiceClient::new(server.channel().await);
    let status = third.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.message(), "too many connections", "{status:?}");
    for client in &mut clients {
        client.ping(PingRequest::ping()).await.unwrap();
    }
    // A permit that becomes free can be taken.
    clients.pop();
    let started = Instant::now();
    while third.ping(PingRequest::ping()).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "the permit stays taken");
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn tcp_clients_that_have_gone_hold_up_nobody() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().clone();
    for _ in 0..64 {
        let stream = std::net::TcpStream::connect(address.to_string()).unwrap();
        // It is closed by a reset before it is accepted (socket(7), SO_LINGER).
        let linger = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
    }
    let channel = Channel::builder(&address).connect_lazy();
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    tokio::spawn(server.serve(listener));
    let mut client = PingServiceClient::new(channel);
    // With a backoff after each of the others, it would take a minute.
    let call = client.ping(PingRequest::ping());
    timeout(Duration::from_secs(30), call).await.expect("at once").unwrap();
}

#[tokio::test]
async fn the_options_of_serve_set_its_limits() {
    let directory = directory();
    let address = socket_in(directory.path());
    let options = ["--max-streams", "3", "--max-connections", "1"];
    let _serving = Serving::start(&[&address.to_string()], &options);
    let connect = || UnixStream::connect(address.as_path().unwrap());
    let mut peer = Peer::new(connect().await.unwrap());
    peer.send(&[PREFACE, &settings(&[])].concat()).await;
    let theirs = peer.until(|frame| frame.kind == kind::SETTINGS).await;
    // The id of SETTINGS_MAX_CONCURRENT_STREAMS is 3 (RFC 9113 §6.5.2).
    assert!(theirs.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 3]), "{theirs:?}");
    let second = Channel::connect(&address).await.unwrap();
    let status = PingServiceClient::new(second).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

/// Returns the connection, or `None` if its call is refused or it is closed.
async fn stays(stream: UnixStream) -> Option<Peer<UnixStream>> {
    let mut peer = Peer::new(stream);
    let call =
        [headers(1, &request("/ping.v1.PingService/Ping"), false), data(1, &message(&[]), true)];
    let call = call.concat();
    peer.try_send(&[PREFACE, &settings(&[]), &call].concat()).await.ok()?;
    loop {
        let frame = peer.next().await?;
        if frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0 {
            peer.try_send(&self::frame(kind::SETTINGS, flag::ACK, 0, &[])).await.ok()?;
        }
        if frame.stream == 1 {
            // A refusal is only a head; a response has a message.
            return (!frame.ends_stream()).then_some(peer);
        }
        if frame.kind == kind::GOAWAY {
            assert_eq!(frame.code(), code::ENHANCE_YOUR_CALM);
            return None;
        }
    }
}

#[test]
fn a_user_that_holds_all_it_may_keeps_nobody_out() {
    const TRIES: usize = 10_000;
    let directory = open_directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let mut serving = Serving::start(&[&address.to_string()], &["--mode", "0666"]);
    let ping = || {
        block_on(async {
            let channel = Channel::connect(&address).await.unwrap();
            PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
        });
    };
    let started = Instant::now();
    let held = as_user(1234, 1234, &[], || {
        block_on(async {
            let mut held = Vec::new();
            for _ in 0..TRIES {
                held.extend(stays(UnixStream::connect(path).await.unwrap()).await);
            }
            // Other users can connect meanwhile.
            for uid in [4321, 0] {
                as_user(uid, uid, &[], ping);
                assert!(stays(UnixStream::connect(path).await.unwrap()).await.is_none());
            }
            let held_now = held.len();
            // The user may replace a connection that it closes.
            held.pop();
            let started = Instant::now();
            while stays(UnixStream::connect(path).await.unwrap()).await.is_none() {
                assert!(started.elapsed() < Duration::from_secs(60));
            }
            held_now
        })
    });
    let Some(held) = held else { return };
    assert_eq!(held, 256);
    serving.signal(nix_signal::Signal::TERM);
    let (code, errors) = serving.wait();
    assert_eq!(code, Some(0));
    let lines = errors.lines().count() as u64;
    assert!((1..=started.elapsed().as_secs() + 2).contains(&lines), "{lines} lines: {errors}");
    assert!(errors.contains("uid=1234"), "{errors}");
}

/// Returns the CPU time of a process, by proc_pid_stat(5), in the kernel's ticks of 10 ms.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in parentheses may have spaces; the part after it starts with field 3.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn a_server_out_of_descriptors_waits_for_some_and_serves_who_is_in() {
    const OBSERVED: Duration = Duration::from_secs(4);
    let directory = directory();
    let address = socket_in(directory.path());
    let mut command = Command::new("sh");
    let limited = "ulimit -n 64; exec \"$0\" serve \"$1\"";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_samehost"), &address.to_string()]);
    let mut serving = Serving::spawn(&mut command);
    assert!(serving.line().starts_with("listening on "));
    let mut inside = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    inside.ping(PingRequest::ping()).await.unwrap();

    let mut crowd = JoinSet::new();
    for _ in 0..500 {
        let stream = UnixStream::connect(address.as_path().unwrap()).await.unwrap();
        crowd.spawn(async move {
            let _peer = Peer::client(stream, &[]).await;
            std::future::pending::<()>().await
        });
    }
    // It may have inherited descriptors with higher numbers.
    eventually_async("all descriptors are in use", || open_descriptors(serving.id()) >= 64).await;

    let (began, cpu) = (Instant::now(), cpu_time(serving.id()));
    while began.elapsed() < OBSERVED {
        inside.ping(PingRequest::ping()).await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    let share = (cpu_time(serving.id()) - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(share < 0.05, "{:.1} % CPU", share * 100.0);

    drop(crowd);
    let outside = async {
        let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
        client.ping(PingRequest::ping()).await.unwrap();
    };
    timeout(Duration::from_secs(60), outside).await.expect("recovery");
    inside.ping(PingRequest::ping()).await.unwrap();
    serving.signal(nix_signal::Signal::TERM);
    let (code, errors) = serving.wait();
    assert_eq!(code, Some(0));
    let lines = errors.lines().filter(|line| line.contains("accept failed")).count() as u64;
    assert!((1..=began.elapsed().as_secs() + 2).contains(&lines), "{lines} lines: {errors}");
}

#[tokio::test]
async fn a_thousand_slow_peers_are_closed_in_time_and_hold_up_nobody() {
    const PEERS: usize = 1_000;
    const HELD: usize = PEERS;
    // An unfinished header block may stay the longest.
    const DEADLINE: Duration = Duration::from_secs(10);
    if !need_descriptors(4_000) {
        return;
    }
    let directory = directory();
    let address = socket_in(directory.path());
    let options = ["--threads", "2", "--max-connections", &(2 * HELD + 100).to_string()];
    let serving = Serving::start(&[&address.to_string()], &options);
    let path = serving.addresses[0].as_path().unwrap().to_owned();
    // While half of the permits are taken, a handshake has 5 s.
    let mut held = Vec::new();
    for _ in 0..HELD + 100 {
        held.push(Peer::client(UnixStream::connect(&path).await.unwrap(), &[]).await);
    }
    let mut healthy = PingServiceClient::new(Channel::connect(&address).await.unwrap());

    let mut peers = JoinSet::new();
    for number in 0..PEERS {
        let stream = UnixStream::connect(&path).await.unwrap();
        peers.spawn(async move {
            let began = Instant::now();
            match number % 3 {
                0 => is_closed(Peer::new(stream)).await,
                1 => {
                    let mut peer = Peer::new(stream);
                    for byte in PREFACE {
                        if peer.try_send(&[*byte]).await.is_err() {
                            break;
                        }
                        sleep(Duration::from_secs(1)).await;
                    }
                    is_closed(peer).await;
                }
                _ => {
                    let mut peer = Peer::client(stream, &[]).await;
                    let half = frame(kind::HEADERS, 0, 1, &request("/ping.v1.PingService/Ping"));
                    peer.send(&half).await;
                    is_closed(peer).await;
                }
            }
            began.elapsed()
        });
    }
    while !peers.is_empty() {
        healthy.ping(PingRequest::ping()).await.unwrap();
        while let Some(lasted) = peers.try_join_next() {
            let lasted = lasted.unwrap();
            // Other work on the machine may delay the end of some.
            assert!(lasted < DEADLINE + Duration::from_secs(50), "{lasted:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn is_closed(mut peer: Peer<UnixStream>) {
    while peer.next().await.is_some() {}
}

/// The limit of the server's buffers, in bytes. Above it, the server does not read from connections
/// that fill it.
const ROOM: usize = 1 << 20;

/// How many bytes of a message each stream sends. It is less than a stream's window.
const SENT: usize = 60 << 10;

/// This number of streams sends 3.5 MiB, which is within the connection's window.
const MANY_STREAMS: u32 = 60;

/// Sends the beginning of a message on several streams of a connection, until the server does not
/// read it. Returns the number of bytes.
async fn begin_messages(path: &Path, streams: u32) -> (Peer<UnixStream>, usize) {
    let mut peer = Peer::client(UnixStream::connect(path).await.unwrap(), &[]).await;
    let message = message(&vec![0; 3 << 20]);
    let mut sent = 0;
    for stream in (0..streams).map(|number| 2 * number + 1) {
        peer.send(&headers(stream, &request("/ping.v1.PingService/Collect"), false)).await;
        for chunk in message[..SENT].chunks(16 << 10) {
            let chunk = data(stream, chunk, false);
            if timeout(Duration::from_secs(1), peer.try_send(&chunk)).await.is_err() {
                return (peer, sent);
            }
            sent += chunk.len();
        }
    }
    (peer, sent)
}

/// Keeps why clients were told to go.
#[derive(Clone, Default)]
struct GoAways(Arc<Mutex<Vec<GoAwayReason>>>);

impl Observer for GoAways {
    fn observe(&self, event: &Event<'_>) {
        if let Event::GoAwaySent { reason, .. } = event {
            self.0.lock().unwrap().push(*reason);
        }
    }
}

/// Asserts that one of `peers` is closed in time and that this is told, and that other clients do not wait.
/// `began` is before the first of them sent anything.
async fn one_is_closed(
    peers: Vec<Peer<UnixStream>>,
    server: &Running,
    told: &GoAways,
    began: Instant,
) {
    let mut small = PingServiceClient::new(server.channel().await);
    small.ping(PingRequest::ping()).await.unwrap();
    let mut ends = JoinSet::new();
    for mut peer in peers {
        ends.spawn(async move {
            while let Some(frame) = peer.next().await {
                if frame.kind == kind::GOAWAY {
                    return Some(frame.code());
                }
            }
            None
        });
    }
    // It is 10 s. Other work on the machine may delay the end.
    let first = timeout(Duration::from_secs(30), ends.join_next()).await.expect("in time");
    assert_eq!(first.unwrap().unwrap(), Some(code::ENHANCE_YOUR_CALM));
    assert!(began.elapsed() >= Duration::from_secs(10), "it had time: {:?}", began.elapsed());
    eventually_async("the observer is told", || {
        told.0.lock().unwrap().first() == Some(&GoAwayReason::Limit)
    })
    .await;
    small.ping(PingRequest::ping()).await.unwrap();
}

#[tokio::test]
async fn a_full_server_reads_no_more_of_who_fills_it() {
    type Unread = tonic::Request<Streaming<CollectRequest>>;
    let service = Scripted::default().on_collect(|unread: Unread| async move {
        let answer = std::future::pending::<Result<Response<_>, Status>>().await;
        drop(unread);
        answer
    });
    let server = Running::start(Transport::Unix, service.server().max_buffered_bytes(ROOM)).await;
    let (mut peers, mut sent) = (Vec::new(), 0);
    for _ in 0..5 {
        let (peer, more) = begin_messages(server.address.as_path().unwrap(), MANY_STREAMS).await;
        peers.push(peer);
        sent += more;
    }
    // Only handlers could go on, so the connections are read in turn, up to 8 MiB beyond the quarter. The
    // rest is in their sockets. All would be 19 MB.
    assert!((8 * ROOM..14 * ROOM).contains(&sent), "{sent} bytes");
    let mut small = PingServiceClient::new(server.channel().await);
    small.ping(PingRequest::ping()).await.unwrap();
}

#[tokio::test]
async fn messages_without_end_fill_a_server_though_they_are_read() {
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    let told = GoAways::default();
    let server = server.observer(told.clone());
    let server = Running::start(Transport::Unix, server.max_buffered_bytes(ROOM)).await;
    let (began, mut peers, mut sent) = (Instant::now(), Vec::new(), 0);
    for _ in 0..4 {
        let (peer, more) = begin_messages(server.address.as_path().unwrap(), MANY_STREAMS).await;
        peers.push(peer);
        sent += more;
    }
    // The first one sends all that its streams have room for. The others have what their sockets hold.
    assert!(sent < 8 * ROOM, "{sent} bytes");
    one_is_closed(peers, &server, &told, began).await;
}

#[tokio::test]
async fn who_filled_a_server_is_read_again_when_all_of_it_is_gone() {
    const MESSAGES: usize = 500;
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    type Pings = tonic::Request<Streaming<CollectRequest>>;
    let service = Scripted::default().on_collect(move |pings: Pings| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            let mut pings = pings.into_inner();
            let mut reply = CollectResponse::default();
            while let Some(ping) = pings.message().await? {
                reply.count += 1;
                reply.bytes += ping.payload.len() as u64;
            }
            Ok(Response::new(reply))
        }
    });
    let server = service.server().max_buffered_bytes(32 << 10);
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let ping = CollectRequest { payload: vec![0; 1024].into(), ..CollectRequest::default() };
    let pings = tokio_stream::iter(std::iter::repeat_n(ping, MESSAGES));
    let call = tokio::spawn(async move { client.collect(pings).await });
    // The server is full now, and the other messages wait in the socket.
    sleep(Duration::from_millis(100)).await;
    go.notify_one();
    let reply = timeout(Duration::from_secs(8), call).await.expect("it is read again");
    let reply = reply.unwrap().unwrap().into_inner();
    assert_eq!((reply.count, reply.bytes), (MESSAGES as u64, MESSAGES as u64 * 1024));
}

/// Makes unary calls with large requests at the same time on several connections, to a server with
/// room for a few.
async fn large_calls(connections: usize, calls: usize, size: usize, room: usize) {
    let service = Scripted::default().on_ping(|ping: tonic::Request<PingRequest>| async move {
        let length = ping.into_inner().payload.len() as u64;
        Ok(Response::new(PingResponse { sequence: length, ..PingResponse::default() }))
    });
    let server = Running::start(Transport::Unix, service.server().max_buffered_bytes(room)).await;
    let payload = bytes::Bytes::from(vec![7; size]);
    let mut answers = JoinSet::new();
    for _ in 0..connections {
        let channel = server.channel().await;
        for _ in 0..calls {
            let mut client = PingServiceClient::new(channel.clone());
            let request = PingRequest { payload: payload.clone(), ..PingRequest::ping() };
            answers.spawn(async move { client.ping(request).await });
        }
    }
    let mut answered = 0;
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().unwrap().into_inner().sequence, size as u64);
        answered += 1;
    }
    assert_eq!(answered, connections * calls);
}

#[tokio::test]
async fn two_hundred_large_calls_on_one_connection_are_answered() {
    large_calls(1, 200, 1_000_000, 32 << 20).await;
}

#[tokio::test]
async fn many_of_the_largest_messages_on_one_connection_are_answered() {
    // The message has a few bytes more than its payload.
    large_calls(1, 80, (4 << 20) - 64, 64 << 20).await;
}

#[tokio::test]
async fn large_calls_on_many_connections_are_answered() {
    large_calls(20, 10, 1_000_000, 32 << 20).await;
}

#[tokio::test]
async fn messages_that_end_fill_no_server_however_large_and_many() {
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    // There is room for some of the messages at a time.
    let server = Running::start(Transport::Unix, server.max_buffered_bytes(20 * ROOM)).await;
    let ping = CollectRequest { payload: vec![0; 3 << 20].into(), ..CollectRequest::default() };
    let mut calls = JoinSet::new();
    for _ in 0..12 {
        let mut client = PingServiceClient::new(server.channel().await);
        let pings = tokio_stream::iter(std::iter::repeat_n(ping.clone(), 5));
        calls.spawn(async move { client.collect(pings).await });
    }
    while let Some(reply) = calls.join_next().await {
        let reply = reply.unwrap().unwrap().into_inner();
        assert_eq!((reply.count, reply.bytes), (5, 5 * (3 << 20)));
    }
}
