//! When a channel is ready, and what it waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use samehost::ping::{PingRequest, PingResponse, PingServiceClient};
use samehost::{
    Address, Channel, ChannelState, ConnectErrorKind, Listener, PeerIdentity, WaitForReady,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Response, Status};

use crate::support::{
    Running, Scripted, Transport, directory, eventually_async, on_both_transports, socket_in,
};
use crate::wire::{Peer, code, flag, frame, go_away, kind, settings};

on_both_transports!(
    a_channel_says_what_it_is_doing,
    a_call_waits_for_a_server_that_sends_everyone_away,
    a_call_waits_while_servers_end_without_having_processed_it,
    a_call_waits_for_a_server_that_closes_at_once,
    calls_that_wait_share_one_backoff,
    a_response_says_who_the_server_is,
    a_request_names_the_program,
    a_channel_of_a_connector_connects_again,
);

const TRANSPORTS: [Transport; 2] = [Transport::Unix, Transport::Tcp];

pub(crate) async fn bind(transport: Transport) -> (Listener, tempfile::TempDir) {
    let directory = directory();
    let address = match transport {
        Transport::Unix => socket_in(directory.path()),
        Transport::Tcp => "127.0.0.1:0".parse().unwrap(),
    };
    (Listener::bind(&address).await.unwrap(), directory)
}

pub(crate) async fn ping(
    channel: &Channel,
    deadline: Option<Duration>,
) -> Result<PingResponse, Status> {
    let mut request = Request::new(PingRequest::ping());
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    PingServiceClient::new(channel.clone()).ping(request).await.map(Response::into_inner)
}

/// Returns a server whose responses have this text.
pub(crate) fn named(name: &'static str) -> samehost::Server {
    let service = Scripted::default().on_ping(move |_| async move {
        Ok(Response::new(PingResponse { message: name.to_owned(), ..PingResponse::default() }))
    });
    service.server()
}

// ---- Ready ---------------------------------------------------------------------------------

/// Starts a server that listens at once and serves after six seconds.
async fn late(transport: Transport) -> (Address, tempfile::TempDir) {
    let (listener, directory) = bind(transport).await;
    let address = listener.local_addr().clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(6)).await;
        named("late").serve(listener).await
    });
    (address, directory)
}

