//! docs/descriptors.md: which head a set belongs to, and what is none.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use http::StatusCode;

use super::raw::*;
use super::seen::Event;
use crate::descriptors::{Descriptors, Quota, ReceivedSet};
use crate::http2::error::ErrorCode;
use crate::http2::send_head::NotNow;
use crate::http2::{Config, StreamKey};

/// The SETTINGS parameter.
const DESCRIPTORS: u16 = 0xfd00;

fn taking(descriptors: u8) -> Config {
    Config { descriptors, ..Config::default() }
}

fn announced(stream: u32, count: u8) -> Frame {
    frame(kind::DESCRIPTORS, 0, stream, [count])
}

fn descriptors(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| UnixStream::pair().unwrap().0.into()).collect()
}

/// A set, and the numbers of its descriptors.
fn set(count: usize) -> (ReceivedSet, Vec<i32>) {
    let descriptors = descriptors(count);
    let numbers = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    (ReceivedSet::new(descriptors, false, &[], None), numbers)
}

fn taken(tested: &mut Tested, key: StreamKey) -> Vec<i32> {
    let set = tested.connection.take_descriptors(key).expect("a set").set.expect("one to take");
    set.take().iter().map(AsRawFd::as_raw_fd).collect()
}

fn requested(events: &[Event]) -> Vec<StreamKey> {
    let key = |event: &Event| match event {
        Event::Request { stream, .. } => Some(*stream),
        _ => None,
    };
    events.iter().filter_map(key).collect()
}

#[test]
fn an_endpoint_that_takes_some_says_so_and_others_say_nothing() {
    for (config, told) in [(taking(7), Some(7)), (Config::default(), None)] {
        let now = std::time::Instant::now();
        let mut connection = crate::http2::Connection::server(config, now);
        let frames = parse(&drain(&mut connection));
        let settings = frames[0].payload.as_chunks::<6>().0;
        let value = settings.iter().find(|setting| setting[..2] == DESCRIPTORS.to_be_bytes());
        assert_eq!(value.map(|setting| u32::from(setting[5])), told);
    }
}

#[test]
fn the_order_says_which_set_belongs_to_which_head() {
    let mut server = Tested::server_with(taking(4));
    let (first, one) = set(1);
    let (second, three) = set(3);
    server.connection.receive_set(first);
    server.connection.receive_set(second);
    let events = server.accept(&[
        announced(1, 1),
        request(1, true),
        request(3, true),
        announced(5, 3),
        request(5, true),
    ]);
    let keys = requested(&events);
    assert_eq!(taken(&mut server, keys[0]), one);
    assert!(server.connection.take_descriptors(keys[1]).is_none());
    assert_eq!(taken(&mut server, keys[2]), three);
}

#[test]
fn a_set_may_come_before_all_of_its_frame_and_its_head_in_pieces() {
    let mut server = Tested::server_with(taking(4));
    let (one, numbers) = set(1);
    server.connection.receive_set(one);
    let mut bytes = bytes::BytesMut::new();
    let block = request_block();
    announced(1, 1).write(&mut bytes);
    frame(kind::HEADERS, 1, 1, &block[..3]).write(&mut bytes);
    frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block[3..]).write(&mut bytes);
    for byte in &bytes {
        server.bytes(&[*byte]).expect("accepted");
    }
    let keys = requested(&server.events());
    assert_eq!(taken(&mut server, keys[0]), numbers);
}

