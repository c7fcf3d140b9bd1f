//! How calls and connections end: everything that waits for them ends, too, and nothing is left.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use samehost::Address;
use samehost::ping::{
    CollectRequest, CollectResponse, PingRequest, PingResponse, PingServiceClient,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

use crate::support::{Counted, Running, Scripted, Transport, eventually_async, on_both_transports};
use crate::wire::{Peer, data, flag, headers, kind, message, request};

const PING: &str = "/ping.v1.PingService/Ping";

on_both_transports!(
    a_reader_in_another_task_ends_with_its_call,
    a_client_that_closes_cancels_its_handlers,
    a_client_that_still_sends_after_a_graceful_end_is_not_reset,
);

/// The ways in which a call can end while another task still reads its requests.
#[derive(Clone, Copy, Debug)]
enum Way {
    Status,
    Answer,
    Panic,
    Deadline,
    Cancelled,
    ConnectionLost,
}

/// Returns a service whose handlers pass their requests to another task, and end in the given way.
fn handing_over(way: Way, readers: &Arc<AtomicUsize>) -> Scripted {
    let readers = Arc::clone(readers);
    Scripted::default().on_collect(move |request| {
        let counted = Counted::new(&readers);
        let begun = Arc::new(Semaphore::new(0));
        let reading = Arc::clone(&begun);
        tokio::spawn(async move {
            let _counted = counted;
            let mut messages = request.into_inner();
            while let Some(Ok(_)) = messages.next().await {
                reading.add_permits(1);
            }
        });
        async move {
            // The task now waits for the second message.
            begun.acquire().await.unwrap().forget();
            match way {
                Way::Status => Err(Status::aborted("enough")),
                Way::Answer => Ok(Response::new(CollectResponse::default())),
                Way::Panic => panic!("the handler gives up"),
                Way::Deadline | Way::Cancelled | Way::ConnectionLost => {
                    std::future::pending().await
                }
            }
        }
    })
}

async fn a_reader_in_another_task_ends_with_its_call(transport: Transport) {
    const CALLS: usize = 20;
    let ways =
        [Way::Status, Way::Answer, Way::Panic, Way::Deadline, Way::Cancelled, Way::ConnectionLost];
    for way in ways {
        let readers = Arc::new(AtomicUsize::new(0));
        let server = Running::start(transport, handing_over(way, &readers).server()).await;
        let mut client = PingServiceClient::new(server.channel().await);
        client.ping(PingRequest::ping()).await.unwrap();
        // All tasks that last as long as the connection run from now on.
        let runtime = tokio::runtime::Handle::current().metrics();
        let before = runtime.num_alive_tasks();
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            let mut client = client.clone();
            calls.push(tokio::spawn(async move {
                let first = tokio_stream::once(CollectRequest::default());
                let mut request = Request::new(first.chain(tokio_stream::pending()));
                if matches!(way, Way::Deadline) {
                    request.set_timeout(Duration::from_millis(50));
                }
                client.collect(request).await
            }));
        }
        if matches!(way, Way::Cancelled | Way::ConnectionLost) {
            let count = || readers.load(Ordering::SeqCst) == CALLS;
            eventually_async("all calls have begun", count).await;
            calls.iter().for_each(|call| call.abort());
        }
        if !matches!(way, Way::ConnectionLost) {
            for call in calls {
                let ended = call.await;
                assert_eq!(ended.is_ok_and(|call| call.is_ok()), matches!(way, Way::Answer));
            }
        } else {
            drop(client);
        }
        let done = || readers.load(Ordering::SeqCst) == 0;
        eventually_async(&format!("no reader is left: {way:?}"), done).await;
        let done = || runtime.num_alive_tasks() <= before;
        eventually_async(&format!("no task is left: {way:?}"), done).await;
        server.stop().await;
    }
}

