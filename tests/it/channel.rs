//! How a channel connects, and its errors when it cannot.

use std::future::{Future, poll_fn};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use samehost::ping::{PingRequest, PingServiceClient, WatchRequest};
use samehost::{Address, BindOptions, Channel, ConnectErrorKind, Listener};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Request, Status};

use crate::support::{Running, Scripted, Transport, directory, on_both_transports, socket_in};
use crate::wire::{Peer, block, headers, kind, window_update};

on_both_transports!(
    a_lazy_channel_connects_at_its_first_call,
    a_channel_reconnects_on_the_next_call,
    a_task_that_calls_without_end_leaves_slots_to_others,
    a_call_that_nobody_polls_holds_up_no_other
);

async fn a_lazy_channel_connects_at_its_first_call(transport: Transport) {
    let server = Running::ping(transport).await;
    let channel = Channel::builder(&server.address).connect_lazy();
    PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
}

async fn a_channel_reconnects_on_the_next_call(transport: Transport) {
    let server = Running::ping(transport).await;
    let address = server.address.clone();
    let mut client = PingServiceClient::new(server.channel().await);
    client.ping(PingRequest::ping()).await.unwrap();
    let (serving, _directory) = server.signal();
    serving.await.unwrap();

    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains(&address.to_string()), "{}", status.message());

    let listener = Listener::bind(&address).await.unwrap();
    let server = samehost::Server::new()
        .add_service(samehost::ping::PingServiceServer::new(samehost::ping::Ping::default()));
    tokio::spawn(server.serve(listener));
    client.ping(PingRequest::ping()).await.unwrap();
}

async fn a_task_that_calls_without_end_leaves_slots_to_others(transport: Transport) {
    let server = Scripted::default().server().max_concurrent_streams(1);
    let running = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(running.channel().await);
    let mut responses = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut others = JoinSet::new();
    for _ in 0..3 {
        let mut client = client.clone();
        others.spawn(async move { client.ping(PingRequest::ping()).await });
    }
    let busy = tokio::spawn(async move {
        for _ in 0..1_000 {
            responses.message().await.unwrap();
            drop(responses);
            // The slot is free, and the tasks that wait for it have not run.
            responses = client.watch(WatchRequest::default()).await.unwrap().into_inner();
        }
    });
    while let Some(other) = others.join_next().await {
        other.unwrap().unwrap();
    }
    assert!(!busy.is_finished(), "they were answered only after its calls");
    busy.abort();
}

