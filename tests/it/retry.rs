//! Calls that wait for a free stream or a server, calls that are sent again, and calls that must
//! not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use samehost::ping::{PingRequest, PingResponse, PingServiceClient};
use samehost::{Channel, Conn, Listener};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Request, Response, Status};

use crate::support::{
    Running, Scripted, Transport, directory, eventually_async, on_both_transports, socket_in,
};
use crate::wire::{Peer, block, code, data, go_away, headers, kind, message, reset, settings};

on_both_transports!(
    two_thousand_calls_wait_their_turn,
    calls_that_wait_for_a_slot_wait_asleep,
    calls_survive_a_restart_or_say_that_they_did_not,
);

async fn two_thousand_calls_wait_their_turn(transport: Transport) {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let counts = (Arc::clone(&running), Arc::clone(&most));
    let service = Scripted::default().on_ping(move |_| {
        let (running, most) = counts.clone();
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(Response::new(PingResponse::default()))
        }
    });
    let server = Running::start(transport, service.server()).await;
    let channel = server.channel().await;
    let calls: Vec<_> = (0..2_000)
        .map(|_| {
            let mut client = PingServiceClient::new(channel.clone());
            tokio::spawn(async move { client.ping(PingRequest::ping()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(most.load(Ordering::SeqCst) <= 256);
}

async fn calls_that_wait_for_a_slot_wait_asleep(transport: Transport) {
    let go = Arc::new(Semaphore::new(0));
    let running = Arc::new(AtomicUsize::new(0));
    let script = (Arc::clone(&go), Arc::clone(&running));
    let service = Scripted::default().on_ping(move |_| {
        let (go, running) = script.clone();
        async move {
            running.fetch_add(1, Ordering::SeqCst);
            go.acquire().await.unwrap().forget();
            Ok(Response::new(PingResponse::default()))
        }
    });
    let server = Running::start(transport, service.server()).await;
    let channel = server.channel().await;
    let polls = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..300)
        .map(|_| {
            let (mut client, polls) = (PingServiceClient::new(channel.clone()), Arc::clone(&polls));
            tokio::spawn(async move {
                let mut call = Box::pin(client.ping(PingRequest::ping()));
                std::future::poll_fn(|cx| {
                    polls.fetch_add(1, Ordering::SeqCst);
                    call.as_mut().poll(cx)
                })
                .await
            })
        })
        .collect();
    eventually_async("all slots are taken", || running.load(Ordering::SeqCst) == 256).await;
    // One stream becomes free, and the next call starts.
    go.add_permits(1);
    eventually_async("the next one runs", || running.load(Ordering::SeqCst) == 257).await;
    let before = polls.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let polls = polls.load(Ordering::SeqCst) - before;
    assert!(polls < 100, "{polls} polls while nothing happened");
    go.add_permits(300);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// A server stops and another takes its place, repeatedly, while calls run.
async fn calls_survive_a_restart_or_say_that_they_did_not(transport: Transport) {
    let mut server = Running::ping(transport).await;
    let address = server.address.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let succeeded = Arc::new(AtomicUsize::new(0));
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = PingServiceClient::new(channel.clone());
            let (stop, succeeded) = (Arc::clone(&stop), Arc::clone(&succeeded));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let call = client.ping(PingRequest::ping());
                    match tokio::time::timeout(Duration::from_secs(20), call).await {
                        Ok(Ok(_)) => drop(succeeded.fetch_add(1, Ordering::SeqCst)),
                        Ok(Err(status)) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
                        Err(_) => panic!("a call hangs"),
                    }
                }
            })
        })
        .collect();
    let mut directories = Vec::new();
    for _ in 0..5 {
        let enough = succeeded.load(Ordering::SeqCst) + 200;
        eventually_async("calls succeed", || succeeded.load(Ordering::SeqCst) >= enough).await;
        directories.push(server.stop().await);
        server = Running::start_at(&address, Scripted::default().server()).await;
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
}

// ---- With a server whose frames the test writes --------------------------------------------

/// Returns a channel to a listener, and the connections that the listener accepts.
async fn scripted() -> (Channel, mpsc::Receiver<Conn>, tempfile::TempDir) {
    let directory = directory();
    let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
    let channel = Channel::builder(listener.local_addr()).connect_lazy();
    let (sender, conns) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok(conn) = listener.accept().await {
            if sender.send(conn).await.is_err() {
                break;
            }
        }
    });
    (channel, conns, directory)
}

type Call = tokio::task::JoinHandle<Result<Response<PingResponse>, Status>>;

fn call(channel: &Channel) -> Call {
    let mut client = PingServiceClient::new(channel.clone());
    tokio::spawn(async move { client.ping(PingRequest::ping()).await })
}

async fn request<T: AsyncRead + AsyncWrite + Unpin>(server: &mut Peer<T>) -> u32 {
    server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await.stream
}

async fn answer<T: AsyncRead + AsyncWrite + Unpin>(server: &mut Peer<T>, stream: u32) {
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    server.send(&headers(stream, &head, false)).await;
    server.send(&data(stream, &message(b""), false)).await;
    server.send(&headers(stream, &block(&[("grpc-status", "0")]), true)).await;
}