/// Returns a service that answers when it gets a permit, and the number of its running handlers.
fn waiting() -> (Scripted, Arc<Semaphore>, Arc<AtomicUsize>) {
    let go = Arc::new(Semaphore::new(0));
    let alive = Arc::new(AtomicUsize::new(0));
    let (permits, count) = (Arc::clone(&go), Arc::clone(&alive));
    let service = Scripted::default().on_ping(move |_| {
        let go = Arc::clone(&permits);
        let counted = Counted::new(&count);
        async move {
            let _counted = counted;
            go.acquire().await.unwrap().forget();
            let payload = vec![7; 1 << 20].into();
            Ok(Response::new(PingResponse { payload, ..PingResponse::default() }))
        }
    });
    (service, go, alive)
}

/// Sends a number of complete requests.
async fn ask<T: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<T>, calls: u32) {
    for n in 0..calls {
        let mut call = headers(2 * n + 1, &request(PING), false);
        call.extend_from_slice(&data(2 * n + 1, &message(b""), true));
        peer.send(&call).await;
    }
    peer.sync().await;
}

async fn unix_stream(address: &Address) -> UnixStream {
    UnixStream::connect(address.as_path().unwrap()).await.unwrap()
}

/// Windows that are large enough that the server never waits for them.
const WIDE: &[(u16, u32)] = &[(4, 1 << 30)];

async fn unix_peer(address: &Address) -> Peer<UnixStream> {
    let mut peer = Peer::client(unix_stream(address).await, WIDE).await;
    peer.send(&crate::wire::window_update(0, 1 << 30)).await;
    peer
}

#[tokio::test]
async fn a_client_that_has_said_all_gets_its_responses() {
    let (service, go, alive) = waiting();
    let server = Running::start(Transport::Unix, service.server()).await;
    let mut peer = unix_peer(&server.address).await;
    ask(&mut peer, 5).await;
    peer.io.shutdown().await.unwrap();
    // Once another connection is set up, the server has polled this one, too.
    unix_peer(&server.address).await;
    assert_eq!(alive.load(Ordering::SeqCst), 5);
    go.add_permits(5);
    let (mut bytes, mut ended) = (0, 0);
    while let Some(frame) = peer.next().await {
        match frame.kind {
            kind::DATA => bytes += frame.payload.len(),
            kind::HEADERS if frame.flags & flag::END_STREAM != 0 => ended += 1,
            _ => {}
        }
    }
    assert_eq!(ended, 5, "of five calls");
    assert!(bytes > 5 << 20, "{bytes} bytes");
}

/// It sends the rest of a request that was answered early, and reads its responses later.
async fn a_client_that_still_sends_after_a_graceful_end_is_not_reset(transport: Transport) {
    let server = Running::ping(transport).await;
    match transport {
        Transport::Unix => sends_on(unix_stream(&server.address).await, server).await,
        Transport::Tcp => {
            let io = TcpStream::connect(server.address.to_string()).await.unwrap();
            sends_on(io, server).await;
        }
    }
}

