//! Hostile and faulty servers with our channel: every call must end with a fitting error, and the
//! channel must not buffer what no call has asked for.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use samehost::ping::{ConverseRequest, PingRequest, PingResponse, PingServiceClient, WatchRequest};
use samehost::{Channel, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tonic::body::Body;
use tonic::{Code, Request, Status};

use crate::support::{directory, socket_in};
use crate::wire::{
    Peer, block, code, data, flag, frame, go_away, headers, kind, literal, message, reset,
    settings, window_update,
};

/// A call in flight, and the server's end of its connection.
type Call = JoinHandle<Result<PingResponse, Status>>;

fn call(channel: Channel) -> Call {
    call_with(channel, 0)
}

/// Calls with a payload of so many bytes.
fn call_with(channel: Channel, payload: usize) -> Call {
    let request = PingRequest { payload: vec![7; payload].into(), ..PingRequest::ping() };
    tokio::spawn(async move {
        let call = async { PingServiceClient::new(channel).ping(request).await };
        // No test may depend on this limit.
        let result = tokio::time::timeout(Duration::from_secs(3_600), call).await;
        result.expect("a call that never ends").map(tonic::Response::into_inner)
    })
}

/// Returns a server that has received a ping on stream 1.
async fn called() -> (Peer<DuplexStream>, Call) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let call = call(Channel::from_stream(ours));
    let mut server = Peer::server(theirs, &[]).await;
    server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
    (server, call)
}

fn head() -> Vec<u8> {
    block(&[(":status", "200"), ("content-type", "application/grpc")])
}

fn trailers() -> Vec<u8> {
    block(&[("grpc-status", "0")])
}

/// A whole response on stream 1.
fn answer() -> Vec<u8> {
    [headers(1, &head(), false), data(1, &pong(), false), headers(1, &trailers(), true)].concat()
}

fn pong() -> Vec<u8> {
    // This is a PingResponse, whose field 1 is `string message`.
    message(b"\x0a\x04pong")
}

/// Sends `bytes` as the server's answer and closes the connection. Returns the call's result.
async fn answered(bytes: &[u8]) -> Result<PingResponse, Status> {
    let (mut server, call) = called().await;
    server.send(bytes).await;
    let _ = server.io.shutdown().await;
    call.await.unwrap()
}

async fn fails(bytes: &[u8]) -> Code {
    answered(bytes).await.unwrap_err().code()
}

#[tokio::test]
async fn a_proper_answer_is_taken() {
    assert_eq!(answered(&answer()).await.unwrap().message, "pong");
}

/// It was stopped with its container, for example. What a call may wait for is its deadline's.
#[tokio::test(start_paused = true)]
async fn a_server_may_stop_reading_or_within_a_frame_and_go_on_later() {
    const STOPPED: Duration = Duration::from_secs(1_000);
    let (ours, theirs) = tokio::io::duplex(4 * 1024);
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    let large = PingRequest { payload: vec![7; 60_000].into(), ..PingRequest::ping() };
    let call = tokio::spawn(async move { client.ping(large).await });
    let mut server = Peer::server(theirs, &[]).await;
    server.until(|frame| frame.kind == kind::HEADERS).await;
    tokio::time::sleep(STOPPED).await;
    server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
    for part in answer().chunks(7) {
        server.send(part).await;
        tokio::time::sleep(STOPPED).await;
    }
    assert_eq!(call.await.unwrap().unwrap().into_inner().message, "pong");
}

#[tokio::test]
async fn garbage_is_no_http2() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 1_000], b"\0", &[0; 100_000]]
    {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let call = call(Channel::from_stream(ours));
        theirs.write_all(garbage).await.unwrap();
        theirs.shutdown().await.unwrap();
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_begins_is_given_up_after_the_connect_timeout() {
    let directory = directory();
    let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
    let started = tokio::time::Instant::now();
    let call = call(Channel::builder(listener.local_addr()).connect_lazy());
    let mut conn = listener.accept().await.unwrap();
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("has sent no SETTINGS within 20s"), "{status:?}");
    assert_eq!(started.elapsed().as_secs(), 20);
    let mut all = Vec::new();
    conn.read_to_end(&mut all).await.unwrap();
}

