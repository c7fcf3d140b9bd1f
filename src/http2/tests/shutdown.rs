//! RFC 9113 §6.8: the end of a connection, started by either end.

use std::time::Duration;

use http::HeaderMap;

use super::raw::*;
use super::seen::Event;
use crate::http2::connection_end::SHUTDOWN_PING;
use crate::http2::error::{Cause, ErrorCode};
use crate::http2::{NotNow, Notice};

fn shutdown_ack() -> Frame {
    frame(kind::PING, flag::ACK, 0, SHUTDOWN_PING)
}

#[test]
fn a_server_leaves_in_two_steps_and_loses_no_request_under_way() {
    let mut server = Tested::server();
    let first = server.open_request(true);
    server.connection.go_away(Notice::Short);
    server.connection.go_away(Notice::Short);
    assert_eq!(server.frames(), [go_away(0x7fff_ffff, ErrorCode::NO_ERROR), ping(SHUTDOWN_PING)]);
    // It was sent before the client knew.
    let second = server.request_on(3, true);
    server.accept(&[shutdown_ack()]);
    assert_eq!(server.frames(), [go_away(3, ErrorCode::NO_ERROR)]);
    server.resets(5, ErrorCode::REFUSED_STREAM, &[request(5, true)]);
    assert!(!server.connection.is_done());
    server.answer(first, b"a");
    server.answer(second, b"b");
    assert!(!server.connection.is_done(), "not before it is written");
    server.frames();
    assert!(server.connection.is_done());
}

#[test]
fn a_client_that_does_not_answer_the_ping_does_not_hold_up_the_end() {
    let mut server = Tested::server();
    let call = server.open_request(true);
    server.connection.go_away(Notice::Short);
    server.frames();
    let deadline = server.next_timeout().expect("a bound");
    assert_eq!(deadline - server.now, Duration::from_secs(5));
    server.now = deadline;
    server.connection.on_timeout(server.now).expect("no failure");
    assert_eq!(server.frames(), [go_away(1, ErrorCode::NO_ERROR)]);
    server.answer(call, b"a");
    server.frames();
    assert!(server.connection.is_done());
}

/// An idle client without a thread reads neither GOAWAY nor PING before its next call.
#[test]
fn an_idle_client_that_does_not_answer_the_ping_holds_up_the_end_for_a_moment() {
    let moment = Duration::from_millis(100);
    let mut server = Tested::server();
    let call = server.open_request(true);
    server.connection.go_away(Notice::Short);
    server.frames();
    server.next_timeout();
    server.pass(Duration::from_secs(1));
    server.answer(call, b"a");
    server.frames();
    let deadline = server.next_timeout().expect("a bound");
    assert_eq!(deadline - server.now, moment);
    server.pass(moment / 2);
    assert_eq!(server.next_timeout(), Some(deadline), "it is idle since then");
    assert!(!server.connection.is_done());
    // A request that came before is still taken.
    let late = server.request_on(3, true);
    server.now = deadline;
    server.connection.on_timeout(server.now).expect("no failure");
    assert_eq!(server.frames(), [go_away(3, ErrorCode::NO_ERROR)]);
    server.resets(5, ErrorCode::REFUSED_STREAM, &[request(5, true)]);
    server.answer(late, b"b");
    server.frames();
    assert!(server.connection.is_done());
}

#[test]
fn a_peer_that_never_said_hello_does_not_hold_up_the_end() {
    let mut server = Tested::greeted_server(crate::http2::Config::default());
    server.connection.go_away(Notice::Short);
    server.frames();
    assert!(server.connection.is_done());
}

#[test]
fn a_request_nobody_has_seen_is_not_seen_after_a_failure() {
    let mut server = Tested::server();
    server.open_request(false);
    server.send(&[request(3, true), data(1, "x", false), ping(*b"12345678")]).expect("so far");
    server.send(&[frame(kind::PING, 0, 0, [0; 3])]).expect_err("bad PING");
    let events = server.events();
    assert!(matches!(&events[..], [Event::Data { .. }, Event::Lost]), "{events:?}");
    assert_eq!(server.connection.active_streams(), 1);
}