#[test]
fn what_does_not_match_ends_the_connection() {
    let protocol = ErrorCode::PROTOCOL_ERROR;
    let cases: [(&str, usize, &[Frame]); 7] = [
        ("on stream 0", 1, &[announced(0, 1)]),
        ("more than may come", 5, &[announced(1, 5)]),
        ("no HEADERS follows", 1, &[announced(1, 1), ping(*b"12345678")]),
        ("HEADERS of another stream", 1, &[announced(1, 1), request(3, true)]),
        ("no set", 0, &[announced(1, 1), request(1, true)]),
        ("another number", 2, &[announced(1, 1), request(1, true)]),
        ("no frame", 1, &[request(1, true)]),
    ];
    for (case, sent, frames) in cases {
        let mut server = Tested::server_with(taking(4));
        if sent > 0 {
            server.connection.receive_set(set(sent).0);
        }
        let error = server.send(frames).expect_err(case);
        server.failed(protocol, error);
    }
    let mut server = Tested::server_with(taking(4));
    server.fails(ErrorCode::FRAME_SIZE_ERROR, &[frame(kind::DESCRIPTORS, 0, 1, [1, 1])]);
    let mut server = Tested::server_with(taking(4));
    server.open_request(false);
    server.connection.receive_set(set(1).0);
    server.fails(protocol, &[announced(1, 1), headers(1, trailers_block(), true)]);
}

#[test]
fn a_set_that_only_an_unfinished_frame_can_claim_is_waited_for() {
    for (rest, fine) in [
        (&b"\0\0"[..], true),
        (b"\0\0\x01\xfd\0\0", true),
        (b"\0\0\x04\x08\0\0", false),
        (b"", false),
    ] {
        let mut server = Tested::server_with(taking(4));
        server.connection.receive_set(set(1).0);
        assert_eq!(server.bytes(rest).is_ok(), fine, "{rest:?}");
    }
    let mut server = Tested::server_with(taking(4));
    server.connection.receive_set(set(1).0);
    server.connection.receive_set(set(1).0);
    assert!(server.bytes(b"\0\0").is_err(), "two sets for one frame");
}

#[test]
fn a_server_that_takes_none_ignores_the_frame_as_any_unknown_one() {
    let mut server = Tested::server();
    let events = server.accept(&[announced(1, 1), ping(*b"12345678"), request(1, true)]);
    assert_eq!(requested(&events).len(), 1);
}

#[test]
fn a_set_beyond_a_quota_or_cut_short_by_the_kernel_comes_as_the_reason() {
    let mut server = Tested::server_with(taking(4));
    let quota = Quota::new(1);
    server.connection.receive_set(ReceivedSet::new(descriptors(2), false, &[quota], None));
    server.connection.receive_set(ReceivedSet::new(descriptors(1), true, &[], None));
    let frames = [announced(1, 2), request(1, true), announced(3, 4), request(3, true)];
    let keys = requested(&server.accept(&frames));
    for key in keys {
        let arrived = server.connection.take_descriptors(key).expect("an arrival");
        assert!(arrived.set.is_err());
    }
}

#[test]
fn a_call_whose_descriptors_could_not_be_sent_does_not_begin() {
    let mut server = Tested::server_with(taking(4));
    let events = server.accept(&[announced(1, 0), request(1, true), request(3, true)]);
    assert_eq!(requested(&events).len(), 1);
    assert_eq!(server.frames(), [rst(1, ErrorCode::CANCEL)]);

    let mut client = Tested::client_with(taking(4), &[]);
    let key = client.start_request(true);
    let response = headers(1, response_block(), false);
    let events = client.accept(&[announced(1, 0), response]);
    assert!(matches!(&events[..], [Event::Reset { stream, .. }] if *stream == key));
}

/// What one write takes.
fn written(tested: &mut Tested) -> Vec<Frame> {
    let mut slices = [IoSlice::new(&[]); 8];
    let count = tested.connection.outgoing(&mut slices);
    let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
    tested.connection.advance(bytes.len());
    parse(&bytes)
}

