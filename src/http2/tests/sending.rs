//! Messages out: how they are placed in the buffer, and how they wait.

use std::io::IoSlice;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::raw::*;
use super::seen::Event;
use crate::http2::error::ErrorCode;
use crate::http2::send::{HIGH_WATER, Progress};
use crate::http2::{Config, Failure, Read};

/// Returns a server's stream 1 with its response begun.
fn responding() -> (Tested, crate::http2::StreamKey) {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
    server.frames();
    (server, key)
}

#[test]
fn a_unary_answer_is_one_piece() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.answer(key, b"hello");
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(server.connection.outgoing(&mut slices), 1);
    let frames = server.frames();
    assert_eq!(frames.len(), 3);
    assert_eq!((frames[0].kind, frames[0].flags), (kind::HEADERS, flag::END_HEADERS));
    assert_eq!(frames[1], data(1, "hello", false));
    assert_eq!(
        (frames[2].kind, frames[2].flags),
        (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM)
    );
    assert_eq!(server.connection.active_streams(), 0);
}

#[test]
fn a_unary_request_ends_with_its_only_data_frame() {
    let mut client = Tested::client();
    let headers = HeaderMap::new();
    let key = client.connection.send_request(head(&headers), false).expect("a slot");
    assert_eq!(client.connection.send_data(key, Bytes::from_static(b"hi"), true), Progress::Sent);
    let frames = client.frames();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1], data(1, "hi", true));
}

#[test]
fn a_request_that_is_lost_before_it_was_written_was_not_processed() {
    for written in [false, true] {
        let mut client = Tested::client();
        let headers = HeaderMap::new();
        let key = client.connection.send_request(head(&headers), true).expect("a slot");
        if written {
            client.connection.advance(1);
        }
        client.connection.disconnect();
        let Read::Failed(failure) = client.connection.read(key) else { panic!("not lost") };
        assert_eq!(failure, Failure::ConnectionEnded { unprocessed: !written });
    }
}

/// It is sent again on another connection, and no server may process it twice.
#[test]
fn a_request_that_was_not_written_is_not_written_after_a_failure() {
    let mut client = Tested::client();
    let headers = HeaderMap::new();
    let mut start = |data: Vec<u8>| {
        let key = client.connection.send_request(head(&headers), false).expect("a slot");
        client.connection.send_data(key, data.into(), true);
        key
    };
    let keys = [20_000, 20_000, 3].map(|len| start(vec![7; len]));
    let mut written = [IoSlice::new(&[]); 1];
    client.connection.outgoing(&mut written);
    // All of the first head, and a part of its data.
    let begun = [written[0].to_vec(), vec![7; 5]].concat();
    client.connection.advance(begun.len());
    client.send(&[frame(kind::PING, 0, 0, [0; 3])]).expect_err("bad PING");
    let unprocessed = keys.map(|key| match client.connection.read(key) {
        Read::Failed(Failure::ConnectionEnded { unprocessed }) => unprocessed,
        other => panic!("not lost but {other:?}"),
    });
    assert_eq!(unprocessed, [false, true, true]);
    let frames = parse(&[begun, drain(&mut client.connection)].concat());
    let (last, before) = frames.split_last().expect("a GOAWAY");
    assert_eq!(last.kind, kind::GOAWAY);
    assert!(before.iter().all(|frame| frame.stream == keys[0].id()), "{frames:?}");
    assert_eq!(before.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [1, 0, 0]);
}

#[test]
fn a_request_that_is_being_written_may_have_been_processed() {
    let mut client = Tested::client();
    let headers = HeaderMap::new();
    let first = client.connection.send_request(head(&headers), true).expect("a slot");
    let taken = client.connection.take_outgoing().expect("bytes");
    let second = client.connection.send_request(head(&headers), true).expect("a slot");
    client.connection.disconnect();
    let unprocessed = [first, second].map(|key| match client.connection.read(key) {
        Read::Failed(Failure::ConnectionEnded { unprocessed }) => unprocessed,
        other => panic!("not lost but {other:?}"),
    });
    assert_eq!(unprocessed, [false, true]);
    client.connection.put_back(taken);
    assert!(!client.connection.has_outgoing());
}

#[test]
fn large_payloads_are_not_copied_and_keep_their_place() {
    let (mut server, key) = responding();
    let large = Bytes::from(vec![3; 16_384]);
    server.connection.send_data(key, Bytes::from_static(b"before"), false);
    server.connection.send_data(key, large.clone(), false);
    server.connection.send_data(key, large.clone(), false);
    server.connection.send_data(key, Bytes::from_static(b"after"), true);
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(server.connection.outgoing(&mut slices), 5);
    assert_eq!(slices[1].as_ptr(), large.as_ptr());
    assert_eq!(slices[3].as_ptr(), large.as_ptr());
    assert_eq!(
        server.frames(),
        [
            data(1, "before", false),
            data(1, &large, false),
            data(1, &large, false),
            data(1, "after", true)
        ]
    );
}