#[tokio::test]
async fn goaways_without_end_do_not_cost_the_call_that_is_in_flight() {
    for code in [code::NO_ERROR, code::ENHANCE_YOUR_CALM] {
        let (mut server, call) = called().await;
        server.send(&go_away(1, code).repeat(100)).await;
        server.send(&answer()).await;
        assert_eq!(call.await.unwrap().unwrap().message, "pong");
    }
}

/// The server sends GOAWAY on every connection at once. The call must not be sent again without
/// end.
#[tokio::test]
async fn a_server_that_sends_everyone_away_gets_few_connections() {
    let directory = directory();
    let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
    let address = listener.local_addr().clone();
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let conn = listener.accept().await.unwrap();
            seen.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut server = Peer::server(conn, &[]).await;
                let _ = server.try_send(&go_away(0, code::NO_ERROR)).await;
                while server.next().await.is_some() {}
            });
        }
    });
    let channel = Channel::builder(&address).connect_lazy();
    let status = call(channel).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("the server went away before"), "{status:?}");
    let connections = connections.load(Ordering::Relaxed);
    assert!((2..=30).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn goaway_with_an_error_is_reported_with_it() {
    assert_eq!(fails(&go_away(0, code::ENHANCE_YOUR_CALM)).await, Code::Unavailable);
    let mut explained = go_away(1, code::ENHANCE_YOUR_CALM);
    explained[2] += 14;
    explained.extend_from_slice(b"too_many_pings");
    let status = answered(&explained).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("too_many_pings"), "{status:?}");
}