#[tokio::test(start_paused = true)]
async fn a_server_may_take_its_time_to_begin() {
    for transport in TRANSPORTS {
        let (address, _directory) = late(transport).await;
        let started = Instant::now();
        let channel = Channel::builder(&address).connect_lazy();
        let answer = ping(&channel, Some(Duration::from_secs(30))).await.unwrap();
        assert_eq!(answer.message, "late");
        assert_eq!(started.elapsed().as_secs(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn the_connect_timeout_bounds_the_wait_for_settings() {
    for transport in TRANSPORTS {
        let (address, _directory) = late(transport).await;
        let started = Instant::now();
        let builder = Channel::builder(&address).connect_timeout(Duration::from_secs(3));
        let error = builder.clone().connect().await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains("has sent no SETTINGS within 3s"), "{error}");
        assert_eq!(started.elapsed().as_secs(), 3);
        // The handshake timeout does not limit a call that waits for a server.
        let channel = builder.wait_for_ready(true).connect_lazy();
        ping(&channel, Some(Duration::from_secs(30))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_given_stream_has_as_long_as_the_deadline() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let channel = Channel::from_stream(ours);
    assert_eq!(channel.state(), ChannelState::Connecting);
    let status = ping(&channel, Some(Duration::from_secs(3))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    tokio::spawn(async move {
        sleep(Duration::from_secs(7)).await;
        named("late").serve_connection(theirs).await
    });
    ping(&channel, Some(Duration::from_secs(30))).await.unwrap();
    assert_eq!(channel.state(), ChannelState::Ready);
}

/// A server may have read any request that was sent, so the client sends none before the server's
/// SETTINGS.
#[tokio::test]
async fn no_request_is_sent_before_the_servers_settings() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let channel = Channel::from_stream(ours);
    let call = tokio::spawn(async move { ping(&channel, None).await });
    let mut server = Peer::new(theirs);
    let mut preface = [0; 24];
    tokio::io::AsyncReadExt::read_exact(&mut server.io, &mut preface).await.unwrap();
    // The client sends SETTINGS and the connection's window, and nothing else.
    assert_eq!(server.next().await.unwrap().kind, kind::SETTINGS);
    assert_eq!(server.next().await.unwrap().kind, kind::WINDOW_UPDATE);
    let more = timeout(Duration::from_millis(50), server.next()).await;
    assert!(more.is_err(), "{:?}", more.map(|frame| frame.unwrap().kind));
    server.send(&settings(&[])).await;
    server.until(|frame| frame.kind == kind::HEADERS).await;
    call.abort();
}

async fn a_channel_says_what_it_is_doing(transport: Transport) {
    let server = Running::start(transport, named("a")).await;
    let address = server.address.clone();
    let channel = Channel::builder(&address).connect_lazy();
    assert_eq!(channel.state(), ChannelState::Idle);
    let changed = channel.state_changed();
    ping(&channel, None).await.unwrap();
    assert_eq!(changed.await, ChannelState::Ready);

    let changed = channel.state_changed();
    let _directory = server.stop().await;
    assert_eq!(changed.await, ChannelState::Idle);
    let changed = channel.state_changed();
    ping(&channel, None).await.unwrap_err();
    assert_eq!(changed.await, ChannelState::TransientFailure);

    let _server = Running::start_at(&address, named("b")).await;
    ping(&channel, None).await.unwrap();
    assert_eq!(channel.state(), ChannelState::Ready);
    assert_eq!(channel.state().to_string(), "READY");
}

#[tokio::test]
async fn a_given_stream_that_has_ended_shuts_the_channel_down() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let channel = Channel::from_stream(ours);
    let changed = channel.state_changed();
    let server = Peer::server(theirs, &[]).await;
    assert_eq!(changed.await, ChannelState::Ready);
    let changed = channel.state_changed();
    drop(server);
    assert_eq!(changed.await, ChannelState::Shutdown);
    let status = ping(&channel, None).await.unwrap_err();
    assert!(status.message().contains("has ended"), "{status:?}");
}

// ---- Waiting for a server ------------------------------------------------------------------

/// Accepts `bad` connections and handles them by `refuse`, and serves the later ones.
pub(crate) async fn bad_then_good<F>(
    transport: Transport,
    bad: usize,
    refuse: impl Fn(samehost::Conn) -> F + Send + Sync + 'static,
) -> (Address, tempfile::TempDir)
where
    F: Future<Output = ()> + Send,
{
    let (listener, directory) = bind(transport).await;
    let address = listener.local_addr().clone();
    tokio::spawn(async move {
        for _ in 0..bad {
            refuse(listener.accept().await.unwrap()).await;
        }
        named("good").serve(listener).await
    });
    (address, directory)
}

async fn a_call_waits_for_a_server_that_closes_at_once(transport: Transport) {
    let (address, _directory) =
        bad_then_good(transport, 20, |conn| async move { drop(conn) }).await;
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    assert_eq!(ping(&channel, None).await.unwrap().message, "good");
}

async fn a_call_waits_for_a_server_that_sends_everyone_away(transport: Transport) {
    let (address, _directory) = bad_then_good(transport, 20, |mut conn| async move {
        let goodbye = [settings(&[]), go_away(0, code::NO_ERROR)].concat();
        conn.write_all(&goodbye).await.unwrap();
        // The client closes the connection.
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut conn, &mut rest).await;
    })
    .await;
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    assert_eq!(ping(&channel, None).await.unwrap().message, "good");
}

/// A server says of the call on each of its first eight connections that it has not processed it.
async fn a_call_waits_while_servers_end_without_having_processed_it(transport: Transport) {
    let (address, _directory) = bad_then_good(transport, 8, |conn| async move {
        let mut server = Peer::server(conn, &[]).await;
        server.until(|frame| frame.kind == kind::HEADERS).await;
        server.send(&go_away(0, code::NO_ERROR)).await;
        while server.next().await.is_some() {}
    })
    .await;
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    assert_eq!(ping(&channel, None).await.unwrap().message, "good");
}

/// The server is replaced before it has sent anything.
#[tokio::test]
async fn a_call_waits_for_the_successor_of_a_server_that_never_spoke() {
    let (listener, directory) = bind(Transport::Unix).await;
    let address = listener.local_addr().clone();
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    let call = tokio::spawn(async move { ping(&channel, None).await });
    let conn = listener.accept().await.unwrap();
    drop((listener, conn));
    let _server = Running::start_at(&address, named("successor")).await;
    assert_eq!(call.await.unwrap().unwrap().message, "successor");
    drop(directory);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_is_not_waited_for() {
    let directory = directory();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (http1, _http1_directory) = bind(Transport::Unix).await;
    let http1_address = http1.local_addr().clone();
    tokio::spawn(async move {
        let mut conn = http1.accept().await.unwrap();
        let _ = conn.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        sleep(Duration::from_secs(3_600)).await;
    });
    let started = Instant::now();
    for (address, kind) in [
        (Address::unix(directory.path()).unwrap(), ConnectErrorKind::NotASocket),
        (Address::unix(&file).unwrap(), ConnectErrorKind::NotASocket),
        (Address::unix(file.join("below")).unwrap(), ConnectErrorKind::InvalidPath),
        (
            Address::unix(file.with_file_name("n".repeat(256))).unwrap(),
            ConnectErrorKind::InvalidPath,
        ),
        (http1_address, ConnectErrorKind::NotHttp2),
    ] {
        let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
        let status = ping(&channel, Some(Duration::from_secs(30))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let source = std::error::Error::source(&status).unwrap();
        let source = source.downcast_ref::<samehost::ConnectError>().unwrap();
        assert_eq!(source.kind(), kind, "{source}");
        assert!(source.kind().is_permanent());
        assert!(status.message().contains(&address.to_string()), "{status:?}");
    }
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/no/where", &link).unwrap();
    let status = ping(&Channel::builder(link).connect_lazy(), None).await.unwrap_err();
    assert!(
        status.message().contains(": it is a link to /no/where, which is not there"),
        "{status:?}"
    );
    let invalid = Channel::builder("/run/app.sock").wait_for_ready(true).connect_lazy();
    let status = ping(&invalid, None).await.unwrap_err();
    assert!(status.message().contains("write unix:/run/app.sock"), "{status:?}");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_that_ends_a_wait_says_what_was_waited_for() {
    let directory = directory();
    let path = socket_in(directory.path());
    let none = format!("no server is listening at {path}: there is no such file");
    a_wait_is_ended_by_its_deadline(path, &none).await;
    // The port was the test's own and is closed now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let none = format!("no server is listening at {port}: start the server");
    a_wait_is_ended_by_its_deadline(port.into(), &none).await;
}

async fn a_wait_is_ended_by_its_deadline(address: Address, expected: &str) {
    let channel = Channel::builder(&address).connect_lazy();
    let started = Instant::now();
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(3));
    request.extensions_mut().insert(WaitForReady(true));
    let status = PingServiceClient::new(channel.clone()).ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(started.elapsed().as_secs(), 3);
    assert!(status.message().starts_with(expected), "{status:?}");
    assert!(status.message().ends_with(", waited 3 s"), "{status:?}");
    // The option of one call does not hold for another.
    let status = ping(&channel, Some(Duration::from_secs(3))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");

    let impatient = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    let mut request = Request::new(PingRequest::ping());
    request.extensions_mut().insert(WaitForReady(false));
    let status = PingServiceClient::new(impatient).ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

async fn calls_that_wait_share_one_backoff(transport: Transport) {
    let started = Instant::now();
    let (listener, _directory) = bind(transport).await;
    let channel = Channel::builder(listener.local_addr()).wait_for_ready(true).connect_lazy();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok(conn) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            drop(conn);
        }
    });
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { ping(&channel, Some(Duration::from_secs(3))).await })
        })
        .collect();
    for call in calls {
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        // Or it took one a moment ago, and has not closed it yet.
        let told = ["closed the connection", "took the connection"];
        assert!(told.iter().any(|text| status.message().contains(text)), "{status:?}");
    }
    // The channel connects at once, after 5, 10, ... 640 ms and then each second, each time up to a fifth
    // earlier or later, with three connections each time. No timer fires early, so there are no more
    // than this, however slow the machine is. If each of the hundred calls had its own backoff, there
    // would be more than a thousand.
    let mut most = 3;
    let mut left = started.elapsed();
    let mut wait = Duration::from_millis(5);
    while let Some(rest) = left.checked_sub(wait.mul_f64(0.8)) {
        most += 3;
        left = rest;
        wait = (2 * wait).min(Duration::from_secs(1));
    }
    let connections = connections.load(Ordering::Relaxed);
    assert!((1..=most).contains(&connections), "{connections} connections, at most {most}");
}

// ---- The server, metadata and time limits of a channel -----------------------------------------

async fn a_response_says_who_the_server_is(transport: Transport) {
    let server = Running::ping(transport).await;
    let channel = Channel::connect(&server.address).await.unwrap();
    let response = PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
    let server = response.extensions().get::<PeerIdentity>();
    let named = server.map(|server| (server.pid(), server.uid()));
    let this = (Some(std::process::id()), rustix::process::geteuid().as_raw());
    // TCP does not tell.
    assert_eq!(named, matches!(transport, Transport::Unix).then_some(this));
}

async fn a_request_names_the_program(transport: Transport) {
    let (sender, mut seen) = mpsc::channel(1);
    let service = Scripted::default().on_ping(move |request| {
        let sender = sender.clone();
        async move {
            sender.send(request.metadata().clone()).await.unwrap();
            Ok(Response::new(PingResponse::default()))
        }
    });
    let server = Running::start(transport, service.server()).await;
    let builder = Channel::builder(&server.address).user_agent("app/1.0").unwrap();
    let channel = builder.timeout(Duration::from_secs(60)).connect().await.unwrap();
    ping(&channel, None).await.unwrap();
    let metadata = seen.recv().await.unwrap();
    let agent = metadata.get("user-agent").unwrap().to_str().unwrap();
    assert!(agent.starts_with("app/1.0 grpc-rust-samehost/"), "{agent}");
    assert_eq!(metadata.get("grpc-timeout").unwrap(), "60000000u");
    // A call's own deadline replaces the channel's.
    ping(&channel, Some(Duration::from_secs(120))).await.unwrap();
    assert_ne!(seen.recv().await.unwrap().get("grpc-timeout").unwrap(), "60000000u");
    Channel::builder(&server.address).user_agent("a\nb").unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_channels_timeout_is_the_deadline_of_calls_without_one() {
    let never = Scripted::default().on_ping(|_| std::future::pending());
    for transport in TRANSPORTS {
        let server = Running::start(transport, never.clone().server()).await;
        let builder = Channel::builder(&server.address).timeout(Duration::from_secs(4));
        let channel = builder.connect_lazy();
        for (own, expected) in [(None, 4), (Some(2), 2), (Some(9), 9)] {
            let started = Instant::now();
            let status = ping(&channel, own.map(Duration::from_secs)).await.unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
            assert_eq!(started.elapsed().as_secs(), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_calls_is_closed_after_the_idle_timeout() {
    for transport in TRANSPORTS {
        let server = Running::ping(transport).await;
        let builder = Channel::builder(&server.address).idle_timeout(Duration::from_secs(60));
        let channel = builder.connect().await.unwrap();
        for _ in 0..3 {
            sleep(Duration::from_secs(40)).await;
            assert_eq!(channel.state(), ChannelState::Ready);
            ping(&channel, None).await.unwrap();
        }
        let changed = channel.state_changed();
        let started = Instant::now();
        assert_eq!(changed.await, ChannelState::Idle);
        assert_eq!(started.elapsed().as_secs(), 60);
        ping(&channel, None).await.unwrap();
        assert_eq!(channel.state(), ChannelState::Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_a_call_waits_for_a_slot_is_not_idle() {
    for transport in TRANSPORTS {
        let (listener, _directory) = bind(transport).await;
        let builder = Channel::builder(listener.local_addr()).idle_timeout(Duration::from_secs(60));
        let channel = builder.connect_lazy();
        let caller = channel.clone();
        let call = tokio::spawn(async move { ping(&caller, None).await });
        // The server takes no calls for now (SETTINGS_MAX_CONCURRENT_STREAMS).
        let mut server = Peer::server(listener.accept().await.unwrap(), &[(3, 0)]).await;
        sleep(Duration::from_secs(600)).await;
        server.sync().await;
        assert_eq!(channel.state(), ChannelState::Ready);
        let gave_up = Instant::now();
        call.abort();
        let end = timeout(Duration::from_secs(600), server.until_go_away()).await;
        assert_eq!(end.expect("an idle connection ends"), code::NO_ERROR);
        assert_eq!(gave_up.elapsed().as_secs(), 60);
    }
}

async fn a_channel_of_a_connector_connects_again(transport: Transport) {
    let server = Running::start(transport, named("a")).await;
    let address = server.address.clone();
    let (opened, to) = (Arc::new(AtomicUsize::new(0)), address.clone());
    let count = Arc::clone(&opened);
    let channel = Channel::from_connector(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let to = to.clone();
        async move {
            let stream: Box<dyn Duplex> = match to.as_path() {
                Some(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
                None => Box::new(tokio::net::TcpStream::connect(to.to_string()).await?),
            };
            Ok::<_, std::io::Error>(stream)
        }
    });
    ping(&channel, None).await.unwrap();
    ping(&channel, None).await.unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    let changed = channel.state_changed();
    let _directory = server.stop().await;
    assert_eq!(changed.await, ChannelState::Idle);
    let status = ping(&channel, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().starts_with("the connector failed: "), "{status:?}");
    let _server = Running::start_at(&address, named("b")).await;
    assert_eq!(ping(&channel, None).await.unwrap().message, "b");
}

trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// gRFC A8 requires this.
#[tokio::test(start_paused = true)]
async fn too_many_pings_are_half_as_many_on_the_next_connection() {
    for transport in TRANSPORTS {
        let (listener, _directory) = bind(transport).await;
        let channel = Channel::builder(listener.local_addr())
            .keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .connect_lazy();
        for interval in [10, 20, 40] {
            let call = tokio::spawn({
                let channel = channel.clone();
                async move { ping(&channel, None).await }
            });
            let mut server = Peer::server(listener.accept().await.unwrap(), &[]).await;
            server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
            let started = Instant::now();
            server.until(|frame| frame.kind == kind::PING).await;
            assert_eq!(started.elapsed().as_secs(), interval);
            let payload = [&[0, 0, 0, 1, 0, 0, 0, 11][..], b"too_many_pings"].concat();
            server.send(&frame(kind::GOAWAY, 0, 0, &payload)).await;
            let _ = server.io.shutdown().await;
            let status = call.await.unwrap().unwrap_err();
            assert!(status.message().contains("too_many_pings"), "{status:?}");
        }
        // A call that is answered resets this.
        let call = tokio::spawn({
            let channel = channel.clone();
            async move { ping(&channel, Some(Duration::from_secs(200))).await }
        });
        let mut server = Peer::server(listener.accept().await.unwrap(), &[]).await;
        let ping = server.until(|frame| frame.kind == kind::PING).await;
        server.send(&frame(kind::PING, flag::ACK, 0, &ping.payload)).await;
        server.until(|frame| frame.kind == kind::PING).await;
        call.abort();
    }
}

#[tokio::test]
async fn a_call_that_fails_to_find_its_server_reads_well_in_the_log() {
    let directory = directory();
    let address = socket_in(directory.path());
    let channel = Channel::builder(&address).connect_lazy();
    let status = ping(&channel, None).await.unwrap_err();
    let source = std::error::Error::source(&status).unwrap();
    assert_eq!(status.message(), source.to_string());
    assert!(source.source().is_none(), "it would tell the same again");
    eventually_async("nothing is left of it", || channel.state() == ChannelState::TransientFailure)
        .await;
}