#[test]
fn any_part_of_what_waits_can_be_written() {
    for step in [1, 2, 9, 1_000, 16_384, 20_000] {
        let (mut server, key) = responding();
        let mut expected = Vec::new();
        for n in 0..6 {
            let payload = vec![n; [5, 16_384, 16_384, 100, 16_000, 1][n as usize]];
            let mut bytes = bytes::BytesMut::new();
            data(1, &payload, n == 5).write(&mut bytes);
            expected.extend_from_slice(&bytes);
            server.connection.send_data(key, payload.into(), n == 5);
        }
        assert_eq!(server.connection.outgoing_len(), expected.len());
        let mut written = Vec::new();
        while server.connection.has_outgoing() {
            let mut slices = [IoSlice::new(&[]); 2];
            let count = server.connection.outgoing(&mut slices);
            let mut len = 0;
            for slice in &slices[..count] {
                let part = &slice[..slice.len().min(step - len)];
                written.extend_from_slice(part);
                len += part.len();
            }
            server.connection.advance(len);
        }
        assert!(written == expected);
    }
}

#[test]
fn data_beyond_the_window_waits_and_trailers_wait_behind_it() {
    let (mut server, key) = responding();
    let body = Bytes::from(vec![1; 70_000]);
    assert_eq!(server.connection.send_data(key, body, false), Progress::Queued);
    assert_eq!(server.connection.queued_len(), 70_000 - 65_535);
    assert_eq!(
        server.connection.send_data(key, Bytes::from_static(b"tail"), false),
        Progress::Queued
    );
    let trailers = map(&[("grpc-status", "0")]);
    assert_eq!(server.connection.send_trailers(key, &trailers), Progress::Queued);
    server.connection.forget(key);
    let frames = server.frames();
    assert_eq!(frames.iter().map(|frame| frame.payload.len()).sum::<usize>(), 65_535);
    assert_eq!(server.connection.active_streams(), 1, "until all is sent");
    server.accept(&[window_update(0, 100_000)]);
    assert!(server.frames().is_empty());
    assert!(server.accept(&[window_update(1, 100_000)]).is_empty(), "nobody waits to write");
    let frames = server.frames();
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[0].payload.len(), 70_000 - 65_535);
    assert_eq!(frames[1], data(1, "tail", false));
    assert_eq!(frames[2].flags, flag::END_HEADERS | flag::END_STREAM);
    assert_eq!(server.connection.active_streams(), 0);
    assert_eq!(server.connection.queued_len(), 0);
}

#[test]
fn the_connections_window_is_used_to_its_last_byte_and_no_further() {
    let (mut server, key) = responding();
    server.accept(&[window_update(1, 100_000)]);
    for _ in 0..3 {
        server.connection.send_data(key, Bytes::from(vec![1; 16_383]), false);
    }
    server.connection.send_data(key, Bytes::from(vec![1; 16_383]), false);
    server.frames();
    let rest = Bytes::from_static(b"abcd");
    assert_eq!(server.connection.send_data(key, rest, false), Progress::Queued);
    assert_eq!(server.frames(), [data(1, "abc", false)]);
    assert_eq!(server.connection.send_data(key, Bytes::from_static(b"e"), true), Progress::Queued);
    server.accept(&[window_update(0, 2)]);
    assert_eq!(server.frames(), [data(1, "d", false), data(1, "e", true)]);
}

#[test]
fn the_connections_window_is_shared_in_turn() {
    let mut server = Tested::server();
    server.accept(&[settings(&[(4, 1 << 20)])]);
    server.frames();
    let keys = [server.open_request(true), server.request_on(3, true)];
    for key in keys {
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
        server.connection.send_data(key, Bytes::from(vec![key.id() as u8; 300_000]), true);
    }
    server.frames();
    let mut sent = [0, 0];
    for _ in 0..5 {
        server.accept(&[window_update(0, 100_000)]);
        for frame in server.frames() {
            sent[frame.stream as usize / 2] += frame.payload.len();
        }
    }
    assert!(sent.iter().all(|sent| *sent >= 190_000), "{sent:?}");
    server.accept(&[window_update(0, 100_000)]);
    server.frames();
    assert_eq!(server.connection.queued_len(), 0);
}

