//! RFC 9113 §5.2 and §6.9: windows, ours and the peer's.

use bytes::BytesMut;

use super::raw::*;
use super::seen::Event;
use super::wire;
use crate::http2::error::ErrorCode;
use crate::http2::receive::CUT_OUT;
use crate::http2::{Body, Config, ProtocolEvent as Told, Read};

fn small() -> Config {
    Config {
        stream_window: 100,
        max_stream_window: 100,
        connection_window: 65_535,
        ..Config::default()
    }
}

fn updates(frames: &[Frame]) -> Vec<(u32, u32)> {
    frames
        .iter()
        .filter(|frame| frame.kind == kind::WINDOW_UPDATE)
        .map(|frame| (frame.stream, u32::from_be_bytes(frame.payload[..].try_into().unwrap())))
        .collect()
}

#[test]
fn credit_is_given_when_as_much_is_free_as_the_peer_has_left() {
    let mut server = Tested::server_with(small());
    server.open_request(false);
    server.accept(&[data(1, [0; 40], false)]);
    assert_eq!(updates(&server.frames()), [], "60 left, 40 to give");
    server.accept(&[data(1, [0; 20], false)]);
    assert_eq!(updates(&server.frames()), [(1, 60)]);
}

#[test]
fn what_nobody_reads_gives_no_credit() {
    let mut server = Tested::server_with(small());
    let key = server.open_request(false);
    server.send(&[data(1, [0; 40], false), data(1, [0; 60], false)]).expect("within the window");
    assert_eq!(updates(&server.frames()), []);
    assert!(matches!(server.connection.read(key), Read::Data(bytes) if bytes.len() == 100));
    assert_eq!(updates(&server.frames()), [(1, 100)]);
}

#[test]
fn what_nobody_will_read_gives_credit_at_once() {
    let mut server = Tested::server_with(small());
    let key = server.open_request(false);
    server.send(&[data(1, [0; 60], false)]).expect("within the window");
    server.connection.discard(key);
    assert_eq!(updates(&server.frames()), [(1, 60)]);
    server.send(&[data(1, [0; 60], false)]).expect("within the window");
    assert_eq!(updates(&server.frames()), [(1, 60)]);
    assert_eq!(server.connection.received.unread(), 0);
}

#[test]
fn more_than_the_stream_window_is_the_streams_error() {
    let mut server = Tested::server_with(small());
    let key = server.open_request(false);
    server.send(&[data(1, [0; 100], false)]).expect("within the window");
    server.resets_known(key, ErrorCode::FLOW_CONTROL_ERROR, &[data(1, [0; 1], false)]);
}

#[test]
fn more_than_the_connection_window_is_the_connections_error() {
    let config = Config { connection_window: 65_535, stream_window: 1 << 20, ..Config::default() };
    let mut server = Tested::server_with(config);
    server.open_request(false);
    server.send(&[data(1, [0; 32_000], false)]).expect("within the window");
    assert_eq!(server.connection.receive_allowance(), 33_535);
    server.fails(ErrorCode::FLOW_CONTROL_ERROR, &[data(1, [0; 33_536], false)]);
}

#[test]
fn an_empty_frame_needs_no_window() {
    let mut server = Tested::server_with(small());
    server.open_request(false);
    server.send(&[data(1, [0; 100], false)]).expect("within the window");
    let events = server.accept(&[data(1, [], true)]);
    assert!(matches!(&events[..], [Event::Data { end: true, .. }]));
}

#[test]
fn padding_is_given_back_at_once() {
    let mut server = Tested::server_with(small());
    server.open_request(false);
    let mut padded = vec![89];
    padded.extend_from_slice(&[1; 10]);
    padded.extend_from_slice(&[0; 89]);
    server.send(&[frame(kind::DATA, flag::PADDED, 1, &padded)]).expect("within the window");
    assert_eq!(updates(&server.frames()), [(1, 90)]);
    assert_eq!(server.connection.received.unread(), 10);
    server.events();
    assert_eq!(server.connection.received.unread(), 0);
}