#[tokio::test]
async fn a_refused_call_is_sent_again() {
    let (channel, mut conns, _directory) = scripted().await;
    let call = call(&channel);
    let mut server = Peer::server(conns.recv().await.unwrap(), &[]).await;
    let first = request(&mut server).await;
    server.send(&reset(first, code::REFUSED_STREAM)).await;
    let second = request(&mut server).await;
    assert!(second > first);
    answer(&mut server, second).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_is_always_refused_is_given_up() {
    let (channel, mut conns, _directory) = scripted().await;
    let call = call(&channel);
    let mut server = Peer::server(conns.recv().await.unwrap(), &[]).await;
    let refusing = tokio::spawn(async move {
        let mut requests = 0;
        while let Some(frame) = server.next().await {
            if frame.kind == kind::DATA && frame.ends_stream() {
                requests += 1;
                server.send(&reset(frame.stream, code::REFUSED_STREAM)).await;
            }
        }
        requests
    });
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
    drop(channel);
    let requests = refusing.await.unwrap();
    assert!((2..=10).contains(&requests), "sent {requests} times");
}

#[tokio::test]
async fn a_call_above_the_last_stream_of_a_goaway_goes_to_a_new_connection() {
    let (channel, mut conns, _directory) = scripted().await;
    let (first, second) = (call(&channel), call(&channel));
    let mut old = Peer::server(conns.recv().await.unwrap(), &[]).await;
    request(&mut old).await;
    request(&mut old).await;
    old.send(&go_away(1, code::NO_ERROR)).await;
    let mut new = Peer::server(conns.recv().await.unwrap(), &[]).await;
    let again = request(&mut new).await;
    answer(&mut new, again).await;
    // The first call is still on the old connection.
    answer(&mut old, 1).await;
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_the_server_may_have_seen_is_not_sent_again() {
    let (channel, mut conns, _directory) = scripted().await;
    // The stream is reset with another code, the connection is closed, or it is closed after a
    // GOAWAY that includes the stream.
    for way in 0..3 {
        let call = call(&channel);
        let mut server = Peer::server(conns.recv().await.unwrap(), &[]).await;
        let stream = request(&mut server).await;
        match way {
            0 => server.send(&reset(stream, code::INTERNAL_ERROR)).await,
            1 => {}
            _ => server.send(&go_away(stream, code::NO_ERROR)).await,
        }
        server.io.shutdown().await.unwrap();
        let status = call.await.unwrap().unwrap_err();
        let expected = if way == 0 { Code::Internal } else { Code::Unavailable };
        assert_eq!(status.code(), expected, "{way}: {status:?}");
        // The channel does not connect again before the next call.
        assert!(conns.try_recv().is_err());
        while let Some(frame) = server.next().await {
            assert_ne!(frame.kind, kind::HEADERS, "sent again");
        }
    }
}

#[tokio::test]
async fn calls_wait_for_the_slots_that_a_server_gives() {
    let (channel, mut conns, _directory) = scripted().await;
    let calls = [call(&channel), call(&channel), call(&channel)];
    // SETTINGS_MAX_CONCURRENT_STREAMS may come late: calls that were sent before are refused.
    let mut server = Peer::server(conns.recv().await.unwrap(), &[]).await;
    for stream in [1, 3, 5] {
        assert_eq!(request(&mut server).await, stream);
    }
    server.send(&settings(&[(3, 1)])).await;
    server.send(&[reset(3, code::REFUSED_STREAM), reset(5, code::REFUSED_STREAM)].concat()).await;
    answer(&mut server, 1).await;
    // From now on there is one call at a time.
    for _ in 0..2 {
        let stream = request(&mut server).await;
        server.sync().await;
        answer(&mut server, stream).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_server_ends_at_the_deadline() {
    let directory = directory();
    let channel = Channel::builder(socket_in(directory.path())).wait_for_ready(true).connect_lazy();
    let started = tokio::time::Instant::now();
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(3));
    let status = PingServiceClient::new(channel).ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(started.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn a_call_that_waits_for_a_server_finds_it() {
    let directory = directory();
    let address = socket_in(directory.path());
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    let call = call(&channel);
    tokio::task::yield_now().await;
    let _server = Running::start_at(&address, Scripted::default().server()).await;
    call.await.unwrap().unwrap();
}

// ---- Shutdown ------------------------------------------------------------------------------

#[tokio::test]
async fn a_peer_without_a_preface_does_not_delay_the_shutdown() {
    let server = Running::ping(Transport::Unix).await;
    let path = server.address.as_path().unwrap().to_owned();
    let mut silent = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut half = tokio::net::UnixStream::connect(&path).await.unwrap();
    half.write_all(&crate::wire::PREFACE[..10]).await.unwrap();
    // Both are accepted already, since a later connection is served.
    PingServiceClient::new(server.channel().await).ping(PingRequest::ping()).await.unwrap();
    let stopping = server.stop();
    // The drain takes up to ten seconds, and no time if it does not wait for these two.
    tokio::time::timeout(Duration::from_secs(8), stopping).await.unwrap();
    silent.shutdown().await.unwrap();
}

/// The peer reads nothing, and its call never ends: the drain deadline ends it.
#[tokio::test]
async fn a_stuck_peer_is_cut_off_at_the_drain_deadline() {
    let server = Scripted::default().server().drain_timeout(Duration::from_millis(50));
    let server = Running::start(Transport::Unix, server).await;
    let stream = tokio::net::UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    let mut peer = Peer::client(stream, &[(4, 0x7fff_ffff)]).await;
    peer.send(&crate::wire::window_update(0, 0x7fff_0000)).await;
    peer.send(&headers(1, &crate::wire::request("/ping.v1.PingService/Watch"), false)).await;
    peer.send(&data(1, &message(b""), true)).await;
    peer.until(|frame| frame.stream == 1).await;
    tokio::time::timeout(Duration::from_secs(8), server.stop()).await.unwrap();
}
