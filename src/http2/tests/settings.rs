//! RFC 9113 §6.5 and §6.9.2: settings that change while streams are open.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::raw::*;
use super::seen::Event;
use crate::http2::Config;
use crate::http2::error::ErrorCode;
use crate::http2::send::Progress;

fn sent(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.kind == kind::DATA).map(|frame| frame.payload.len()).sum()
}

#[test]
fn the_initial_window_moves_every_open_stream_and_below_zero_too() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
    server.accept(&[window_update(0, 1 << 20)]);
    let body = Bytes::from(vec![1; 100_000]);
    assert_eq!(server.connection.send_data(key, body, false), Progress::Queued);
    assert_eq!(sent(&server.frames()), 65_535);
    // 65,535 bytes are used, so the window is now 10 - 65,535.
    server.accept(&[settings(&[(4, 10)])]);
    assert_eq!(sent(&server.frames()), 0);
    server.accept(&[window_update(1, 65_525)]);
    assert_eq!(sent(&server.frames()), 0, "a window of 0");
    server.accept(&[window_update(1, 1)]);
    assert_eq!(sent(&server.frames()), 1);
    server.accept(&[settings(&[(4, 11)])]);
    assert_eq!(sent(&server.frames()), 1);
    let events = server.accept(&[settings(&[(4, 65_535)])]);
    assert_eq!(sent(&server.frames()), 100_000 - 65_537);
    assert!(matches!(&events[..], [Event::Writable { stream }] if *stream == key));
}

#[test]
fn new_streams_begin_with_the_new_window() {
    let mut server = Tested::server();
    server.accept(&[settings(&[(4, 3)])]);
    let key = server.open_request(true);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
    server.connection.send_data(key, Bytes::from_static(b"abcd"), true);
    let frames = server.frames();
    assert_eq!(frames.last(), Some(&data(1, "abc", false)));
    server.accept(&[window_update(1, 9)]);
    assert_eq!(server.frames(), [data(1, "d", true)]);
}

#[test]
fn the_frame_size_follows_the_peer() {
    let mut server = Tested::server();
    server.accept(&[settings(&[(5, 20_000), (4, 1 << 20)]), window_update(0, 1 << 20)]);
    server.frames();
    let key = server.open_request(true);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
    server.connection.send_data(key, Bytes::from(vec![1; 50_000]), true);
    let sizes: Vec<_> = server.frames()[1..].iter().map(|frame| frame.payload.len()).collect();
    assert_eq!(sizes, [20_000, 20_000, 10_000]);
}

#[test]
fn a_head_larger_than_a_frame_is_continued() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    let large = map(&[("a", &"\u{7f}".repeat(0)), ("x", &"~".repeat(40_000))]);
    server.connection.send_response(key, StatusCode::OK, &large, true);
    let frames = server.frames();
    let shapes: Vec<_> = frames
        .iter()
        .map(|frame| (frame.kind, frame.flags, frame.payload.len() == 16_384))
        .collect();
    assert_eq!(
        shapes,
        [
            (kind::HEADERS, flag::END_STREAM, true),
            (kind::CONTINUATION, 0, true),
            (kind::CONTINUATION, flag::END_HEADERS, false),
        ]
    );
    let whole: Vec<u8> = frames.into_iter().flat_map(|frame| frame.payload).collect();
    let mut size = 0;
    crate::http2::hpack::Decoder::new(4096)
        .decode(&whole, |field| size += field.size())
        .expect("a header block");
    assert!(size > 40_000);
}

#[test]
fn our_window_holds_from_the_acknowledgement_on() {
    let config = Config { stream_window: 10, ..Config::default() };
    let mut server = Tested::greeted_server(config);
    let before = server.accept(&[settings(&[]), request(1, false)]);
    assert_eq!(before.len(), 2);
    server.send(&[data(1, [0; 1_000], false)]).expect("within the window");
    server.frames();
    server.send(&[settings_ack()]).expect("an acknowledgement");
    // 10 - 1,000: the stream's window is negative, and a new stream has 10.
    let Event::Request { stream, .. } = before[1] else { panic!() };
    server.resets_known(stream, ErrorCode::FLOW_CONTROL_ERROR, &[data(1, "x", false)]);
    server.request_on(3, false);
    server.send(&[data(3, [0; 10], false)]).expect("within the window");
    server.resets(3, ErrorCode::FLOW_CONTROL_ERROR, &[data(3, "x", false)]);
}

#[test]
fn a_header_table_that_was_smaller_for_a_moment_is_emptied() {
    let mut server = Tested::server();
    server.accept(&[settings(&[(1, 4_096), (1, 0), (1, 4_096)])]);
    server.frames();
    let key = server.open_request(true);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), true);
    // To 0, and to 4,096 again (RFC 7541 §4.2); then `:status: 200`.
    assert_eq!(server.frames()[0].payload, [0x20, 0x3f, 0xe1, 0x1f, 0x88]);
}

#[test]
fn what_was_read_before_the_acknowledgement_gives_window_after_it() {
    let config = Config { stream_window: 10, max_stream_window: 10, ..Config::default() };
    let mut server = Tested::greeted_server(config);
    server.accept(&[settings(&[]), request(1, false), data(1, [0; 1_000], false)]);
    server.frames();
    server.accept(&[settings_ack()]);
    // 10 - 1,000 + 1,000: nothing is read any more that could give it back.
    assert_eq!(server.frames(), [window_update(1, 1_000)]);
    server.accept(&[data(1, [0; 10], false)]);
}