async fn sends_on<T: AsyncRead + AsyncWrite + Unpin>(io: T, server: Running) {
    let mut peer = Peer::client(io, WIDE).await;
    ask(&mut peer, 1).await;
    let (server, _directory) = server.signal();
    while peer.next().await.is_some() {}
    // The server has closed its own direction.
    for _ in 0..10 {
        peer.io.write_all(&[0; 1024]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(peer);
    server.await.unwrap();
}

/// Its windows cannot widen any more, so the first response waits for ever.
#[tokio::test]
async fn a_response_that_does_not_fit_holds_up_no_other_after_a_half_close() {
    let (service, go, alive) = waiting();
    let server = Running::start(Transport::Unix, service.server()).await;
    let mut peer = Peer::client(unix_stream(&server.address).await, &[]).await;
    go.add_permits(100);
    ask(&mut peer, 1).await;
    eventually_async("it is answered", || alive.load(Ordering::SeqCst) == 0).await;
    // The server has more of them than it starts in one turn when it notices the half-close.
    let streams = (1..60).map(|call| 2 * call + 1);
    let later = |n: u32| [headers(n, &request(PING), false), data(n, &message(b""), true)].concat();
    peer.send(&streams.clone().flat_map(later).collect::<Vec<_>>()).await;
    peer.io.shutdown().await.unwrap();
    let mut answered = BTreeSet::new();
    while answered.len() < streams.clone().count() {
        let frame = timeout(Duration::from_secs(10), peer.next()).await;
        let frame = frame.expect("a response to each").unwrap();
        if frame.kind == kind::HEADERS {
            answered.insert(frame.stream);
        }
    }
}

#[tokio::test]
async fn a_request_that_was_not_finished_before_the_half_close_is_cancelled() {
    let readers = Arc::new(AtomicUsize::new(0));
    let server =
        Running::start(Transport::Unix, handing_over(Way::Cancelled, &readers).server()).await;
    let mut peer = unix_peer(&server.address).await;
    let mut call = headers(1, &request("/ping.v1.PingService/Collect"), false);
    call.extend_from_slice(&data(1, &message(b""), false));
    peer.send(&call).await;
    eventually_async("the call has begun", || readers.load(Ordering::SeqCst) == 1).await;
    peer.io.shutdown().await.unwrap();
    while peer.next().await.is_some() {}
    eventually_async("its handler is gone", || readers.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_client_that_is_killed_after_its_half_close_cancels_its_handlers() {
    let (service, _go, alive) = waiting();
    let server = Running::start(Transport::Unix, service.server()).await;
    let mut peer = unix_peer(&server.address).await;
    ask(&mut peer, 5).await;
    peer.io.shutdown().await.unwrap();
    // Once another client's call has begun, the server has seen the half-close.
    let mut client = PingServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { client.ping(PingRequest::ping()).await });
    eventually_async("another call has begun", || alive.load(Ordering::SeqCst) == 6).await;
    drop(peer);
    eventually_async("the first five are cancelled", || alive.load(Ordering::SeqCst) == 1).await;
    call.abort();
}

async fn a_client_that_closes_cancels_its_handlers(transport: Transport) {
    let (service, _go, alive) = waiting();
    let server = Running::start(transport, service.server()).await;
    match transport {
        Transport::Unix => {
            let mut peer = unix_peer(&server.address).await;
            ask(&mut peer, 5).await;
        }
        Transport::Tcp => {
            let io = TcpStream::connect(server.address.to_string()).await.unwrap();
            let mut peer = Peer::client(io, WIDE).await;
            ask(&mut peer, 5).await;
            // Over TCP a half-close ends the connection.
            peer.io.shutdown().await.unwrap();
            eventually_async("cancelled", || alive.load(Ordering::SeqCst) == 0).await;
        }
    }
    eventually_async("its handlers are cancelled", || alive.load(Ordering::SeqCst) == 0).await;
}

#[test]
fn a_runtime_that_is_dropped_during_a_call_ends() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    let (client, server) = (runtime(), runtime());
    let (called, calls) = mpsc::channel();
    let service = Scripted::default().on_ping(move |_| {
        called.send(()).unwrap();
        // A runtime that shuts down drops each task that is spawned at once.
        while !tokio::spawn(std::future::pending::<()>()).is_finished() {
            std::thread::yield_now();
        }
        std::future::pending()
    });
    let serving = server.block_on(Running::start(Transport::Unix, service.server()));
    let call = client.block_on(async { PingServiceClient::new(serving.channel().await) });
    let call = client.spawn(async move { call.clone().ping(PingRequest::ping()).await });
    calls.recv().unwrap();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        drop(server);
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(60)).expect("the runtime has ended");
    assert!(client.block_on(call).unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_does_not_hold_up_the_servers_end() {
    let (release, held) = mpsc::channel::<()>();
    let (held, began) = (Mutex::new(held), Arc::new(Notify::new()));
    let begins = Arc::clone(&began);
    let service = Scripted::default().on_ping(move |_| {
        begins.notify_one();
        let _ = held.lock().unwrap().recv();
        async { Ok(Response::new(PingResponse::default())) }
    });
    let server = service.server().drain_timeout(Duration::from_millis(10));
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let call = tokio::spawn(async move { client.ping(PingRequest::ping()).await });
    began.notified().await;
    timeout(Duration::from_secs(20), server.stop()).await.expect("the server has ended");
    drop(release);
    let _ = call.await.unwrap();
}