#[test]
fn forgetting_a_stream_releases_all_it_holds() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.send(&[data(1, [0; 20_000], false), data(1, [0; 500], true)]).expect("a request");
    assert_eq!(server.connection.received.unread(), 20_500);
    assert!(matches!(server.connection.read(key), Read::Data(bytes) if bytes.len() == 20_000));
    assert_eq!(server.connection.received.unread(), 500);
    server.connection.forget(key);
    assert_eq!(server.connection.received.unread(), 0);
    assert!(matches!(server.connection.read(key), Read::Forgotten));
}

/// Returns a read of 256 KiB that begins with a payload. The rest is frames of an unknown type.
fn read_with(payload: usize) -> BytesMut {
    let mut read = BytesMut::with_capacity(256 * 1024);
    read.extend_from_slice(&wire::data(1, &vec![0; payload], false));
    for _ in 0..6 {
        read.extend_from_slice(&wire::frame(0xfa, 0, 0, &[0; 40_000]));
    }
    read
}

#[test]
fn a_payload_that_keeps_its_read_buffer_counts_as_all_of_that() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    for n in 1..=4 {
        server.connection.receive(&mut read_with(CUT_OUT), server.now).expect("data");
        assert!(server.connection.buffered() >= n * 256 * 1024);
    }
    let Read::Data(taken) = server.connection.read(key) else { panic!("no data") };
    assert!(server.connection.buffered() >= 4 * 256 * 1024, "as long as a handler has it");
    drop(taken);
    let left = server.connection.buffered();
    assert!((3 * 256 * 1024..4 * 256 * 1024).contains(&left), "{left}");
    server.connection.forget(key);
    server.frames();
    assert_eq!(server.connection.buffered(), 0);
}

#[test]
fn a_small_payload_keeps_no_read_buffer() {
    let mut server = Tested::server();
    server.open_request(false);
    for n in 1..=4 {
        server.connection.receive(&mut read_with(CUT_OUT - 1), server.now).expect("data");
        assert_eq!(server.connection.buffered(), n * (CUT_OUT - 1));
    }
    // A payload in a buffer that is mostly empty is not cut out either.
    let mut read = BytesMut::with_capacity(256 * 1024);
    read.extend_from_slice(&wire::data(1, &[0; 30_000], false));
    server.connection.receive(&mut read, server.now).expect("data");
    assert_eq!(server.connection.buffered(), 4 * (CUT_OUT - 1) + 30_000);
}

/// Returns a read buffer that is half full with a payload.
fn half_full() -> BytesMut {
    let mut read = BytesMut::with_capacity(32 * 1024);
    read.extend_from_slice(&wire::data(1, &[7; 20_000], false));
    read
}

#[test]
fn a_payload_is_taken_out_of_a_half_full_buffer_only_if_it_is_read_at_once() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let mut read = half_full();
    let payload = read[9..].as_ptr();
    server.connection.receive(&mut read, server.now).expect("data");
    let Read::Data(taken) = server.connection.read(key) else { panic!("no data") };
    assert_eq!(taken.as_ptr(), payload, "it was copied");
    assert!(server.connection.buffered() >= 32 * 1024, "the whole buffer counts");
    drop(taken);

    server.connection.receive(&mut half_full(), server.now).expect("data");
    assert!(server.connection.buffered() >= 32 * 1024);
    // The reader is late, so the first payload is copied, and so is the second.
    server.connection.receive(&mut half_full(), server.now).expect("data");
    assert_eq!(server.connection.buffered(), 2 * 20_000);
    for _ in 0..2 {
        let Read::Data(taken) = server.connection.read(key) else { panic!("no data") };
        assert_eq!(&taken[..], [7; 20_000]);
    }
    server.frames();
    assert_eq!(server.connection.buffered(), 0);
}

#[test]
fn a_stream_that_has_ended_gets_no_more_window() {
    let mut server = Tested::server_with(small());
    server.open_request(false);
    server.accept(&[data(1, [0; 60], true)]);
    assert_eq!(updates(&server.frames()), []);
}