#[test]
fn a_client_leaves_when_its_calls_are_over() {
    let mut client = Tested::client();
    let key = client.start_request(true);
    client.connection.go_away(Notice::Short);
    assert_eq!(client.frames(), [go_away(0, ErrorCode::NO_ERROR)]);
    let headers = HeaderMap::new();
    assert_eq!(client.connection.send_request(head(&headers), true), Err(NotNow::TakesNoRequests));
    assert!(!client.connection.is_done());
    client.accept(&[super::raw::headers(1, response_block(), true)]);
    client.connection.forget(key);
    assert!(client.connection.is_done());
}

#[test]
fn streams_above_the_last_one_were_never_processed() {
    let mut client = Tested::client();
    let keys =
        [client.start_request(true), client.start_request(false), client.start_request(true)];
    let events = client.accept(&[go_away(1, ErrorCode::ENHANCE_YOUR_CALM)]);
    let mut reset: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Reset { stream, reset } => {
                assert!(reset.never_processed);
                Some(*stream)
            }
            _ => None,
        })
        .collect();
    reset.sort_by_key(|key| key.id());
    assert_eq!(reset, keys[1..]);
    assert!(matches!(events.first(), Some(Event::GoAway { last_stream: 1, code, .. })
        if *code == ErrorCode::ENHANCE_YOUR_CALM));
    let headers = HeaderMap::new();
    assert_eq!(client.connection.send_request(head(&headers), true), Err(NotNow::TakesNoRequests));
    // The request that was accepted continues.
    let events = client.accept(&[super::raw::headers(1, response_block(), true)]);
    assert!(matches!(&events[..], [Event::Response { stream, .. }] if *stream == keys[0]));
    for key in keys {
        client.connection.forget(key);
    }
    assert!(client.frames().is_empty(), "nothing is sent on streams that the server ignores");
    assert!(client.connection.is_done());
}

#[test]
fn the_last_stream_may_come_down_in_steps_and_never_rises() {
    let mut client = Tested::client();
    client.start_request(true);
    client.start_request(true);
    let events = client.accept(&[go_away(0x7fff_ffff, ErrorCode::NO_ERROR)]);
    assert_eq!(events.len(), 1);
    let events = client.accept(&[go_away(1, ErrorCode::NO_ERROR), go_away(3, ErrorCode::NO_ERROR)]);
    assert!(matches!(&events[..], [Event::GoAway { last_stream: 1, .. }, Event::Reset { .. }]));
}

#[test]
fn closing_says_why_and_sends_what_was_ready() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.answer(key, b"done");
    let open = server.request_on(3, false);
    server.connection.close(ErrorCode::NO_ERROR, "drained");
    assert_eq!(server.connection.failure().map(|error| error.cause), Some(Cause::Local));
    let frames = server.frames();
    assert_eq!(frames.len(), 4);
    assert_eq!(frames[3].payload[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(frames[3].payload[8..], *b"drained");
    assert!(server.connection.is_done());
    server.connection.forget(open);
    assert!(server.frames().is_empty());
    assert_eq!(server.connection.active_streams(), 0);
}

#[test]
fn a_failing_server_names_the_last_stream_that_it_took() {
    let mut server = Tested::server();
    server.open_request(true);
    server.accept(&[headers(3, block(&[("a", b"b")]), true)]);
    server.frames();
    server.send(&[ping(*b"12345678"), frame(kind::PING, 0, 0, [0; 3])]).expect_err("bad PING");
    let frames = server.frames();
    assert_eq!(frames[1].payload[..4], [0, 0, 0, 1]);
}

#[test]
fn nothing_is_kept_of_a_request_that_no_handler_saw_and_that_will_not_be_complete() {
    let mut server = Tested::server();
    server.send(&[request(1, false), data(1, [0; 60], false)]).expect("a request");
    assert_eq!(server.connection.received.unread(), 60);
    server.connection.end_of_input();
    assert_eq!((server.connection.received.unread(), server.connection.buffered()), (0, 0));
    assert!(server.connection.is_done());
    assert!(!server.connection.has_announced_end(), "nothing was sent");
}