async fn a_call_that_nobody_polls_holds_up_no_other(transport: Transport) {
    let server = Scripted::default().server().max_concurrent_streams(1);
    let running = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(running.channel().await);
    let responses = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut first = client.clone();
    let mut first = pin!(first.ping(PingRequest::ping()));
    assert!(poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await);
    let mut others = JoinSet::new();
    for _ in 0..3 {
        let mut client = client.clone();
        let mut request = Request::new(PingRequest::ping());
        request.set_timeout(Duration::from_secs(10));
        others.spawn(async move { client.ping(request).await });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    // The slot is the first call's, which its task does not poll.
    drop(responses);
    while let Some(other) = others.join_next().await {
        other.unwrap().unwrap();
    }
    first.await.unwrap();
}

/// A client's end of a connection whose server also sends WINDOW_UPDATEs, as fast as they are read.
struct Flooded {
    io: DuplexStream,
    /// How many bytes of WINDOW_UPDATEs are left.
    left: Arc<AtomicUsize>,
}

impl AsyncRead for Flooded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let update = window_update(0, 1_024);
        let left = self.left.load(Ordering::Relaxed);
        let begun = left % update.len();
        if begun == 0 && Pin::new(&mut self.io).poll_read(cx, buffer)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let count = left.min(buffer.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        let from = (update.len() - begun) % update.len();
        let updates = update.repeat(count / update.len() + 2);
        buffer.put_slice(&updates[from..][..count]);
        self.left.fetch_sub(count, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flooded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_call_that_nobody_polls_holds_up_no_other_on_a_busy_connection_either() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let (io, theirs) = tokio::io::duplex(1 << 20);
    let left = Arc::new(AtomicUsize::new(0));
    let channel = Channel::from_stream(Flooded { io, left: Arc::clone(&left) });
    let mut server = Peer::server(theirs, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
    let ping = |mut client: PingServiceClient<Channel>| async move {
        client.ping(PingRequest::ping()).await
    };
    let client = PingServiceClient::new(channel);
    let running = tokio::spawn(ping(client.clone()));
    server.until(|frame| frame.kind == kind::HEADERS).await;
    let mut first = pin!(ping(client.clone()));
    assert!(poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await);
    let other = tokio::spawn(ping(client));
    tokio::time::sleep(Duration::from_millis(20)).await;
    left.store(2_000_000 * 13, Ordering::Relaxed);
    // From now on the slot is the first call's, which its task does not poll.
    let failed = block(&[(":status", "200"), ("grpc-status", "10")]);
    server.send(&headers(1, &failed, true)).await;
    assert_eq!(running.await.unwrap().unwrap_err().code(), Code::Aborted);
    let sent = server.until(|frame| frame.kind == kind::HEADERS).await;
    assert!(left.load(Ordering::Relaxed) > 0, "it was sent only after the flood");
    server.send(&headers(sent.stream, &failed, true)).await;
    assert_eq!(other.await.unwrap().unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn a_call_on_a_lazy_channel_without_server_is_unavailable() {
    let directory = directory();
    let address = socket_in(directory.path());
    let channel = Channel::builder(&address).connect_lazy();
    let status = PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&format!("no server is listening at {address}")));
    assert!(std::error::Error::source(&status).is_some());
}

async fn refusal(address: &Address) -> String {
    Channel::connect(address).await.unwrap_err().to_string()
}

#[tokio::test]
async fn errors_name_the_address_and_the_remedy() {
    let directory = directory();
    let path = directory.path().join("x");
    let address = Address::unix(&path).unwrap();

    let error = refusal(&address).await;
    assert_eq!(
        error,
        format!(
            "no server is listening at {address}: there is no such file: \
             start the server or check the address"
        )
    );

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = refusal(&address).await;
    assert!(
        error
            .starts_with(&format!("no server is listening at {address}: the socket file is stale")),
        "{error}"
    );

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let error = refusal(&address).await;
    assert!(error.starts_with(&format!("{address}: there is a regular file")), "{error}");

    let error = refusal(&Address::unix(path.join("below")).unwrap()).await;
    assert!(error.contains("no file can have this path (Not a directory"), "{error}");
    let error = refusal(&Address::unix(path.with_file_name("n".repeat(256))).unwrap()).await;
    assert!(error.contains("no file can have this path (File name too long"), "{error}");

    let error = refusal(&"127.0.0.1:1".parse().unwrap()).await;
    assert!(error.starts_with("no server is listening at 127.0.0.1:1"), "{error}");

    let error = refusal(&"no-such-host.invalid:1".parse().unwrap()).await;
    assert!(error.contains("no-such-host.invalid:1: the host name cannot be resolved"), "{error}");

    let error = refusal(&Address::unix_abstract("samehost-nobody").unwrap()).await;
    assert!(
        error.starts_with("no server is listening at unix-abstract:samehost-nobody"),
        "{error}"
    );
}

/// `main` prints a returned error with `Debug`.
#[tokio::test]
async fn an_error_reads_the_same_by_debug_and_tells_nothing_twice() {
    let directory = directory();
    let address = socket_in(directory.path());
    let error = Channel::connect(&address).await.unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    assert_eq!((error.kind(), error.address()), (ConnectErrorKind::NoServer, Some(&address)));

    let error = Channel::connect("no-such-host.invalid:1").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::UnknownHost);
    let cause = error.io_error().unwrap().to_string();
    assert!(error.to_string().contains(&cause), "{error} has {cause}");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert!(source.is_none_or(|source| !error.to_string().contains(&source)), "{error}");
}

#[tokio::test]
async fn a_symlink_leads_to_the_server() {
    let server = Running::ping(Transport::Unix).await;
    let path = server.address.as_path().unwrap();
    let link = path.with_file_name("link");
    symlink(path, &link).unwrap();
    Channel::connect(&Address::unix(link).unwrap()).await.unwrap();
}

#[tokio::test]
async fn abstract_sockets_bind_and_connect() {
    let name = format!("samehost-test-{}", std::process::id());
    let address = Address::unix_abstract(name).unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    assert_eq!(listener.local_addr(), &address);
    let error = Listener::bind(&address).await.unwrap_err().to_string();
    assert!(error.contains("already being served"), "{error}");
    let server = samehost::Server::new()
        .peer_policy(samehost::PeerPolicy::same_user())
        .add_service(samehost::ping::PingServiceServer::new(samehost::ping::Ping::default()));
    tokio::spawn(server.serve(listener));
    let channel = Channel::connect(&address).await.unwrap();
    PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
}

/// Returns a server whose queue is full, and the connection that fills it.
async fn full() -> (Listener, UnixStream, tempfile::TempDir) {
    let directory = directory();
    let address = socket_in(directory.path());
    let listener = BindOptions::new().backlog(0).bind(&address).await.unwrap();
    // The kernel queues one more than the backlog.
    let first = UnixStream::connect(address.as_path().unwrap()).await.unwrap();
    (listener, first, directory)
}

#[tokio::test]
async fn a_full_backlog_is_tried_again_until_the_timeout() {
    let (listener, first, _directory) = full().await;
    let address = listener.local_addr();
    let timeout = Duration::from_millis(100);
    let started = Instant::now();
    let error = Channel::builder(address).connect_timeout(timeout).connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(started.elapsed() >= timeout);

    let second = tokio::spawn(Channel::builder(address).connect());
    listener.accept().await.unwrap();
    tokio::spawn(Scripted::default().server().serve(listener));
    second.await.unwrap().unwrap();
    drop(first);
}

fn call(channel: &Channel, timeout: Option<Duration>) -> JoinHandle<Result<(), Status>> {
    let mut client = PingServiceClient::new(channel.clone());
    let mut request = Request::new(PingRequest::ping());
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    tokio::spawn(async move { client.ping(request).await.map(drop) })
}

#[tokio::test(start_paused = true)]
async fn one_failure_to_connect_answers_all_calls_that_waited_for_it() {
    let (listener, _first, _directory) = full().await;
    let channel = Channel::builder(listener.local_addr()).connect_lazy();
    let started = tokio::time::Instant::now();
    // The call that started to connect gives up before the others. The attempt goes on for them.
    let impatient = call(&channel, Some(Duration::from_secs(3)));
    tokio::task::yield_now().await;
    let calls: Vec<_> = (0..20).map(|_| call(&channel, None)).collect();
    assert_eq!(impatient.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(started.elapsed().as_secs(), 3);
    for call in calls {
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("within 20s"), "{status:?}");
        assert!(std::error::Error::source(&status).is_some());
    }
    assert_eq!(started.elapsed().as_secs(), 20, "the connect timeout");
    // The next call tries again.
    call(&channel, None).await.unwrap().unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn nobody_connects_for_calls_that_have_given_up() {
    let (listener, _first, _directory) = full().await;
    let channel = Channel::builder(listener.local_addr()).connect_lazy();
    let calls: Vec<_> = (0..5).map(|_| call(&channel, Some(Duration::from_secs(1)))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
    listener.accept().await.unwrap();
    let another = tokio::time::timeout(Duration::from_secs(3_600), listener.accept()).await;
    another.unwrap_err();
}

/// With a backlog of one, most clients wait, and all are served in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_get_through_a_backlog_of_one() {
    let directory = directory();
    let address = socket_in(directory.path());
    let listener = BindOptions::new().backlog(1).bind(&address).await.unwrap();
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let builder = Channel::builder(&address).connect_timeout(Duration::from_secs(60));
            tokio::spawn(async move {
                let channel = builder.connect().await.unwrap();
                PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
            })
        })
        .collect();
    tokio::spawn(Scripted::default().server().serve(listener));
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn the_backlog_bounds_the_queue_of_tcp_too() {
    let listener = BindOptions::new().backlog(0).bind("127.0.0.1:0").await.unwrap();
    let _first = TcpStream::connect(listener.local_addr().to_string()).await.unwrap();
    let second =
        Channel::builder(listener.local_addr()).connect_timeout(Duration::from_millis(100));
    let error = second.connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::TimedOut, "{error}");
}

#[tokio::test]
async fn a_server_that_speaks_no_http2_is_named() {
    use tokio::io::AsyncWriteExt;
    let directory = directory();
    let address = socket_in(directory.path());
    let listener = tokio::net::UnixListener::bind(address.as_path().unwrap()).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP ready\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let channel = Channel::builder(&address).connect_lazy();
    let call = PingServiceClient::new(channel).ping(PingRequest::ping()).await;
    let status = call.unwrap_err();
    assert!(status.message().contains("does not speak HTTP/2"), "{status:?}");
    assert!(status.message().contains(&address.to_string()), "{status:?}");
}

#[tokio::test]
async fn paths_longer_than_a_socket_address_work() {
    let directory = directory();
    let mut long = directory.path().to_owned();
    while long.as_os_str().len() < 300 {
        long.push("a-directory-with-a-long-name");
    }
    std::fs::create_dir_all(&long).unwrap();
    for name in ["x".to_owned(), "n".repeat(255)] {
        let address = Address::unix(long.join(name)).unwrap();
        let listener = Listener::bind(&address).await.unwrap();
        let mode = std::fs::metadata(address.as_path().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        tokio::spawn(Scripted::default().server().serve(listener));
        Channel::connect(&address).await.unwrap();
    }
}