#[test]
fn streams_that_nobody_reads_take_nothing_of_the_connections_window() {
    let mut server = Tested::server_with(Config {
        connection_window: 65_535,
        max_streams: 300,
        ..Config::default()
    });
    for n in 0..256 {
        server.request_on(2 * n + 1, false);
    }
    for n in 0..256 {
        for _ in 0..4 {
            server.send(&[data(2 * n + 1, [0; 16_000], false)]).expect("within the window");
        }
        // The peer was told of at least half of it.
        assert!(server.connection.receive_allowance() >= 65_535 / 2);
        server.frames();
    }
    assert_eq!(server.connection.received.unread(), 256 * 64_000);
    server.send(&[request(601, false), data(601, "a call", true)]).expect("a call");
    let opened = std::iter::from_fn(|| server.connection.poll_event()).last();
    let Some(Told::Opened(key)) = opened else { panic!("{opened:?}") };
    let call = server.connection.take_request(key).expect("a call");
    assert!(matches!(call.body, Body::Whole(_)));
}

#[test]
fn a_window_grows_while_it_is_read_and_not_otherwise() {
    let mut server = Tested::server();
    let (read, unread) = (server.open_request(false), server.request_on(3, false));
    let (mut windows, mut got) = ([65_535u32; 2], 0);
    while got < 8 << 20 {
        for (stream, window) in [1, 3].into_iter().zip(&mut windows) {
            let len = (*window).min(16_000);
            server.send(&[data(stream, vec![0; len as usize], false)]).expect("within the window");
            *window -= len;
        }
        while let Read::Data(bytes) = server.connection.read(read) {
            got += bytes.len();
        }
        for (stream, increment) in updates(&server.frames()) {
            match stream {
                1 => windows[0] += increment,
                3 => windows[1] += increment,
                _ => {}
            }
        }
    }
    let window = |key| server.connection.streams.get(key).unwrap().receive_window.size();
    assert_eq!(window(read), 1 << 20);
    // A stream that begins after others had large windows may have one, too.
    assert!(window(unread) <= 1 << 20);
    assert!(server.connection.received.unread() <= 1 << 20);
}

#[test]
fn a_message_gets_at_once_what_others_have_made_use_of_unless_much_is_unread() {
    let mut server = Tested::server();
    let reader = server.open_request(false);
    while server.connection.streams.get(reader).unwrap().receive_window.size() < 1 << 20 {
        server.accept(&[data(1, [0; 16_000], false)]);
    }
    server.frames();
    let mut granted = 0;
    for n in 1..200 {
        server.request_on(2 * n + 1, false);
    }
    for n in 1..200 {
        server.send(&[data(2 * n + 1, [0; 40_000], false)]).expect("within the window");
        granted += updates(&server.frames()).iter().filter(|(stream, _)| *stream > 0).count();
    }
    // The windows grow as long as their growth fits into the connection's window, because the peer
    // could use all of it.
    assert_eq!(granted, 3);
    // Streams that have ended make room for others.
    for key in server.connection.streams.keys() {
        server.connection.forget(key);
    }
    server.frames();
    let reader = server.request_on(401, false);
    server.send(&[data(401, [0; 40_000], false)]).expect("within the window");
    let window = server.connection.streams.get(reader).unwrap().receive_window.size();
    assert_eq!(window, 1 << 20);
}

#[test]
fn small_data_is_copied_and_large_data_is_not() {
    let mut server = Tested::server();
    server.open_request(false);
    for (len, cut) in [(CUT_OUT - 1, false), (CUT_OUT, true)] {
        let mut bytes = bytes::BytesMut::new();
        data(1, vec![1; len], false).write(&mut bytes);
        let range = bytes.as_ptr_range();
        server.connection.receive(&mut bytes, server.now).unwrap();
        match &server.events()[..] {
            [Event::Data { bytes, .. }] => {
                assert_eq!(range.contains(&bytes.as_ptr()), cut);
                assert_eq!(bytes.len(), len);
            }
            events => panic!("{events:?}"),
        }
    }
}

#[test]
fn only_data_of_the_largest_size_is_bulk() {
    let mut server = Tested::server();
    server.open_request(false);
    server.send(&[data(1, [1; 40_959], false)]).expect("within the window");
    assert!(!server.connection.receives_bulk());
    server.events();
    let frames = [data(1, [1; 40_960], false), data(1, [1; 10], false)];
    server.send(&frames).expect("within the window");
    assert!(server.connection.receives_bulk());
    server.events();
    server.send(&[data(1, [1; 10], false)]).expect("within the window");
    assert!(!server.connection.receives_bulk());
}
