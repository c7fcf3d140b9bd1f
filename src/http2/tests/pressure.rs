//! The window that a connection gives its peer while memory is short.

use std::time::Duration;

use super::raw::*;
use super::wire;
use crate::http2::{Config, ErrorCode, Read, StreamKey};

/// Returns a server with this many requests. Of each, 60 bytes have come and 40 may follow.
fn server_with(requests: u32) -> (Tested, Vec<StreamKey>) {
    let config = Config { stream_window: 100, max_stream_window: 1_000, ..Config::default() };
    let mut server = Tested::server_with(config);
    let keys: Vec<_> = (0..requests).map(|n| server.request_on(2 * n + 1, false)).collect();
    for key in &keys {
        server.send(&[data(key.id(), [0; 60], false)]).expect("within the window");
    }
    server.frames();
    (server, keys)
}

/// Returns which streams got window since the last call, and how much.
fn granted(server: &mut Tested) -> Vec<(u32, u32)> {
    let frames = server.frames();
    let updates = frames.iter().filter(|it| it.kind == kind::WINDOW_UPDATE && it.stream > 0);
    let increment = |frame: &Frame| u32::from_be_bytes(frame.payload[..].try_into().unwrap());
    updates.map(|frame| (frame.stream, increment(frame))).collect()
}

fn read(server: &mut Tested, key: StreamKey) {
    assert!(matches!(server.connection.read(key), Read::Data(_)));
}

#[test]
fn under_pressure_requests_get_window_one_by_one_the_oldest_first() {
    let (mut server, keys) = server_with(4);
    server.connection.set_pressed(true, false);
    for key in keys.iter().rev() {
        read(&mut server, *key);
    }
    assert_eq!(granted(&mut server), [(1, 60)], "and its window does not grow");
    // It continues, and the others wait until it has arrived.
    server.send(&[data(1, [0; 100], false)]).expect("within the window");
    read(&mut server, keys[0]);
    assert_eq!(granted(&mut server), [(1, 100)]);
    server.send(&[data(1, [0; 10], true)]).expect("the end");
    server.connection.set_pressed(true, false);
    assert_eq!(granted(&mut server), [(3, 60)]);
    // A reset makes room for the next one, too.
    server.send(&[rst(3, ErrorCode::CANCEL)]).expect("a reset");
    server.connection.set_pressed(true, false);
    assert_eq!(granted(&mut server), [(5, 60)]);
    // Its peer does not continue.
    server.connection.give_to_another();
    assert_eq!(granted(&mut server), [(7, 60)]);
}

#[test]
fn far_beyond_the_limit_no_request_follows_while_the_peer_sends_something() {
    let (mut server, keys) = server_with(3);
    server.connection.set_pressed(true, false);
    for key in &keys {
        read(&mut server, *key);
    }
    assert_eq!(granted(&mut server), [(1, 60)]);
    server.send(&[data(1, [0; 10], true)]).expect("the end");
    server.connection.set_pressed(true, true);
    assert_eq!(granted(&mut server), []);
    // Nothing comes any more.
    server.connection.give_to_another();
    assert_eq!(granted(&mut server), [(3, 60)]);
    server.send(&[data(3, [0; 10], true)]).expect("the end");
    server.connection.set_pressed(true, true);
    assert_eq!(granted(&mut server), []);
    server.connection.set_pressed(true, false);
    assert_eq!(granted(&mut server), [(5, 60)]);
}

#[test]
fn what_was_held_back_is_given_when_there_is_room_again() {
    let (mut server, keys) = server_with(3);
    server.connection.set_pressed(true, false);
    for key in &keys {
        read(&mut server, *key);
    }
    granted(&mut server);
    server.connection.set_pressed(false, false);
    assert_eq!(granted(&mut server), [(3, 60), (5, 60)]);
    server.connection.set_pressed(false, false);
    assert_eq!(granted(&mut server), []);
}

#[test]
fn padding_brings_no_window_back_under_pressure() {
    let (mut server, keys) = server_with(2);
    server.connection.set_pressed(true, false);
    for key in &keys {
        read(&mut server, *key);
    }
    assert_eq!(granted(&mut server), [(1, 60)]);
    let padded = frame(kind::DATA, flag::PADDED, 3, [[9].as_slice(), &[0; 9]].concat());
    server.send(std::slice::from_ref(&padded)).expect("within the window");
    assert_eq!(granted(&mut server), []);
    server.connection.set_pressed(false, false);
    assert_eq!(granted(&mut server), [(3, 70)]);
    server.send(&[padded.clone(), padded]).expect("within the window");
    assert_eq!(granted(&mut server), [], "it is not half of the window");
}

#[test]
fn a_request_that_waits_for_its_handler_does_not_wait_for_its_peer() {
    let (mut server, keys) = server_with(1);
    assert!(!server.connection.waits_for_peer(), "nobody has read it");
    read(&mut server, keys[0]);
    assert!(server.connection.waits_for_peer(), "the rest of it has to come");
    server.send(&[data(1, [0; 10], true)]).expect("the end");
    granted(&mut server);
    assert!(!server.connection.waits_for_peer());
}

#[test]
fn no_time_passes_for_a_peer_that_is_not_read() {
    let (mut server, _) = server_with(1);
    server.bytes(&wire::data(1, &[0; 10], false)[..5]).expect("part of a frame");
    let due = server.next_timeout().expect("it has to end");
    for _ in 0..100 {
        server.now += Duration::from_secs(1);
        server.connection.stand_still(server.now);
        server.connection.on_timeout(server.now).expect("nothing is due");
    }
    // The first call notes that it begins.
    assert_eq!(server.next_timeout(), Some(due + Duration::from_secs(99)));
    server.connection.go_on();
    server.now += Duration::from_secs(100);
    server.connection.on_timeout(server.now).expect_err("it is read, and nothing comes");
}

#[test]
fn a_handshake_that_is_not_read_lasts_on() {
    let mut server = Tested::greeted_server(Config::default());
    let due = server.next_timeout().expect("it has to end");
    server.connection.stand_still(server.now);
    server.now = due;
    server.connection.stand_still(server.now);
    server.connection.on_timeout(server.now).expect("what was sent was not read");
    server.connection.go_on();
    server.now = server.next_timeout().expect("it has to end");
    server.connection.on_timeout(server.now).expect_err("it has not ended");
}