/// The second call is sent again on another connection, and no server may process it twice.
#[tokio::test]
async fn what_a_broken_connection_has_not_written_it_does_not_write_any_more() {
    let (connected, mut connections) = mpsc::unbounded_channel();
    let channel = Channel::from_connector(move || {
        let (ours, theirs) = tokio::io::duplex(4 * 1024);
        connected.send(theirs).unwrap();
        ready(Ok::<_, std::io::Error>(ours))
    });
    let first = call_with(channel.clone(), 60_000);
    let mut server = Peer::server(connections.recv().await.unwrap(), &[]).await;
    let begun = server.until(|frame| frame.kind == kind::HEADERS).await;
    // Its message does not fit into the stream, so that of the other call waits.
    let second = call(channel);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    server.send(&frame(kind::PING, 0, 0, &[0; 3])).await;
    let mut rest = Vec::new();
    while let Some(frame) = server.next().await {
        rest.push((frame.kind, frame.stream));
    }
    assert_eq!(first.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(rest.iter().all(|(_, stream)| [0, begun.stream].contains(stream)), "{rest:?}");
    assert_eq!(rest.last(), Some(&(kind::GOAWAY, 0)));
    let mut server = Peer::server(connections.recv().await.unwrap(), &[]).await;
    server.until(|frame| frame.kind == kind::DATA && frame.ends_stream()).await;
    server.send(&answer()).await;
    assert_eq!(second.await.unwrap().unwrap().message, "pong");
}

#[tokio::test]
async fn a_header_bomb_in_the_response_does_not_go_off() {
    let mut charge = head();
    literal(0x40, "x", &"y".repeat(4_000), &mut charge);
    let mut bomb = trailers();
    bomb.resize(16_000, 0x80 | 62);
    let answer = [headers(1, &charge, false), data(1, &pong(), false), headers(1, &bomb, true)];
    let status = answered(&answer.concat()).await.unwrap_err();
    assert!(matches!(status.code(), Code::Internal | Code::ResourceExhausted), "{status:?}");
}

#[tokio::test]
async fn a_response_that_ends_early_is_an_error() {
    // The responses have no status, no message, or neither.
    assert_ne!(fails(&headers(1, &head(), true)).await, Code::Ok);
    let no_status = [headers(1, &head(), false), data(1, &pong(), true)];
    assert_ne!(fails(&no_status.concat()).await, Code::Ok);
    let no_message = [headers(1, &head(), false), headers(1, &trailers(), true)];
    assert_eq!(fails(&no_message.concat()).await, Code::Unimplemented);
}

#[tokio::test]
async fn data_before_the_head_is_an_error() {
    assert_eq!(fails(&data(1, &pong(), true)).await, Code::Internal);
}

#[tokio::test]
async fn informational_responses_are_passed_over_but_not_without_end() {
    let early = headers(1, &block(&[(":status", "103"), ("link", "</x>")]), false);
    assert_eq!(answered(&[early.repeat(3), answer()].concat()).await.unwrap().message, "pong");

    let (server, call) = called().await;
    assert_eq!(server.flood(1_000_000, |_| early.clone()).await, Some(code::ENHANCE_YOUR_CALM));
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn floods_of_a_server_are_stopped() {
    for flood in [
        frame(kind::PING, 0, 0, b"a flood.").repeat(100),
        settings(&[(4, 65_535)]).repeat(10),
        frame(kind::PRIORITY, 0, 1, &[0; 5]).repeat(100),
        frame(77, 0, 0, b"unknown").repeat(100),
        window_update(0, 1).repeat(100),
        [headers(1, &head(), false), data(1, &[], false).repeat(20_000)].concat(),
    ] {
        let (server, call) = called().await;
        // The head may only come once.
        let (first, flood) =
            if flood[3] == kind::HEADERS { (flood, Vec::new()) } else { (Vec::new(), flood) };
        let mut server = server;
        let _ = server.try_send(&first).await;
        let end = server.flood(20_000, |_| flood.clone()).await;
        assert_eq!(end, Some(code::ENHANCE_YOUR_CALM));
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn a_reset_after_the_head_has_its_code() {
    for (sent, expected) in [
        (code::CANCEL, Code::Cancelled),
        (code::INTERNAL_ERROR, Code::Internal),
        (code::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
        (code::NO_ERROR, Code::Internal),
        (0xdead, Code::Unknown),
    ] {
        let answer = [headers(1, &head(), false), data(1, &pong()[..3], false), reset(1, sent)];
        assert_eq!(fails(&answer.concat()).await, expected, "{sent}");
    }
}

/// The task that sends the requests is aborted then. The reason stays the server's.
#[tokio::test]
async fn a_stream_that_ends_while_requests_are_to_come_has_its_reason() {
    for (end, expected) in [
        (reset(1, code::ENHANCE_YOUR_CALM), Code::ResourceExhausted),
        (reset(1, code::REFUSED_STREAM), Code::Unavailable),
        (Vec::new(), Code::Unavailable),
    ] {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut client = PingServiceClient::new(Channel::from_stream(ours));
        let call = tokio::spawn(async move {
            let request = ConverseRequest { message: "ping".to_owned(), ..Default::default() };
            let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
            let mut responses = client.converse(requests).await?.into_inner();
            while responses.message().await?.is_some() {}
            Ok::<_, Status>(())
        });
        let mut server = Peer::server(theirs, &[]).await;
        server.until(|frame| frame.kind == kind::DATA).await;
        let answer = [headers(1, &head(), false), data(1, &pong(), false), end].concat();
        server.send(&answer).await;
        let _ = server.io.shutdown().await;
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), expected, "{status:?}");
    }
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection() {
    for (what, answer) in [
        ("a frame of 16 MiB", vec![0xff, 0xff, 0xff, kind::DATA, 0, 0, 0, 0, 1]),
        ("PUSH_PROMISE", frame(5, flag::END_HEADERS, 1, &[&[0, 0, 0, 2], &head()[..]].concat())),
        ("a stream that was never opened", headers(3, &head(), true)),
        ("a stream of the server's", headers(2, &head(), true)),
        ("a header block that is none", headers(1, &[0xff; 20], true)),
        ("an interrupted block", [frame(1, 0, 1, &head()), frame(6, 0, 0, &[0; 8])].concat()),
        ("window overflow", window_update(0, 0x7fff_ffff)),
        ("SETTINGS_ENABLE_PUSH 1", settings(&[(2, 1)])),
    ] {
        let (mut server, call) = called().await;
        server.send(&answer).await;
        assert_ne!(server.until_go_away().await, code::NO_ERROR, "{what}");
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable, "{what}");
    }
}

#[tokio::test]
async fn a_connection_cut_in_mid_message_is_unavailable() {
    let whole = [headers(1, &head(), false), data(1, &pong(), false)].concat();
    for cut in 1..=whole.len() {
        let status = answered(&whole[..cut]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "cut at {cut}: {status:?}");
    }
}

/// A server can make a client buffer at most the stream's window if the caller does not read.
/// A body is polled until it returns `None`, also after an error.
#[tokio::test]
async fn a_body_that_was_cut_in_mid_message_fails_once() {
    let unfinished = data(1, &pong()[..3], false);
    for last in [vec![], data(1, b"", true), headers(1, &trailers(), true)] {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut channel = Channel::from_stream(ours);
        let request = http::Request::post("/ping.v1.PingService/Ping").body(Body::empty()).unwrap();
        let call = tokio::spawn(tower::Service::call(&mut channel, request));
        let mut server = Peer::server(theirs, &[]).await;
        server.until(|frame| frame.ends_stream()).await;
        server.send(&[headers(1, &head(), false), unfinished.clone(), last].concat()).await;
        let _ = server.io.shutdown().await;
        let mut body = call.await.unwrap().unwrap().into_body();
        let mut errors = 0;
        for _ in 0..5 {
            errors += usize::from(body.frame().await.is_some_and(|frame| frame.is_err()));
        }
        assert_eq!(errors, 1);
    }
}

#[tokio::test]
async fn a_server_cannot_send_beyond_what_the_caller_reads() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    let watch = tokio::spawn(async move { client.watch(WatchRequest::default()).await });
    let mut server = Peer::server(theirs, &[]).await;
    server.send(&headers(1, &head(), false)).await;
    let _unread = watch.await.unwrap().unwrap();
    for len in [16_384, 16_384, 16_384, 16_383] {
        server.send(&data(1, &vec![0; len], false)).await;
    }
    server.sync().await;
    server.send(&data(1, &[0], false)).await;
    let answer = server.until(|frame| frame.kind == kind::RST_STREAM).await;
    assert_eq!((answer.stream, answer.code()), (1, code::FLOW_CONTROL_ERROR));
}

/// A server without a gRPC status answers by an HTTP status.
#[tokio::test]
async fn statuses_of_http_become_codes_of_grpc() {
    for (status, expected) in [
        ("400", Code::Internal),
        ("401", Code::Unauthenticated),
        ("403", Code::PermissionDenied),
        ("404", Code::Unimplemented),
        ("415", Code::Unknown),
        ("429", Code::Unavailable),
        ("502", Code::Unavailable),
        ("503", Code::Unavailable),
        ("504", Code::Unavailable),
        ("200", Code::Unknown),
    ] {
        let head = block(&[(":status", status), ("content-type", "text/html")]);
        let whole = fails(&headers(1, &head, true)).await;
        assert_eq!(whole, expected, "{status}");
        let with_body = [headers(1, &head, false), data(1, b"<html>", true)].concat();
        assert_eq!(fails(&with_body).await, expected, "{status} with a body");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_waited_for_until_the_deadline() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let channel = Channel::from_stream(ours);
    let started = tokio::time::Instant::now();
    let call = tokio::spawn(async move {
        let mut request = Request::new(PingRequest::ping());
        request.set_timeout(Duration::from_secs(7));
        PingServiceClient::new(channel).ping(request).await
    });
    let mut server = Peer::server(theirs, &[]).await;
    let cancelled = server.until(|frame| frame.kind == kind::RST_STREAM).await;
    assert_eq!((cancelled.stream, cancelled.code()), (1, code::CANCEL));
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(started.elapsed().as_secs(), 7);
}

/// The call has ended, so no deadline would end the wait. The server sends `last` and reads nothing more.
async fn the_last_bytes_do_not_wait_for_ever(last: &[u8], drops_channel: bool) {
    let (ours, theirs) = tokio::io::duplex(4 * 1024);
    let mut channel = Some(Channel::from_stream(ours));
    let call = call_with(channel.clone().unwrap(), 60_000);
    let mut server = Peer::server(theirs, &[]).await;
    server.until(|frame| frame.kind == kind::HEADERS).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    if drops_channel {
        channel = None;
    }
    server.send(last).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    // What was in the stream by then can still be read.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(1), server.io.read_to_end(&mut rest));
    ended.await.expect("the connection's end").unwrap();
    assert!(rest.len() <= 4 * 1024, "{}", rest.len());
    drop(channel);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_does_not_wait_for_a_server_that_reads_nothing() {
    the_last_bytes_do_not_wait_for_ever(&[], true).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_failed_does_not_wait_for_a_server_that_reads_nothing() {
    the_last_bytes_do_not_wait_for_ever(&frame(kind::PING, 0, 0, &[0; 3]), false).await;
}