#[test]
fn a_set_leaves_with_the_first_byte_of_its_frame() {
    let mut client = Tested::client_with(taking(1), &[(DESCRIPTORS, 2)]);
    let headers = http::HeaderMap::new();
    let plain = client.connection.send_request(head(&headers), true).unwrap();
    let set = Descriptors::from(descriptors(2));
    let request = crate::http2::SendRequest { descriptors: Some(&set), ..head(&headers) };
    let key = client.connection.send_request(request, true).unwrap();
    assert_ne!(plain, key);

    // Up to the frame, then the frame alone, then the rest.
    assert!(client.connection.contiguous().is_none());
    assert!(!client.connection.is_set_next());
    assert_eq!(written(&mut client)[0].kind, kind::HEADERS);
    assert!(client.connection.is_set_next());
    assert_eq!(client.connection.next_set().unwrap().count(), 2);
    assert_eq!(written(&mut client), [announced(3, 2)]);
    client.connection.set_sent();
    assert!(client.connection.contiguous().is_some());
    assert_eq!(client.frames()[0].kind, kind::HEADERS);

    let many = Descriptors::from(descriptors(3));
    let request = crate::http2::SendRequest { descriptors: Some(&many), ..head(&headers) };
    let refused = client.connection.send_request(request, true);
    assert_eq!(refused, Err(NotNow::TooManyDescriptors { limit: 2 }));

    // The caller has taken them back while the call waited.
    let none = Descriptors::new();
    let request = crate::http2::SendRequest { descriptors: Some(&none), ..head(&headers) };
    client.connection.send_request(request, true).unwrap();
    assert_eq!(client.frames()[0].kind, kind::HEADERS);
}

#[test]
fn a_responses_descriptors_are_closed_when_its_call_is_cancelled_before_they_were_sent() {
    let mut server = Tested::server_with(taking(4));
    server.accept(&[settings(&[(DESCRIPTORS, 4)])]);
    let (first, second) = (server.request_on(1, true), server.request_on(3, true));
    server.frames();
    let sets = [1, 2].map(|count| Descriptors::from(descriptors(count)));
    for (key, set) in [first, second].into_iter().zip(&sets) {
        server.connection.send_descriptors(key, set);
        server.connection.send_response(key, StatusCode::OK, &http::HeaderMap::new(), true);
        server.connection.forget(key);
    }
    server.accept(&[rst(3, ErrorCode::CANCEL)]);
    assert_eq!((sets[0].len(), sets[1].len()), (1, 0));
    // A stream that the server itself resets.
    let third = server.request_on(5, true);
    let set = Descriptors::from(descriptors(1));
    server.connection.send_descriptors(third, &set);
    server.connection.send_response(third, StatusCode::OK, &http::HeaderMap::new(), false);
    server.connection.reset(third, ErrorCode::INTERNAL_ERROR);
    assert!(set.is_empty());
}

#[test]
fn a_set_that_cannot_be_sent_says_so_and_its_call_fails() {
    let mut client = Tested::client_with(taking(1), &[(DESCRIPTORS, 2)]);
    let headers = http::HeaderMap::new();
    let set = Descriptors::from(descriptors(1));
    let request = crate::http2::SendRequest { descriptors: Some(&set), ..head(&headers) };
    let key = client.connection.send_request(request, true).unwrap();
    client.connection.void_set("too many are on their way");
    let frames = client.frames();
    assert_eq!(frames[0], announced(1, 0));
    assert_eq!(frames[1].kind, kind::HEADERS);
    assert_eq!(frames[2], rst(1, ErrorCode::ENHANCE_YOUR_CALM));
    let events = client.events();
    assert!(
        matches!(&events[..], [Event::Reset { stream, reset }]
            if *stream == key && reset.why == "too many are on their way"),
        "{events:?}"
    );
}

#[test]
fn a_client_that_has_sent_some_is_asked_for_a_sign_of_life_while_it_has_calls() {
    let second = std::time::Duration::from_secs(1);
    for sends in [true, false] {
        let mut server = Tested::server_with(taking(1));
        if sends {
            server.connection.receive_set(set(1).0);
            server.accept(&[announced(1, 1), request(1, true)]);
        } else {
            server.accept(&[request(1, true)]);
        }
        let now = server.now;
        server.connection.note_time(now);
        if !sends {
            assert_eq!(server.connection.next_timeout(), None);
            continue;
        }
        assert_eq!(server.connection.next_timeout(), Some(now + 60 * second));
        server.connection.on_timeout(now + 60 * second).unwrap();
        assert_eq!(server.frames()[0].kind, kind::PING);
        let dead = server.connection.on_timeout(now + 80 * second).unwrap_err();
        server.failed(ErrorCode::NO_ERROR, dead);
    }
}
