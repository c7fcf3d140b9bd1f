//! Deadlines.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::raw::*;
use crate::http2::error::{Cause, ErrorCode};
use crate::http2::{Config, KeepAlive, NotNow, Notice};

const SECOND: Duration = Duration::from_secs(1);

/// Returns how long it is until the next deadline.
fn left(tested: &mut Tested) -> Option<Duration> {
    tested.next_timeout().map(|at| at - tested.now)
}

#[track_caller]
fn expires(tested: &mut Tested, after: Duration, code: ErrorCode) {
    assert_eq!(left(tested), Some(after));
    tested.pass(after - Duration::from_millis(1));
    tested.connection.on_timeout(tested.now).expect("not yet");
    tested.pass(Duration::from_millis(1));
    let error = tested.connection.on_timeout(tested.now).expect_err("now");
    assert_eq!((error.code, error.cause), (code, Cause::Timeout));
    assert_eq!(tested.connection.failure(), Some(error));
    assert!(tested.connection.has_outgoing());
}

#[test]
fn a_quiet_connection_has_no_deadline() {
    let mut server = Tested::server();
    assert_eq!(left(&mut server), None);
    let key = server.open_request(false);
    assert_eq!(left(&mut server), None, "a call may take as long as it likes");
    server.answer(key, b"x");
    server.frames();
    assert_eq!(left(&mut server), None);
}

#[test]
fn the_handshake_has_to_end_in_time() {
    let now = std::time::Instant::now();
    for frames in [&[][..], &[settings(&[])], &[settings(&[]), request(1, true)]] {
        let mut server = Tested::greeted_server(Config::default());
        server.accept(frames);
        server.frames();
        expires(&mut server, 5 * SECOND, ErrorCode::SETTINGS_TIMEOUT);
    }
    let mut connection = crate::http2::Connection::client(Config::default(), now);
    drain(&mut connection);
    let mut client = Tested { connection, now, input: Default::default() };
    expires(&mut client, 5 * SECOND, ErrorCode::SETTINGS_TIMEOUT);
}

#[test]
fn a_frame_has_to_end_in_time_however_its_bytes_drip() {
    let mut server = Tested::server();
    server.bytes(&[0, 0, 8]).expect("a beginning");
    for _ in 0..9 {
        server.pass(SECOND);
        server.bytes(&[6]).ok();
        server.connection.on_timeout(server.now).expect("not yet");
    }
    expires(&mut server, SECOND, ErrorCode::ENHANCE_YOUR_CALM);
}

#[test]
fn one_frame_behind_another_has_its_own_time() {
    let mut server = Tested::server();
    let mut bytes = bytes::BytesMut::new();
    ping(*b"12345678").write(&mut bytes);
    for _ in 0..10 {
        server.bytes(&bytes[..10]).expect("half a frame");
        server.pass(9 * SECOND);
        server.connection.on_timeout(server.now).expect("in time");
        server.bytes(&bytes[10..]).expect("the other half");
        server.frames();
        assert_eq!(left(&mut server), None);
    }
}

#[test]
fn a_header_block_has_to_end_in_time_however_many_frames_come() {
    let mut server = Tested::server();
    server.accept(&[frame(kind::HEADERS, 0, 1, [])]);
    for _ in 0..9 {
        server.pass(SECOND);
        server.accept(&[frame(kind::CONTINUATION, 0, 1, [])]);
        server.connection.on_timeout(server.now).expect("not yet");
    }
    expires(&mut server, SECOND, ErrorCode::ENHANCE_YOUR_CALM);
}

#[test]
fn a_peer_that_does_not_read_is_left() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.answer(key, &[1; 1_000]);
    assert_eq!(left(&mut server), Some(30 * SECOND));
    server.pass(29 * SECOND);
    // After a little progress, the time begins again.
    server.connection.advance(1);
    assert_eq!(left(&mut server), Some(30 * SECOND));
    // Other traffic is not progress.
    server.pass(10 * SECOND);
    server.accept(&[ping(*b"12345678")]);
    server.now -= 10 * SECOND;
    expires(&mut server, 30 * SECOND, ErrorCode::ENHANCE_YOUR_CALM);
}

#[test]
fn a_slow_reader_is_not_left_but_one_that_hoards_is() {
    for (len, patient) in [(1 << 20, true), (65 << 20, false)] {
        let mut server = Tested::server();
        let key = server.open_request(true);
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
        server.connection.send_data(key, Bytes::from(vec![0; len]), true);
        server.frames();
        if patient {
            assert_eq!(left(&mut server), None);
            continue;
        }
        assert_eq!(left(&mut server), Some(30 * SECOND));
        server.pass(20 * SECOND);
        server.accept(&[window_update(0, 10), window_update(1, 10)]);
        server.frames();
        expires(&mut server, 30 * SECOND, ErrorCode::ENHANCE_YOUR_CALM);
    }
}