#[test]
fn a_full_buffer_makes_data_wait_and_draining_it_lets_it_go() {
    let (mut server, key) = responding();
    server.accept(&[
        settings(&[(4, 10 << 20)]),
        window_update(1, 1 << 20),
        window_update(0, 10 << 20),
    ]);
    server.frames();
    let mut body = Bytes::from(vec![1; 2 << 20]);
    assert_eq!(server.connection.send_data(key, body.split_to(900_000), false), Progress::Queued);
    let waiting = server.connection.outgoing_len();
    assert!((HIGH_WATER..600_000).contains(&waiting), "{waiting}");
    assert!(server.events().is_empty());
    server.connection.advance(waiting);
    assert!(matches!(&server.events()[..], [Event::Writable { stream }] if *stream == key));
    assert_eq!(server.connection.send_data(key, body, true), Progress::Queued);
    let frames = server.frames();
    assert_eq!(frames.last().map(|frame| frame.flags), Some(flag::END_STREAM));
}

#[test]
fn what_is_queued_is_dropped_with_a_reset() {
    for by_peer in [false, true] {
        let (mut server, key) = responding();
        server.connection.send_data(key, Bytes::from(vec![1; 200_000]), false);
        server.frames();
        if by_peer {
            server.accept(&[rst(1, ErrorCode::CANCEL)]);
        } else {
            server.connection.reset(key, ErrorCode::CANCEL);
        }
        assert_eq!(server.connection.queued_len(), 0);
        assert_eq!(
            server.connection.send_data(key, Bytes::from_static(b"x"), true),
            Progress::Closed
        );
        assert_eq!(server.connection.send_trailers(key, &HeaderMap::new()), Progress::Closed);
        server.frames();
        server.accept(&[window_update(0, 500_000), window_update(1, 500_000)]);
        assert!(server.frames().is_empty());
        assert_eq!(server.connection.buffered(), 0);
    }
}

#[test]
fn data_counts_whole_until_the_last_of_it_is_written() {
    const SIZE: usize = 200_000;
    const LAST: usize = 2 * 16_384;
    let (mut server, key) = responding();
    server.connection.send_data(key, Bytes::from(vec![1; SIZE]), true);
    server.frames();
    let all_but_the_last = window_update(1, (SIZE - 65_535 - LAST) as u32);
    server.accept(&[window_update(0, 500_000), all_but_the_last]);
    server.frames();
    assert_eq!(server.connection.queued_len(), LAST as u64);
    assert_eq!(server.connection.buffered(), SIZE, "a part of it keeps all of it");
    server.accept(&[window_update(1, LAST as u32)]);
    assert_eq!(server.connection.queued_len(), 0);
    assert!(server.connection.buffered() >= SIZE, "the socket has not taken the last part");
    server.frames();
    assert_eq!(server.connection.buffered(), 0);
}

#[test]
fn an_informational_response_comes_before_the_real_one() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    let connection = &mut server.connection;
    connection.send_response(key, StatusCode::CONTINUE, &HeaderMap::new(), false);
    connection.send_response(key, StatusCode::OK, &HeaderMap::new(), true);
    let flags: Vec<_> = server.frames().iter().map(|frame| frame.flags).collect();
    assert_eq!(flags, [flag::END_HEADERS, flag::END_HEADERS | flag::END_STREAM]);
}

#[test]
fn an_idle_connection_gives_its_memory_back() {
    let mut server = Tested::server();
    server.accept(&[window_update(0, 1 << 20)]);
    for n in 0..200 {
        let key = server.request_on(2 * n + 1, true);
        server.answer(key, &[1; 3_000]);
    }
    server.frames();
    assert!(server.connection.write_buffer.capacity() > 100_000);
    server.connection.trim();
    assert_eq!(server.connection.write_buffer.capacity(), 0);
    assert!(server.connection.events.capacity() <= crate::http2::spare::FEW);
    assert!(
        size_of::<crate::http2::Connection>() <= 2_456,
        "{}",
        size_of::<crate::http2::Connection>()
    );
    let key = server.request_on(401, true);
    server.answer(key, b"again");
    assert_eq!(server.frames().len(), 3);
}

#[test]
fn trimming_does_not_forget_that_streams_were_reset() {
    let mut server = Tested::server_with(Config::default());
    let key = server.open_request(false);
    server.connection.forget(key);
    server.frames();
    server.connection.trim();
    assert!(server.accept(&[data(1, "late", false)]).is_empty());
}

// ---- Fields ----------------------------------------------------------------------------------

/// Fields that HTTP/2 forbids (RFC 9113 §8.2.1, §8.2.2), and fields that it allows.
const MIXED: &[(&str, &str)] = &[
    ("connection", "x-private"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "close"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "h2c"),
    ("te", "gzip"),
    ("te", "trailers"),
    ("x-spaces", " \tboth ends\t "),
    ("x-only-spaces", "  "),
    ("x-plain", "as it is"),
];

