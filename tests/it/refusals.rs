//! What a refused client learns: its calls are answered with the reason, and none of the server's
//! services runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Channel, Descriptors, PeerPolicy};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};

use crate::support::{
    Running, Scripted, Transport, eventually_async, on_both_transports, ping_server,
};
use crate::wire::{Peer, code, data, headers, kind, message, request};

const PING: &str = "/ping.v1.PingService/Ping";

on_both_transports!(a_connection_beyond_the_limit_is_told_so_call_by_call);

fn nobody() -> PeerPolicy {
    PeerPolicy::predicate(|_| false)
}

async fn ping(client: &mut PingServiceClient<Channel>) -> Result<(), Status> {
    client.ping(PingRequest::ping()).await.map(drop)
}

async fn a_connection_beyond_the_limit_is_told_so_call_by_call(transport: Transport) {
    let server = Running::start(transport, ping_server().max_connections(1)).await;
    let mut inside = PingServiceClient::new(server.channel().await);
    ping(&mut inside).await.unwrap();
    let mut outside = PingServiceClient::new(server.channel().await);
    for _ in 0..3 {
        let status = ping(&mut outside).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert_eq!(status.message(), "too many connections");
    }
    ping(&mut inside).await.unwrap();
}

#[tokio::test]
async fn a_refused_peers_calls_say_so_and_reach_neither_layer_nor_handler() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (by_handler, by_layer) = (Arc::clone(&seen), Arc::clone(&seen));
    let service = Scripted::default().on_ping(move |_| {
        by_handler.fetch_add(1, Ordering::SeqCst);
        async { Ok(Response::new(Default::default())) }
    });
    let layer = tower::util::MapRequestLayer::new(move |request: http::Request<_>| {
        by_layer.fetch_add(1, Ordering::SeqCst);
        request
    });
    let server = service.server().layer(layer).peer_policy(nobody());
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let status = ping(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(status.message(), "refused by the server's policy");
    // Bidirectional streaming calls get the same status.
    let status = client.converse(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refused_connection_takes_no_descriptors_and_the_client_knows() {
    let server = ping_server().descriptors(16).peer_policy(nobody());
    let server = Running::start(Transport::Unix, server).await;
    let channel = Channel::builder(&server.address).descriptors(16).connect().await.unwrap();
    let mut client = PingServiceClient::new(channel);
    let mut request = tonic::Request::new(PingRequest::ping());
    let file = std::fs::File::open("/dev/null").unwrap();
    request.extensions_mut().insert(Descriptors::from([file]));
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("with a call, 0"), "{status:?}");
    // Without descriptors the same connection answers with the reason.
    let status = ping(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
}

/// Returns a peer that the policy refuses.
async fn refused(server: &Running) -> Peer<UnixStream> {
    Peer::client(UnixStream::connect(server.address.as_path().unwrap()).await.unwrap(), &[]).await
}

#[tokio::test(start_paused = true)]
async fn sixteen_calls_are_answered_and_no_more() {
    let server = Running::start(Transport::Unix, ping_server().peer_policy(nobody())).await;
    let mut peer = refused(&server).await;
    let started = Instant::now();
    for call in 0..16 {
        let stream = 2 * call + 1;
        peer.send(&headers(stream, &request(PING), false)).await;
        peer.send(&data(stream, &message(&[]), true)).await;
        let answer = peer.until(|frame| frame.stream == stream).await;
        assert!(answer.kind == kind::HEADERS && answer.ends_stream(), "{answer:?}");
    }
    for stream in [33, 35] {
        // The server may have closed the connection.
        drop(peer.try_send(&headers(stream, &request(PING), true)).await);
    }
    let mut gone_away = false;
    while let Some(frame) = peer.next().await {
        assert_ne!(frame.kind, kind::HEADERS, "an answer too many");
        gone_away |= frame.kind == kind::GOAWAY && frame.code() == code::NO_ERROR;
    }
    assert!(gone_away);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_may_stay_for_a_second() {
    let server = Running::start(Transport::Unix, ping_server().peer_policy(nobody())).await;
    for speaks in [true, false] {
        let started = Instant::now();
        let mut peer = match speaks {
            true => refused(&server).await,
            false => {
                let path = server.address.as_path().unwrap();
                Peer::new(UnixStream::connect(path).await.unwrap())
            }
        };
        while peer.next().await.is_some() {}
        let elapsed = started.elapsed();
        assert!((1_000..1_200).contains(&elapsed.as_millis()), "{elapsed:?}");
    }
}

#[tokio::test]
async fn a_refused_peer_holds_a_permit_while_it_is_answered() {
    let open = Arc::new(AtomicBool::new(false));
    let policy = {
        let open = Arc::clone(&open);
        PeerPolicy::predicate(move |_| open.load(Ordering::SeqCst))
    };
    let server = ping_server().peer_policy(policy).max_connections(1);
    let server = Running::start(Transport::Unix, server).await;
    let _refused = refused(&server).await;
    open.store(true, Ordering::SeqCst);
    let mut client = PingServiceClient::new(server.channel().await);
    let status = ping(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let started = Instant::now();
    while ping(&mut client).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "the permit is not given back");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn refused_peers_that_stay_are_sixty_four_at_most() {
    let server = Running::start(Transport::Unix, ping_server().peer_policy(nobody())).await;
    let mut peers = Vec::new();
    for _ in 0..64 {
        peers.push(refused(&server).await);
    }
    let path = server.address.as_path().unwrap();
    let mut another = Peer::new(UnixStream::connect(path).await.unwrap());
    assert_eq!(another.until_go_away().await, code::ENHANCE_YOUR_CALM);
    assert_eq!(another.next().await, None);
}

#[tokio::test]
async fn clients_that_are_refused_without_end_leave_time_for_calls() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let others = tokio_stream::iter(std::iter::repeat_with({
        let refused = Arc::clone(&refused);
        move || {
            refused.fetch_add(1, Ordering::SeqCst);
            UnixStream::pair().map(|(ours, _)| ours)
        }
    }));
    let server = ping_server().max_connections(1);
    let incoming = tokio_stream::once(Ok(theirs)).chain(others);
    let serving = tokio::spawn(server.serve_incoming(incoming, std::future::pending()));
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    ping(&mut client).await.unwrap();
    let before = refused.load(Ordering::SeqCst);
    for _ in 0..100 {
        ping(&mut client).await.unwrap();
    }
    let refused = refused.load(Ordering::SeqCst) - before;
    // Both ends wait for the socket once in each call, and some turns write nothing.
    assert!(refused <= 100 * 4 * 8, "{refused}");
    serving.abort();
}

#[tokio::test]
async fn a_refused_peers_headers_are_bounded_too() {
    let server = ping_server().peer_policy(nobody());
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut request = tonic::Request::new(PingRequest::ping());
    request.metadata_mut().insert("long", "a".repeat(17 << 10).parse().unwrap());
    let status = client.ping(request).await.unwrap_err();
    assert_ne!(status.code(), Code::PermissionDenied, "{status:?}");
}

#[tokio::test]
async fn refused_peers_do_not_hold_up_the_end() {
    let server = Running::start(Transport::Unix, ping_server().peer_policy(nobody())).await;
    let mut peer = refused(&server).await;
    let (serving, _directory) = server.signal();
    let mut rest = Vec::new();
    peer.io.read_to_end(&mut rest).await.unwrap();
    eventually_async("the server has ended", || serving.is_finished()).await;
}