#[test]
fn keep_alive_asks_a_silent_peer_and_leaves_a_dead_one() {
    let keep_alive = KeepAlive { interval: 20 * SECOND, timeout: 3 * SECOND, when_idle: true };
    let config = Config { keep_alive: Some(keep_alive), ..Config::default() };
    let mut client = Tested::client_with(config, &[]);
    assert_eq!(left(&mut client), Some(20 * SECOND));
    client.pass(15 * SECOND);
    client.accept(&[window_update(0, 5_000)]);
    assert_eq!(left(&mut client), Some(20 * SECOND));
    client.pass(20 * SECOND);
    client.connection.on_timeout(client.now).expect("a question");
    let question = client.frames();
    assert_eq!(question.len(), 1);
    assert_eq!(left(&mut client), Some(3 * SECOND));
    client.pass(2 * SECOND);
    client.accept(&[frame(kind::PING, flag::ACK, 0, &question[0].payload)]);
    assert_eq!(left(&mut client), Some(20 * SECOND));
    client.pass(20 * SECOND);
    client.connection.on_timeout(client.now).expect("a question");
    client.frames();
    expires(&mut client, 3 * SECOND, ErrorCode::NO_ERROR);
}

#[test]
fn keep_alive_may_rest_while_no_call_is_open() {
    let keep_alive = KeepAlive { interval: 20 * SECOND, timeout: 3 * SECOND, when_idle: false };
    let config = Config { keep_alive: Some(keep_alive), ..Config::default() };
    let mut client = Tested::client_with(config, &[]);
    assert_eq!(left(&mut client), None);
    client.start_request(true);
    assert_eq!(left(&mut client), Some(20 * SECOND));
}

#[test]
fn a_connection_has_a_second_for_its_first_call_however_short_its_idle_timeout() {
    let config = Config { idle_timeout: Some(Duration::from_nanos(1)), ..Config::default() };
    let mut client = Tested::client_with(config, &[]);
    assert_eq!(left(&mut client), Some(SECOND));
    let call = client.start_request(true);
    assert_eq!(left(&mut client), None);
    client.connection.forget(call);
    client.frames();
    assert_eq!(left(&mut client), Some(Duration::from_nanos(1)));
}

#[test]
fn a_connection_without_calls_ends_after_its_idle_timeout() {
    let config = Config { idle_timeout: Some(60 * SECOND), ..Config::default() };
    let mut server = Tested::server_with(config);
    assert_eq!(left(&mut server), Some(60 * SECOND));
    server.pass(50 * SECOND);
    let key = server.open_request(true);
    assert_eq!(left(&mut server), None, "a call may take as long as it likes");
    server.pass(100 * SECOND);
    server.answer(key, b"x");
    server.frames();
    assert_eq!(left(&mut server), Some(60 * SECOND));

    // A call that came and ended between two checks counts. A PING does not.
    server.pass(30 * SECOND);
    let key = server.request_on(3, true);
    server.answer(key, b"x");
    server.frames();
    assert_eq!(left(&mut server), Some(60 * SECOND));
    server.pass(59 * SECOND);
    server.accept(&[frame(kind::PING, 0, 0, b"are you ")]);
    server.frames();
    assert_eq!(left(&mut server), Some(SECOND));
    server.pass(SECOND);
    server.connection.on_timeout(server.now).expect("a friendly end");
    let frames = server.frames();
    assert_eq!(frames[0].kind, kind::GOAWAY);
    assert_eq!(server.connection.failure(), None);

    // The client need not hurry.
    server.connection.on_timeout(server.now).expect("once is enough");
    assert!(server.frames().is_empty());
}

/// A client that is slow to see the announcement may be sending its next request, unless the server is
/// to end, too.
#[test]
fn a_connection_that_was_idle_is_not_in_a_hurry_to_end() {
    for shuts_down in [false, true] {
        let config = Config { idle_timeout: Some(60 * SECOND), ..Config::default() };
        let mut server = Tested::server_with(config);
        assert_eq!(left(&mut server), Some(60 * SECOND));
        server.pass(60 * SECOND);
        server.connection.on_timeout(server.now).expect("a friendly end");
        if shuts_down {
            server.connection.go_away(Notice::Short);
        }
        server.frames();
        let expected = if shuts_down { Duration::from_millis(100) } else { 5 * SECOND };
        assert_eq!(left(&mut server), Some(expected));
        server.pass(expected - Duration::from_millis(1));
        server.request_on(1, true);
    }
}

#[test]
fn a_connection_is_not_idle_while_a_call_waits_for_a_slot() {
    let config = Config { idle_timeout: Some(60 * SECOND), ..Config::default() };
    let mut client = Tested::client_with(config, &[(3, 0)]);
    assert_eq!(left(&mut client), Some(60 * SECOND));
    let headers = HeaderMap::new();
    assert_eq!(client.connection.send_request(head(&headers), true), Err(NotNow::NoSlot));
    client.pass(100 * SECOND);
    client.connection.on_timeout(client.now).expect("it is in use");
    assert_eq!(left(&mut client), None, "a call may wait as long as it likes");
    assert!(client.frames().is_empty());
    client.connection.wants_no_slot();
    assert_eq!(left(&mut client), Some(60 * SECOND));
}

#[test]
fn times_without_end_are_none() {
    let keep_alive = KeepAlive { interval: Duration::MAX, timeout: SECOND, when_idle: true };
    let config = Config {
        keep_alive: Some(keep_alive),
        idle_timeout: Some(Duration::MAX),
        ..Config::default()
    };
    let mut server = Tested::server_with(config);
    assert_eq!(left(&mut server), None);
}

#[test]
fn a_handshake_without_a_time_limit_may_take_a_year() {
    let config = Config { handshake_timeout: Duration::MAX, ..Config::default() };
    let mut server = Tested::greeted_server(config);
    assert!(left(&mut server).is_some_and(|left| left > 360 * 24 * 3_600 * SECOND));
}
