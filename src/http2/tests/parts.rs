//! DATA that a read of the socket cuts in two.

use std::time::Duration;

use bytes::BytesMut;

use super::raw::*;
use super::seen::Event;
use super::wire;
use crate::http2::error::ErrorCode;
use crate::http2::receive::CUT_OUT;
use crate::http2::{Config, Read, StreamKey};

const BUFFER: usize = 32 * 1024;

/// The length of a payload that is cut.
const LEN: usize = 3 * CUT_OUT;

/// Returns DATA whose payload shows the order of its bytes.
fn frame_of(len: usize, end: bool) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| (n / 100) as u8).collect();
    wire::data(1, &payload, end)
}

fn read_of(bytes: &[u8]) -> BytesMut {
    let mut read = BytesMut::with_capacity(BUFFER);
    read.extend_from_slice(bytes);
    read
}

/// Receives a read, with what the last one has left before it. Returns what is left of it.
fn receive(server: &mut Tested, left: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut read = read_of(&[left, bytes].concat());
    server.connection.receive(&mut read, server.now).expect("valid frames");
    read.to_vec()
}

fn pieces(server: &mut Tested, key: StreamKey) -> (Vec<bytes::Bytes>, Read) {
    let mut pieces = Vec::new();
    loop {
        match server.connection.read(key) {
            Read::Data(piece) => pieces.push(piece),
            end => return (pieces, end),
        }
    }
}

#[test]
fn data_means_the_same_wherever_it_is_cut() {
    let bytes = [frame_of(LEN, false), frame_of(LEN - 7, true), wire::data(3, b"next", true)];
    let bytes = bytes.concat();
    for step in [1_001, CUT_OUT, CUT_OUT + 9, 10_000, 17_000, LEN + 9, LEN + 500] {
        let mut server = Tested::server();
        let (key, next) = (server.open_request(false), server.request_on(3, false));
        let (mut left, mut got, mut end) = (Vec::new(), Vec::new(), Read::Pending);
        for read in bytes.chunks(step) {
            left = receive(&mut server, &left, read);
            let (new, what) = pieces(&mut server, key);
            got.extend(new);
            end = what;
        }
        assert!(left.is_empty() && matches!(end, Read::End), "{step}: {end:?}");
        let expected = [&frame_of(LEN, false)[9..], &frame_of(LEN - 7, true)[9..]].concat();
        assert!(got.concat() == expected, "{step}");
        assert_eq!(pieces(&mut server, next).0, ["next"]);
        assert_eq!(server.connection.received.unread(), 0);
        let updates = server.frames().into_iter();
        let announced: u32 = updates
            .filter(|frame| frame.kind == kind::WINDOW_UPDATE && frame.stream == 1)
            .map(|frame| u32::from_be_bytes(frame.payload[..].try_into().unwrap()))
            .sum();
        let window = server.connection.streams.get(key).unwrap().receive_window;
        assert_eq!(window.available(), 65_535 + announced - (2 * LEN as u32 - 7), "{step}");
    }
}

#[test]
fn the_beginning_of_large_data_that_is_read_is_not_moved() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let bytes = [frame_of(LEN, false), frame_of(LEN, false)].concat();
    let (first, rest) = bytes.split_at(9 + LEN + 9 + CUT_OUT - 1_000);
    let (second, third) = rest.split_at(rest.len() - 4_000);
    // Too little of the second frame is there.
    let left = receive(&mut server, &[], first);
    assert_eq!(left.len(), 9 + CUT_OUT - 1_000);
    assert_eq!(pieces(&mut server, key).0.len(), 1);
    let mut read = read_of(&[&left, second].concat());
    let range = read.as_ptr_range();
    server.connection.receive(&mut read, server.now).expect("a part");
    assert!(read.is_empty());
    let (parts, _) = pieces(&mut server, key);
    assert!(parts.len() == 1 && range.contains(&parts[0].as_ptr()));
    // Its end is small, and nothing after it is copied because of that.
    let mut read = read_of(&[third, &frame_of(LEN, false)].concat());
    let range = read.as_ptr_range();
    server.connection.receive(&mut read, server.now).expect("the rest");
    let (parts, _) = pieces(&mut server, key);
    assert_eq!(parts.iter().map(bytes::Bytes::len).sum::<usize>(), third.len() + LEN);
    assert!(parts.iter().all(|part| range.contains(&part.as_ptr())));
}

#[test]
fn an_end_that_is_not_read_keeps_no_buffer() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let bytes = frame_of(LEN, false);
    let (first, rest) = bytes.split_at(LEN - 500);
    receive(&mut server, &[], first);
    assert_eq!(pieces(&mut server, key).0.len(), 1);
    receive(&mut server, &[], &[rest, &wire::frame(0xfa, 0, 0, &[0; 12_000])].concat());
    assert!(server.connection.buffered() >= BUFFER);
    receive(&mut server, &[], &wire::frame(0xfa, 0, 0, &[0; 12_000]));
    assert_eq!(server.connection.buffered(), rest.len());
    // Behind something unread, it is copied at once.
    let (first, rest) = bytes.split_at(bytes.len() - 20);
    receive(&mut server, &[], &[&wire::data(1, &[0; 100], false), first].concat());
    let before = server.connection.buffered();
    receive(&mut server, &[], &[rest, &wire::frame(0xfa, 0, 0, &[0; 12_000])].concat());
    assert_eq!(server.connection.buffered(), before + 20);
}

#[test]
fn the_rest_of_data_for_a_stream_that_was_reset_is_dropped() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let bytes = frame_of(LEN, true);
    receive(&mut server, &[], &bytes[..LEN - 500]);
    server.connection.reset(key, ErrorCode::CANCEL);
    server.connection.forget(key);
    receive(&mut server, &[], &bytes[LEN - 500..]);
    assert_eq!(server.frames(), [rst(1, ErrorCode::CANCEL)]);
    assert_eq!(server.connection.received.unread(), 0);
    // What follows is a frame again.
    server.request_on(3, true);
}

#[test]
fn data_of_which_a_part_has_come_is_unfinished() {
    let mut server = Tested::server();
    server.open_request(false);
    receive(&mut server, &[], &frame_of(LEN, false)[..LEN - 500]);
    server.events();
    server.frames();
    server.next_timeout().expect("the rest must come in time");
    server.pass(Duration::from_secs(600));
    let error = server.connection.on_timeout(server.now).expect_err("it did not come");
    let mut idle = Tested::server();
    idle.open_request(false);
    idle.next_timeout();
    idle.pass(Duration::from_secs(600));
    assert_ne!(idle.connection.on_timeout(idle.now).err(), Some(error));
}

#[test]
fn parts_do_not_add_up_to_more_than_the_content_length_or_the_window() {
    let mut server = Tested::server();
    let fields = request_with(&[("content-length", b"20000")]);
    server.accept(&[headers(1, fields, false)]);
    let bytes = frame_of(LEN, false);
    receive(&mut server, &[], &bytes[..20_009]);
    assert!(matches!(server.events()[..], [Event::Data { .. }]));
    receive(&mut server, &[], &bytes[20_009..]);
    assert!(server.frames().contains(&rst(1, ErrorCode::PROTOCOL_ERROR)));

    let window = Config { stream_window: 20_000, max_stream_window: 20_000, ..Config::default() };
    let mut server = Tested::server_with(window);
    server.open_request(false);
    receive(&mut server, &[], &bytes[..20_009]);
    assert!(server.frames().is_empty());
    receive(&mut server, &[], &bytes[20_009..]);
    assert!(server.frames().contains(&rst(1, ErrorCode::FLOW_CONTROL_ERROR)));
}