fn mixed() -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in MIXED {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn is_clean(headers: &HeaderMap) {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    let te: Vec<_> = headers.get_all("te").iter().collect();
    assert_eq!(te, ["trailers"]);
    assert_eq!(headers["x-spaces"], "both ends");
    assert_eq!(headers["x-only-spaces"], "");
    assert_eq!(headers["x-plain"], "as it is");
}

#[test]
fn forbidden_fields_are_not_sent_by_either_end() {
    let mut client = Tested::client();
    let mut headers = mixed();
    headers.insert("host", "elsewhere".parse().unwrap());
    client.connection.send_request(head(&headers), true).expect("a slot");
    let mut server = Tested::server_with(Config { any_authority: false, ..Config::default() });
    let events = server.accept(&client.frames());
    let [Event::Request { stream, head, .. }] = &events[..] else { panic!("{events:?}") };
    is_clean(&head.headers);
    assert!(!head.headers.contains_key("host"), "`:authority` says it");

    let mut trailers = mixed();
    trailers.insert("content-length", "5".parse().unwrap());
    server.connection.send_response(*stream, StatusCode::OK, &mixed(), false);
    server.connection.send_trailers(*stream, &trailers);
    let events = client.accept(&server.frames());
    let [Event::Response { head, .. }, Event::Trailers { headers, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    is_clean(&head.headers);
    is_clean(headers);
    assert!(!headers.contains_key("content-length"));
}

/// Returns what a client gets that takes lists of this many bytes.
fn answered(
    limit: u32,
    answer: impl FnOnce(&mut Tested, crate::http2::StreamKey),
) -> (HeaderMap, Option<HeaderMap>) {
    let config = Config { max_header_list_size: limit, ..Config::default() };
    let mut client = Tested::client_with(config, &[]);
    client.start_request(true);
    let mut server = Tested::server();
    // The window is small, so that data has to wait.
    server.accept(&[settings(&[(6, limit), (4, 10)])]);
    let key = server.open_request(true);
    server.frames();
    answer(&mut server, key);
    let events = client.accept(&server.frames());
    match &events[..] {
        [Event::Response { head, end: true, .. }] => (head.headers.clone(), None),
        [Event::Response { head, .. }, .., Event::Trailers { headers, .. }] => {
            (head.headers.clone(), Some(HeaderMap::clone(headers)))
        }
        events => panic!("{events:?}"),
    }
}

#[test]
fn a_status_that_is_too_long_for_the_client_is_cut_and_keeps_its_code() {
    let long = "m".repeat(105_000);
    let status = map(&[
        ("content-type", "application/grpc"),
        ("grpc-status", "3"),
        ("grpc-message", &long),
        ("grpc-status-details-bin", "AAAA"),
    ]);
    for limit in [200, 1_000, 16_384] {
        let (head, none) = answered(limit, |server, key| {
            server.connection.send_response(key, StatusCode::OK, &status, true);
        });
        assert!(none.is_none());
        let (_, trailers) = answered(limit, |server, key| {
            let head = map(&[("content-type", "application/grpc")]);
            server.connection.send_response(key, StatusCode::OK, &head, false);
            // The data is larger than the window, so that the trailers wait in the stream.
            server.connection.send_data(key, vec![0; 100].into(), false);
            server.connection.send_trailers(key, &status);
            server.accept(&[window_update(1, 90)]);
        });
        for status in [head, trailers.unwrap()] {
            assert_eq!(status["grpc-status"], "3", "{limit}");
            let message = status["grpc-message"].to_str().unwrap();
            assert!(message.starts_with("mmm") && message.ends_with("..."), "{message}");
            assert!(message.len() as u32 + 200 > limit, "{} of {limit}", message.len());
            assert!(!status.contains_key("grpc-status-details-bin"));
        }
    }
}

#[test]
fn a_head_that_is_too_large_for_the_client_becomes_a_status() {
    let head = map(&[("content-type", "application/grpc"), ("x-large", &"l".repeat(2_000))]);
    let (head, none) = answered(1_000, |server, key| {
        server.connection.send_response(key, StatusCode::OK, &head, false);
        // The rest of it is dropped.
        let data = Bytes::from_static(b"data");
        assert_eq!(server.connection.send_data(key, data, false), Progress::Closed);
        assert_eq!(server.connection.send_trailers(key, &HeaderMap::new()), Progress::Closed);
        server.connection.forget(key);
        assert_eq!(server.connection.active_streams(), 0);
    });
    assert_eq!((none, &head["grpc-status"]), (None, &"8".parse().unwrap()));
    assert!(head["grpc-message"].to_str().unwrap().contains("1000 bytes"), "{head:?}");
}
