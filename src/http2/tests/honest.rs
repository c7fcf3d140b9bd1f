//! Peers that keep the rules and make many calls: none of them meets a limit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::raw::*;
use super::seen::Event;
use crate::http2::error::ErrorCode;
use crate::http2::{Config, budget};

/// Bytes that a peer sends repeatedly, with its stream's number put in.
struct Script(Vec<Frame>);

impl Script {
    fn send(&mut self, server: &mut Tested, id: u32) {
        for frame in &mut self.0 {
            if frame.stream != 0 {
                frame.stream = id;
            }
        }
        server.send(&self.0).expect("an honest peer");
    }
}

/// Answers every request.
fn serve(server: &mut Tested) -> u32 {
    let mut calls = 0;
    for event in server.events() {
        if let Event::Data { stream, end: true, .. } = event {
            server.answer(stream, b"reply");
            calls += 1;
        }
    }
    let outgoing = server.connection.outgoing_len();
    server.connection.advance(outgoing);
    calls
}

#[test]
fn a_million_calls_each_with_a_ping_and_window_updates_as_grpc_go_sends_them() {
    let mut server = Tested::server();
    // No time passes, so only the calls themselves earn budget.
    let mut script = Script(vec![
        request(1, false),
        data(1, "hello", true),
        ping([2, 4, 16, 16, 9, 14, 7, 7]),
        window_update(1, 5),
        window_update(0, 5),
    ]);
    let mut updates = Script(vec![window_update(0, 5)]);
    for n in 0..1_000_000u32 {
        script.send(&mut server, 2 * n + 1);
        assert_eq!(serve(&mut server), 1);
        updates.send(&mut server, 0);
    }
    assert_eq!(server.connection.active_streams(), 0);
    assert!(server.connection.budget.left() > budget::CAPACITY - 100);
}

#[test]
fn a_million_small_messages_on_one_stream_each_with_two_window_updates() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
    let mut script =
        Script(vec![data(1, "12345678", false), window_update(1, 8), window_update(0, 8)]);
    for _ in 0..1_000_000 {
        script.send(&mut server, 1);
        for event in server.events() {
            if let Event::Data { stream, bytes, .. } = event {
                server.connection.send_data(stream, bytes, false);
            }
        }
        let outgoing = server.connection.outgoing_len();
        server.connection.advance(outgoing);
    }
}

#[test]
fn a_thousand_requests_at_once_before_the_settings_are_known() {
    let mut server = Tested::greeted_server(Config::default());
    let mut frames = vec![settings(&[])];
    frames.extend((0..1_000).map(|n| request(2 * n + 1, false)));
    frames.extend((0..1_000).map(|n| data(2 * n + 1, "x", true)));
    let events = server.accept(&frames);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Request { .. })).count(), 256);
    let refused = server.frames();
    assert_eq!(refused.iter().filter(|frame| frame.kind == kind::RST_STREAM).count(), 1_000 - 256);
    assert!(refused.contains(&rst(1_999, ErrorCode::REFUSED_STREAM)));
    assert_eq!(server.connection.budget.left(), budget::CAPACITY);
    server.accept(&[settings_ack()]);
}

#[test]
fn ten_thousand_calls_cancelled_after_their_first_message() {
    let mut server = Tested::server();
    for n in 0..10_000 {
        let key = server.request_on(2 * n + 1, true);
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
        server.connection.send_data(key, Bytes::from_static(b"first"), false);
        server.frames();
        let events = server.accept(&[rst(2 * n + 1, ErrorCode::CANCEL)]);
        assert!(matches!(&events[..], [Event::Stopped { .. }]));
        server.connection.forget(key);
    }
}

#[test]
fn thousands_of_calls_that_time_out_before_an_answer() {
    let mut server = Tested::server();
    for n in 0..20_000 {
        // This is a thousand a second.
        server.pass(Duration::from_millis(1));
        let key = server.request_on(2 * n + 1, true);
        server.accept(&[rst(2 * n + 1, ErrorCode::CANCEL)]);
        server.connection.forget(key);
    }
    // And a hundred thousand at once.
    for n in 20_000..120_000 {
        let key = server.request_on(2 * n + 1, true);
        server.accept(&[rst(2 * n + 1, ErrorCode::CANCEL)]);
        server.connection.forget(key);
    }
    assert_eq!(server.connection.budget.left(), budget::CAPACITY);
}

#[test]
fn early_answers_by_the_thousand_cost_nothing() {
    let mut server = Tested::server();
    for n in 0..10_000 {
        let key = server.request_on(2 * n + 1, false);
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), true);
        server.connection.forget(key);
        let frames = server.frames();
        assert_eq!(frames[1], rst(2 * n + 1, ErrorCode::NO_ERROR));
        server.accept(&[data(2 * n + 1, "late", true)]);
    }
    assert_eq!(server.connection.budget.left(), budget::CAPACITY);
}

#[test]
fn a_hundred_thousand_calls_given_up_by_the_client_just_before_their_answer() {
    let mut client = Tested::client();
    for n in 0..100_000 {
        let key = client.start_request(true);
        client.connection.forget(key);
        let id = 2 * n + 1;
        let events = client.accept(&[
            headers(id, block(&[(":status", b"103")]), false),
            headers(id, response_block(), false),
            data(id, "late", false),
            headers(id, trailers_block(), true),
        ]);
        assert!(events.is_empty());
    }
    assert_eq!(client.connection.budget.left(), budget::CAPACITY);
}

#[test]
fn messages_of_calls_that_were_given_up_cost_nothing_though_no_call_is_left() {
    let mut client = Tested::client();
    let keys: Vec<_> = (0..20).map(|_| client.start_request(true)).collect();
    keys.iter().for_each(|key| client.connection.forget(*key));
    assert_eq!(client.frames().len(), 20);
    // The driver sleeps, and the server has encoded these messages before it reads that.
    client.connection.trim();
    for key in &keys {
        let id = key.id();
        client.accept(&[headers(id, response_block(), false)]);
        for _ in 0..1_000 {
            client.accept(&[data(id, "small", false)]);
        }
    }
    assert_eq!(client.connection.closed.remembered(), 0);
    // Each head costs one unit. So does what is beyond the windows that the server had: 7 of these frames.
    for _ in 0..80 {
        client.accept(&[data(1, [7; 16_384], false)]);
    }
    assert_eq!(client.connection.budget.left(), budget::CAPACITY - 20 - 7);
}

#[test]
fn gibibytes_pass_through_windows_of_a_mebibyte() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let mut frame = BytesMut::new();
    data(1, [7; 16_384], false).write(&mut frame);
    let frame = frame.freeze();
    for _ in 0..65_536 {
        let mut input = BytesMut::from(&frame[..]);
        server.connection.receive(&mut input, server.now).expect("an honest peer");
        for event in server.events() {
            if let Event::Data { stream, .. } = event {
                assert_eq!(stream, key);
            }
        }
        let outgoing = server.connection.outgoing_len();
        server.connection.advance(outgoing);
    }
}
