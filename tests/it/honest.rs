//! Clients that behave like real ones under load: none may meet a limit.

use samehost::Server;
use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer, WatchRequest};
use tokio::io::DuplexStream;

use crate::support::{Running, Transport, on_both_transports};
use crate::wire::{
    Frame, PREFACE, Peer, code, data, flag, frame, headers, kind, message, request, reset,
    settings, window_update,
};

on_both_transports!(
    thousands_of_cancelled_calls_are_no_offence,
    calls_that_wait_for_handlers_hold_up_no_other_call,
);

const PING: &str = "/ping.v1.PingService/Ping";
const WATCH: &str = "/ping.v1.PingService/Watch";

fn served() -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    tokio::spawn(server.serve_connection(theirs));
    ours
}

/// Returns a unary request.
fn ping(stream: u32) -> Vec<u8> {
    [headers(stream, &request(PING), false), data(stream, &message(b""), true)].concat()
}

/// Returns the next frame, which must not be GOAWAY.
async fn next(peer: &mut Peer<DuplexStream>) -> Frame {
    let frame = peer.next().await.expect("closed");
    assert_ne!(frame.kind, kind::GOAWAY, "error code {}", frame.code());
    frame
}

/// grpc-go measures the bandwidth by a PING for each answer, and sends many small window updates.
#[tokio::test]
async fn a_ping_and_window_updates_with_every_call_are_no_offence() {
    let mut peer = Peer::client(served(), &[]).await;
    for call in 0..10_000u32 {
        let stream = 2 * call + 1;
        let mut bytes = ping(stream);
        bytes.extend(frame(kind::PING, 0, 0, b"bdp ping"));
        bytes.extend(window_update(0, 11));
        peer.send(&bytes).await;
        loop {
            let frame = next(&mut peer).await;
            if frame.stream == stream && frame.ends_stream() {
                break;
            }
        }
    }
}

/// A client does not know the limit before it has read the server's SETTINGS. Calls beyond the
/// limit are refused, and the others are answered.
#[tokio::test]
async fn a_burst_before_the_settings_are_read_is_no_offence() {
    let mut peer = Peer::new(served());
    let mut bytes = [PREFACE, &settings(&[])].concat();
    for call in 0..4_000 {
        bytes.extend(headers(2 * call + 1, &request(WATCH), false));
    }
    peer.send(&bytes).await;
    let mut refused = 0;
    while refused < 4_000 - 256 {
        let frame = next(&mut peer).await;
        if frame.kind == kind::RST_STREAM {
            assert_eq!(frame.code(), code::REFUSED_STREAM);
            refused += 1;
        }
    }
    peer.send(&frame(kind::SETTINGS, flag::ACK, 0, &[])).await;
    for call in 0..256 {
        peer.send(&data(2 * call + 1, &message(b"\x08\x01"), true)).await;
    }
    let mut ended = 0;
    while ended < 256 {
        ended += u32::from(next(&mut peer).await.ends_stream());
    }
}

/// Calls whose response has begun are cancelled, as by a deadline or by a user.
#[tokio::test]
async fn cancels_of_calls_that_had_begun_are_no_offence() {
    let mut peer = Peer::client(served(), &[]).await;
    peer.send(&window_update(0, 1 << 20)).await;
    for call in 0..10_000u32 {
        let stream = 2 * call + 1;
        peer.send(&headers(stream, &request(WATCH), false)).await;
        peer.send(&data(stream, &message(b"\x08\x00\x12\x03\x08\x90\x1c"), true)).await;
        loop {
            let frame = next(&mut peer).await;
            if frame.stream == stream && frame.kind == kind::DATA {
                break;
            }
        }
        peer.send(&reset(stream, code::CANCEL)).await;
    }
    peer.sync().await;
}

/// Callers of our own channel cancel their calls at once.
async fn thousands_of_cancelled_calls_are_no_offence(transport: Transport) {
    let server = Running::ping(transport).await;
    let channel = server.channel().await;
    for _ in 0..3_000 {
        let mut client = PingServiceClient::new(channel.clone());
        let mut call = Box::pin(client.ping(PingRequest::ping()));
        std::future::poll_fn(|cx| {
            let _ = call.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        drop(call);
        let mut client = PingServiceClient::new(channel.clone());
        client.ping(PingRequest::ping()).await.unwrap();
    }
}

/// One call has the only permit, and goes on as its client reads. The others wait for the permit with
/// their requests, which are more than the memory limit.
async fn calls_that_wait_for_handlers_hold_up_no_other_call(transport: Transport) {
    let service = PingServiceServer::new(Ping::default());
    let server = Server::new().concurrency_limit(1).max_buffered_bytes(1 << 20);
    let server = Running::start(transport, server.add_service(service)).await;
    let mut watcher = PingServiceClient::new(server.channel().await);
    let payload = bytes::Bytes::from(vec![1; 60_000]);
    let request = WatchRequest { count: 200, payload: payload.clone(), interval: None };
    let mut responses = watcher.watch(request).await.unwrap().into_inner();
    let client = PingServiceClient::new(server.channel().await);
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let request = PingRequest { payload: payload.clone(), ..PingRequest::ping() };
            let mut client = client.clone();
            tokio::spawn(async move { client.ping(request).await.map(drop) })
        })
        .collect();
    // They arrive before the rest is read.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let mut count = 0;
    while responses.message().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 200);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}
