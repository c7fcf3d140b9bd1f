//! RFC 9113 §8: valid and malformed messages.

use std::task::Poll;

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};

use super::raw::*;
use super::seen::Event;
use crate::http2::error::ErrorCode;
use crate::http2::{Body, Config, Content, ProtocolEvent as Told, ReceiveOutcome, StreamKey};

const PROTOCOL_ERROR: ErrorCode = ErrorCode::PROTOCOL_ERROR;

fn tcp() -> Config {
    Config { any_authority: false, ..Config::default() }
}

/// Returns REQUEST with one field replaced, or left out.
fn request_but(name: &str, value: Option<&[u8]>) -> Vec<u8> {
    let fields: Vec<_> = REQUEST
        .iter()
        .filter_map(|(n, v)| if *n == name { Some((*n, value?)) } else { Some((*n, *v)) })
        .collect();
    block(&fields)
}

#[track_caller]
fn malformed(block: Vec<u8>) {
    malformed_for(Config::default(), block);
}

#[track_caller]
fn malformed_for(config: Config, block: Vec<u8>) {
    let mut server = Tested::server_with(config);
    let events = server.resets(1, PROTOCOL_ERROR, &[headers(1, block, true)]);
    assert!(events.is_empty());
    assert_eq!(server.connection.active_streams(), 0);
}

#[track_caller]
fn well_formed(config: Config, block: Vec<u8>) -> std::sync::Arc<crate::http2::RequestHead> {
    let mut server = Tested::server_with(config);
    match server.accept(&[headers(1, block, true)]).pop() {
        Some(Event::Request { head, .. }) => head,
        event => panic!("{event:?} {:?}", server.frames()),
    }
}

#[test]
fn a_request_is_taken_apart() {
    let head = well_formed(Config::default(), request_with(&[("x-bin", b"AQ"), ("x-bin", b"Ag")]));
    assert_eq!(head.method, http::Method::POST);
    assert_eq!(head.scheme, http::uri::Scheme::HTTP);
    assert_eq!(head.path, "/a.B/C");
    assert_eq!(head.authority.as_deref(), Some(&b"localhost"[..]));
    assert_eq!(head.headers.get_all("x-bin").iter().count(), 2);
    assert_eq!(head.headers.len(), 4);
    assert_eq!(head.content_length, None);
}

// ---- §8.3 pseudo-headers -------------------------------------------------------------------

#[test]
fn a_request_without_one_of_its_pseudo_headers_is_malformed() {
    for name in [":method", ":scheme", ":path"] {
        malformed(request_but(name, None));
    }
}

#[test]
fn a_pseudo_header_twice_is_malformed() {
    for (name, value) in &REQUEST[..4] {
        malformed(block(&[&[(*name, *value)], REQUEST].concat()));
    }
}

#[test]
fn a_pseudo_header_after_a_header_is_malformed() {
    malformed(request_with(&[(":path", b"/")]));
    let mut late = REQUEST.to_vec();
    late.swap(3, 4);
    malformed(block(&late));
    malformed(block(&[&REQUEST[..3], &[("a", b"b"), (":authority", b"\x01")]].concat()));
}

#[test]
fn a_pseudo_header_unknown_or_of_another_kind_is_malformed() {
    for name in [":status", ":protocol", ":test", ":"] {
        malformed(block(&[&[(name, &b"200"[..])], REQUEST].concat()));
    }
}

#[test]
fn pseudo_headers_of_impossible_value_are_malformed() {
    malformed(request_but(":path", Some(b"")));
    malformed(request_but(":path", Some(b"a.B/C")));
    malformed(request_but(":path", Some(b"*")));
    malformed(request_but(":path", Some(b"/a b")));
    malformed(request_but(":method", Some(b"")));
    malformed(request_but(":method", Some(b"PO ST")));
    malformed(request_but(":scheme", Some(b"")));
    malformed(request_but(":scheme", Some(b"ht tp")));
    // A fragment is not part of a request's target, and a scheme begins with a letter (RFC 3986).
    malformed(request_but(":path", Some(b"/a.B/C#d")));
    malformed(request_but(":path", Some(b"/a.B/C?d#")));
    malformed(request_but(":scheme", Some(b"1a")));
    malformed(request_but(":scheme", Some(b"+http")));
    well_formed(Config::default(), request_but(":scheme", Some(b"a1+-.")));
    well_formed(Config::default(), request_but(":path", Some(b"/a.B/C?d")));
}

#[test]
fn options_may_ask_for_no_path() {
    let block = block(&[(":method", b"OPTIONS"), (":scheme", b"http"), (":path", b"*")]);
    assert_eq!(well_formed(Config::default(), block).path, "*");
}

#[test]
fn connect_is_answered_with_an_error_of_its_own() {
    let mut server = Tested::server();
    let block = block(&[(":method", b"CONNECT"), (":authority", b"localhost:1")]);
    server.resets(1, ErrorCode::CONNECT_ERROR, &[headers(1, block, true)]);
    malformed(request_but(":method", Some(b"CONNECT")));
}

// ---- :authority ----------------------------------------------------------------------------

#[test]
fn over_a_unix_socket_any_authority_will_do() {
    for authority in [
        &b"localhost"[..],
        b"tmp%2Fa.sock",
        b"/run/app.sock",
        b"",
        b"a b",
        b"\xff\xfe",
        b"\x01\x00\n",
        b"user@host",
    ] {
        let head = well_formed(Config::default(), request_but(":authority", Some(authority)));
        assert_eq!(head.authority.as_deref(), Some(authority));
    }
    let head = well_formed(Config::default(), request_but(":authority", None));
    assert_eq!(head.authority, None);
}

#[test]
fn over_tcp_authority_follows_the_rules() {
    for authority in [&b""[..], b"tmp%2Fa.sock", b"/run/app", b"a b", b"\x01", b"me@host", b"\xff"]
    {
        malformed_for(tcp(), request_but(":authority", Some(authority)));
    }
    malformed_for(tcp(), request_but(":authority", None));
    malformed_for(tcp(), request_with(&[("host", b"elsewhere")]));
    for authority in [&b"localhost"[..], b"127.0.0.1:50051", b"[::1]:50051", b"a.example"] {
        well_formed(tcp(), request_but(":authority", Some(authority)));
    }
    well_formed(tcp(), request_with(&[("host", b"LOCALHOST")]));
    let without: Vec<_> =
        REQUEST.iter().filter(|(name, _)| *name != ":authority").copied().collect();
    well_formed(tcp(), block(&[&without, &[("host", &b"localhost"[..])][..]].concat()));
}

// ---- §8.2 fields ---------------------------------------------------------------------------

#[test]
fn forbidden_bytes_in_a_field_are_malformed() {
    malformed(request_with(&[("X-Upper", b"a")]));
    malformed(request_with(&[("x y", b"a")]));
    malformed(request_with(&[("", b"a")]));
    malformed(request_with(&[("x", b"a\0b")]));
    malformed(request_with(&[("x", b"a\r\nb")]));
}

#[test]
fn connection_specific_fields_are_malformed() {
    for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"] {
        malformed(request_with(&[(name, b"x")]));
    }
    malformed(request_with(&[("te", b"trailers, deflate")]));
    malformed(request_with(&[("te", b"")]));
}

// ---- §8.1 messages -------------------------------------------------------------------------

#[test]
fn a_request_may_have_trailers_which_end_it() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let events = server.accept(&[data(1, "x", false), headers(1, trailers_block(), true)]);
    assert!(matches!(&events[..],
        [Event::Data { end: false, .. }, Event::Trailers { stream, headers }]
            if *stream == key && headers["grpc-status"] == "0"));
}

#[test]
fn a_second_head_that_does_not_end_the_stream_is_malformed() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.resets_known(key, PROTOCOL_ERROR, &[headers(1, trailers_block(), false)]);
}

#[test]
fn trailers_with_pseudo_headers_or_bad_fields_are_malformed() {
    for field in [(":path", &b"/"[..]), (":status", b"200"), ("connection", b"close"), ("X", b"y")]
    {
        let mut server = Tested::server();
        let key = server.open_request(false);
        server.resets_known(key, PROTOCOL_ERROR, &[headers(1, block(&[field]), true)]);
    }
}

// ---- §8.1.1 content-length -----------------------------------------------------------------

#[test]
fn data_has_to_add_up_to_content_length() {
    let with = |length: &[u8]| request_with(&[("content-length", length)]);
    let ok: &[&[Frame]] = &[
        &[headers(1, with(b"3"), false), data(1, "ab", false), data(1, "c", true)],
        &[headers(1, with(b"3"), false), data(1, "abc", false), headers(1, trailers_block(), true)],
        &[headers(1, with(b"0"), true)],
        &[headers(1, with(b"0"), false), data(1, "", true)],
    ];
    for frames in ok {
        let mut server = Tested::server();
        server.accept(frames);
        assert!(server.frames().is_empty());
    }
    let short: &[&[Frame]] = &[
        &[headers(1, with(b"3"), true)],
        &[headers(1, with(b"3"), false), data(1, "ab", true)],
        &[headers(1, with(b"3"), false), data(1, "ab", false), data(1, "cd", false)],
        &[headers(1, with(b"3"), false), data(1, "ab", false), headers(1, trailers_block(), true)],
        &[headers(1, with(b"0"), false), data(1, "a", false)],
    ];
    for frames in short {
        let mut server = Tested::server();
        server.resets(1, PROTOCOL_ERROR, frames);
    }
    for length in [&b"x"[..], b"", b"-1", b"+1", b"1 ", b"99999999999999999999"] {
        malformed(with(length));
    }
    malformed(request_with(&[("content-length", b"1"), ("content-length", b"2")]));
    let head = well_formed(
        Config::default(),
        request_with(&[("content-length", b"0"), ("content-length", b"00")]),
    );
    assert_eq!(head.content_length, Some(0));
}

// ---- responses -----------------------------------------------------------------------------

#[test]
fn a_response_comes_as_head_data_and_trailers() {
    let mut client = Tested::client();
    let key = client.start_request(true);
    let events = client.accept(&[
        headers(1, block(&[(":status", b"103"), ("link", b"x")]), false),
        headers(1, block(&[(":status", b"100")]), false),
        headers(1, response_block(), false),
        data(1, "abc", false),
        headers(1, trailers_block(), true),
    ]);
    match &events[..] {
        // Informational responses are skipped.
        [
            Event::Response { stream, head, end: false },
            Event::Data { end: false, .. },
            Event::Trailers { .. },
        ] => {
            assert_eq!(head.status, StatusCode::OK);
            assert_eq!(*stream, key);
        }
        events => panic!("{events:?}"),
    }
    client.connection.forget(key);
    assert!(client.frames().is_empty());
    assert_eq!(client.connection.active_streams(), 0);
}

/// Receives a whole response without reading it, and returns the memory that the data came in.
fn unread_response(client: &mut Tested, stream: u32, body: &str) -> std::ops::Range<*const u8> {
    let frames = [
        headers(stream, response_block(), false),
        data(stream, body, false),
        headers(stream, trailers_block(), true),
    ];
    client.input = BytesMut::with_capacity(16 * 1024);
    frames.iter().for_each(|frame| frame.write(&mut client.input));
    let input = client.input.as_ptr();
    let read = client.connection.receive(&mut client.input, client.now);
    assert_eq!(read, Ok(ReceiveOutcome::All));
    input..input.wrapping_add(16 * 1024)
}

fn content(client: &mut Tested, key: StreamKey) -> Content {
    match client.connection.take_response(key) {
        Poll::Ready(Ok((_, Body::Whole(content)))) => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_data_of_a_whole_response_is_lent_until_more_is_received() {
    let mut client = Tested::client();
    let keys = [(); 3].map(|()| client.start_request(true));
    let buffer = unread_response(&mut client, 1, "first");
    let first = content(&mut client, keys[0]);
    let (piece, is_own) = first.pieces.into_single(|_| true).unwrap();
    assert_eq!(piece, "first");
    assert!(!is_own && buffer.contains(&piece.as_ptr()));
    drop(piece);
    assert!(client.input.try_reclaim(16 * 1024), "nothing else keeps the buffer");

    let buffer = unread_response(&mut client, 3, "second");
    // `pop` is for callers that keep the piece, so it returns a copy.
    let piece = content(&mut client, keys[1]).pieces.pop().unwrap();
    assert!(piece == "second" && !buffer.contains(&piece.as_ptr()));

    let buffer = unread_response(&mut client, 5, "third");
    client.input = BytesMut::new();
    client.send(&[ping([7; 8])]).expect("a PING");
    let (piece, is_own) = content(&mut client, keys[2]).pieces.into_single(|_| true).unwrap();
    assert!(is_own && piece == "third" && !buffer.contains(&piece.as_ptr()));
    assert_eq!(client.connection.buffered(), 17, "only the answer to the PING");
}

#[test]
fn a_response_that_is_malformed_resets_the_stream() {
    for (block, end) in [
        (block(&[("a", b"b")]), false),
        (block(&[(":status", b"20")]), false),
        (block(&[(":status", b"2000")]), false),
        (block(&[(":status", b"abc")]), false),
        (block(&[(":status", b"101")]), false),
        (block(&[(":status", b"100")]), true),
        (block(&[(":status", b"200"), (":status", b"200")]), false),
        (block(&[(":status", b"200"), (":path", b"/")]), false),
        (block(&[("a", b"b"), (":status", b"200")]), false),
        (block(&[(":status", b"200"), ("connection", b"close")]), false),
        (block(&[(":status", b"200"), ("content-length", b"5")]), true),
    ] {
        let mut client = Tested::client();
        let key = client.start_request(true);
        client.resets_known(key, PROTOCOL_ERROR, &[headers(1, block, end)]);
    }
}

#[test]
fn data_before_the_response_is_malformed() {
    let mut client = Tested::client();
    let key = client.start_request(true);
    client.resets_known(key, PROTOCOL_ERROR, &[data(1, "x", false)]);
    let key = client.start_request(true);
    let early = headers(3, block(&[(":status", b"103")]), false);
    client.resets_known(key, PROTOCOL_ERROR, &[early, data(3, "x", false)]);
}

#[test]
fn not_modified_may_name_a_length_it_does_not_have() {
    let mut client = Tested::client();
    client.start_request(true);
    let head = block(&[(":status", b"304"), ("content-length", b"5")]);
    let events = client.accept(&[headers(1, head, true)]);
    assert!(matches!(&events[..], [Event::Response { end: true, .. }]));
    assert!(client.frames().is_empty());
}

#[test]
fn a_response_may_end_before_its_request() {
    let mut client = Tested::client();
    let key = client.start_request(false);
    let events = client.accept(&[headers(1, response_block(), true), rst(1, ErrorCode::NO_ERROR)]);
    match &events[..] {
        [Event::Response { end: true, .. }, Event::Stopped { stream }] => {
            assert_eq!(*stream, key);
        }
        events => panic!("{events:?}"),
    }
    client.connection.forget(key);
    assert!(client.frames().is_empty());
}

#[test]
fn a_server_that_is_done_early_stops_the_request_without_blame() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), true);
    server.connection.forget(key);
    let frames = server.frames();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1], rst(1, ErrorCode::NO_ERROR));
    assert!(server.accept(&[data(1, "late", true)]).is_empty());
    assert!(server.frames().is_empty());
}

#[test]
fn a_handler_that_vanishes_is_an_internal_error_and_a_call_that_vanishes_is_cancelled() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.connection.forget(key);
    assert_eq!(server.frames(), [rst(1, ErrorCode::INTERNAL_ERROR)]);
    let mut client = Tested::client();
    let key = client.start_request(true);
    client.connection.forget(key);
    assert_eq!(client.frames(), [rst(1, ErrorCode::CANCEL)]);
    assert_eq!(client.connection.active_streams(), 0);
    assert!(client.accept(&[headers(1, response_block(), false), data(1, "x", true)]).is_empty());
}

// ---- §10.5.1 size --------------------------------------------------------------------------

#[test]
fn a_header_list_too_large_can_be_answered_and_its_block_is_decoded() {
    let mut server = Tested::server();
    // This adds x: y to the end of the table.
    let big = "z".repeat(9_000);
    let mut block = request_with(&[("a", big.as_bytes()), ("b", big.as_bytes())]);
    block.extend_from_slice(&[0x40, 1, b'x', 1, b'y']);
    let (first, rest) = block.split_at(10_000);
    let events = server.accept(&[
        frame(kind::HEADERS, 0, 1, first),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, rest),
    ]);
    let [Event::RequestTooLarge { stream, .. }] = events[..] else {
        panic!("{events:?}");
    };
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    server.connection.send_response(stream, status, &HeaderMap::new(), true);
    server.connection.forget(stream);
    let frames = server.frames();
    assert_eq!((frames[0].kind, frames[0].stream), (kind::HEADERS, 1));
    assert_eq!(frames[1], rst(1, ErrorCode::NO_ERROR));
    let mut next = request_block();
    next.push(0x80 | 62);
    let events = server.accept(&[headers(3, next, true)]);
    assert!(matches!(&events[..], [Event::Request { head, .. }] if head.headers["x"] == "y"));
}

#[test]
fn a_header_list_of_exactly_the_limit_is_taken() {
    let base: usize = REQUEST.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    for (more, fits) in [(0, true), (1, false)] {
        let filler = vec![b'f'; 1_000 - base - 33 + more];
        let config = Config { max_header_list_size: 1_000, ..Config::default() };
        let mut server = Tested::server_with(config);
        let events = server.accept(&[headers(1, request_with(&[("f", &filler)]), true)]);
        assert_eq!(matches!(&events[..], [Event::Request { .. }]), fits);
        assert_eq!(matches!(&events[..], [Event::RequestTooLarge { .. }]), !fits);
    }
}

/// The trailers come before any handler was called.
#[test]
fn a_request_with_trailers_too_large_is_not_handled() {
    let mut server = Tested::server();
    let trailers = block(&[("x-large", &[b'a'; 20_000][..])]);
    let frames = [vec![request(1, false)], in_frames(1, &trailers, true)].concat();
    assert!(server.accept(&frames).is_empty());
    assert_eq!(server.frames(), [rst(1, ErrorCode::ENHANCE_YOUR_CALM)]);
    assert_eq!(server.connection.active_streams(), 0);
}

#[test]
fn trailers_too_large_reset_the_stream() {
    let mut client = Tested::client();
    let key = client.start_request(true);
    client.accept(&[headers(1, response_block(), false)]);
    let fields = [("grpc-message", &[b'z'; 800][..]); 20];
    let trailers = headers(1, block(&fields), true);
    let reset = client.resets_known(key, ErrorCode::ENHANCE_YOUR_CALM, &[trailers]);
    assert_eq!(reset.limit, Some(16_384));
}

/// Returns `block` in as many frames as it needs.
fn in_frames(stream: u32, block: &[u8], end: bool) -> Vec<Frame> {
    let chunks = block.chunks(16_384);
    let last = chunks.len() - 1;
    let frames = chunks.enumerate().map(|(n, chunk)| {
        let end_headers = if n == last { flag::END_HEADERS } else { 0 };
        match n {
            0 => frame(kind::HEADERS, end_headers | u8::from(end), stream, chunk),
            _ => frame(kind::CONTINUATION, end_headers, stream, chunk),
        }
    });
    frames.collect()
}

#[test]
fn a_block_up_to_a_mebibyte_costs_its_call_alone_at_a_server() {
    let mut server = Tested::server();
    let other = server.open_request(false);
    for (id, size) in [(3, 17_000), (5, 110_000), (7, 1_000_000)] {
        let block = request_with(&[("x-large", &vec![b'a'; size])]);
        let events = server.accept(&in_frames(id, &block, true));
        let [Event::RequestTooLarge { stream, foreign: false, limit: 16_384 }] = events[..] else {
            panic!("{events:?}");
        };
        server.connection.forget(stream);
    }
    // A request that is not gRPC gets an HTTP error, wherever its content type comes.
    for first in [false, true] {
        let large = ("x-large", &[b'a'; 20_000][..]);
        let kind = ("content-type", &b"text/plain"[..]);
        let fields = if first { [kind, large] } else { [large, kind] };
        let block = block(&[&REQUEST[..4], &fields].concat());
        let id = 9 + 2 * u32::from(first);
        let events = server.accept(&in_frames(id, &block, true));
        assert!(
            matches!(&events[..], [Event::RequestTooLarge { foreign: true, .. }]),
            "{events:?}"
        );
    }
    // So does another method than POST, wherever that comes.
    for first in [false, true] {
        let large = (":path", &[&b"/"[..], &[b'a'; 20_000]].concat()[..]);
        let method = (":method", &b"GET"[..]);
        let fields = if first { [method, large] } else { [large, method] };
        let block = block(&[&fields[..], &[REQUEST[1], REQUEST[3]]].concat());
        let id = 13 + 2 * u32::from(first);
        let events = server.accept(&in_frames(id, &block, true));
        assert!(
            matches!(&events[..], [Event::RequestTooLarge { foreign: true, .. }]),
            "{events:?}"
        );
    }
    server.answer(other, b"unharmed");
    // A block beyond that is not needed by any peer.
    let endless = request_with(&[("x-large", &vec![b'a'; 1 << 20])]);
    server.fails(ErrorCode::ENHANCE_YOUR_CALM, &in_frames(17, &endless, true));
}

#[test]
fn a_block_up_to_a_mebibyte_costs_its_call_alone_at_a_client() {
    let mut client = Tested::client();
    let other = client.start_request(true);
    for size in [17_000, 110_000, 1_000_000] {
        let large = ("grpc-message", &vec![b'a'; size][..]);
        let (head, trailers) = (client.start_request(true), client.start_request(true));
        let block = block(&[(":status", b"200"), ("grpc-status", b"3"), large]);
        let frames = in_frames(head.id(), &block, true);
        let reset = client.resets_known(head, ErrorCode::ENHANCE_YOUR_CALM, &frames);
        assert_eq!(reset.limit, Some(16_384));
        client.accept(&[headers(trailers.id(), response_block(), false)]);
        let block = super::raw::block(&[("grpc-status", b"3"), large]);
        let frames = in_frames(trailers.id(), &block, true);
        client.resets_known(trailers, ErrorCode::ENHANCE_YOUR_CALM, &frames);
    }
    let events = client.accept(&[headers(other.id(), response_block(), true)]);
    assert!(matches!(&events[..], [Event::Response { .. }]), "{events:?}");
}

#[test]
fn a_block_that_has_not_ended_counts_as_held() {
    let mut server = Tested::server();
    assert_eq!(server.connection.buffered(), 0);
    server.accept(&[
        frame(kind::HEADERS, 0, 1, [0x82; 16_000]),
        frame(kind::CONTINUATION, 0, 1, [0x82; 16_000]),
    ]);
    assert!(server.connection.buffered() >= 32_000);
}

#[test]
fn binary_values_joined_by_commas_count_as_they_are_taken_apart() {
    const JOINED: &[u8] = &[b','; 3_000];
    let mut server = Tested::server();
    server.accept(&[headers(1, block(&[REQUEST, &[("a", JOINED)]].concat()), false)]);
    let text = server.connection.call_bytes();
    assert!(text < 10_000, "{text}");
    server.accept(&[headers(3, block(&[REQUEST, &[("a-bin", JOINED)]].concat()), false)]);
    let binary = server.connection.call_bytes() - text;
    // An entry of a `HeaderMap` is 72 bytes.
    assert!(binary > 3_000 * 72, "{binary}");
}

#[test]
fn a_call_counts_with_its_fields_until_it_is_over() {
    let mut server = Tested::server();
    let names: Vec<String> = (0..450).map(|n| format!("{n:03}")).collect();
    let fields: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    // Decoded, they are a map of over 80 KiB and as many names.
    let heavy = block(&[REQUEST, &fields].concat());
    let plain = server.request_on(1, false);
    let one = server.connection.call_bytes();
    assert!((4_096..8_192).contains(&one), "{one}");
    let events = server.accept(&[headers(3, &heavy, false)]);
    let [Event::Request { stream, .. }] = &events[..] else { panic!("{events:?}") };
    let both = server.connection.call_bytes();
    assert!((90_000..140_000).contains(&(both - one)), "{both}");
    // A handler that has the head still holds it. So do trailers.
    let trailers = block(&fields);
    server.send(&[headers(3, &trailers, true)]).expect("trailers");
    assert!(server.connection.call_bytes() > both + 80_000);
    server.connection.forget(*stream);
    assert_eq!(server.connection.call_bytes(), one);
    server.connection.forget(plain);
    server.frames();
    assert_eq!(server.connection.call_bytes(), 0);
}

#[test]
fn a_message_counts_until_its_call_is_over() {
    let mut server = Tested::server();
    let key = server.request_on(1, false);
    let call = server.connection.call_bytes();
    server.connection.hold(key, 1 << 20);
    assert_eq!(server.connection.call_bytes(), call + (1 << 20));
    server.connection.forget(key);
    server.connection.hold(key, 1 << 20);
    assert_eq!(server.connection.call_bytes(), 0);
    // A message that has arrived whole counts by itself.
    let at_once = [headers(3, request_block(), false), data(3, [7; 20_000], true)];
    server.send(&at_once).expect("a request");
    let Some(Told::Opened(key)) = server.connection.poll_event() else { panic!("no request") };
    server.connection.take_request(key).expect("a request");
    assert!(server.connection.call_bytes() >= 20_000 + 4_096);
}

/// Requests whose path is in the table, each with another field. They come twice, so that their heads
/// are kept.
fn keep_heads(server: &mut Tested, mut id: u32, path: &[u8]) {
    let length = [127, (path.len() - 127) as u8 & 0x7f | 0x80, ((path.len() - 127) >> 7) as u8];
    let first = [&[0x83, 0x86, 0x44][..], &length, path].concat();
    let indexed = |other: u8| vec![0x83, 0x86, 0x80 | 62, 0x80 | other];
    let others = (15..23).flat_map(|other| [indexed(other), indexed(other)]);
    for block in std::iter::once(first).chain(others) {
        let events = server.accept(&[headers(id, block, true)]);
        let [Event::Request { stream, .. }] = events[..] else { panic!("{events:?}") };
        server.connection.forget(stream);
        id += 2;
    }
    server.frames();
}

#[test]
fn what_a_connection_keeps_beside_its_calls_counts() {
    let mut server = Tested::server();
    server.open_request(false);
    let mut before = server.connection.table_bytes();
    assert!(before < 2_000, "{before}");
    let mut more = |server: &Tested| {
        let now = server.connection.table_bytes();
        now - std::mem::replace(&mut before, now)
    };
    for n in 1..3_000 {
        let key = server.request_on(2 * n + 1, false);
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), true);
        server.connection.forget(key);
        server.frames();
    }
    let resets = more(&server);
    assert!((12_000..16_000).contains(&resets), "{resets}");

    keep_heads(&mut server, 6_001, &[b'/'; 3_000]);
    let heads = more(&server);
    assert!((8 * 3_000..8 * 5_000).contains(&heads), "{heads}");

    // As many entries as the table can have.
    let entries = (0..124).flat_map(|n| [0x40, 1, b'a' + n % 26, 0]);
    server.send(&[headers(7_001, [request_block(), entries.collect()].concat(), true)]).unwrap();
    let entries = more(&server);
    assert!((8_000..13_000).contains(&entries), "{entries}");
}

#[test]
fn streams_that_were_reset_are_no_longer_kept_without_calls() {
    let mut server = Tested::server();
    for n in 0..100 {
        let key = server.request_on(2 * n + 1, false);
        server.connection.forget(key);
    }
    server.frames();
    let before = server.connection.table_bytes();
    server.connection.trim();
    assert!(server.connection.table_bytes() + 1_000 < before);
    // Data may have been under way.
    assert!(server.accept(&[data(199, "late", false)]).is_empty());
}

// ---- header cache --------------------------------------------------------------------------

#[test]
fn heads_that_the_table_no_longer_has_are_dropped() {
    let mut server = Tested::server();
    keep_heads(&mut server, 1, &[b'/'; 3_000]);
    let before = server.connection.table_bytes();
    // One more entry makes all of them outdated. The next block that might be kept shows that.
    let entry = [request_block(), vec![0x40, 1, b'a', 1, b'b']].concat();
    server.accept(&[headers(101, entry, true), headers(103, [0x83, 0x86, 0x84], true)]);
    assert!(server.connection.table_bytes() + 8 * 3_000 < before);
}

#[test]
fn a_block_seen_before_means_what_the_table_says_now() {
    let mut server = Tested::server();
    // The method and similar fields are from the static table, the rest from entries 62 and 63.
    let indexed = [0x83, 0x86, 0x84, 0x80 | 62, 0x80 | 63];
    let mut first = vec![0x83, 0x86, 0x84];
    first.extend_from_slice(&[0x40, 1, b'a', 1, b'1', 0x40, 1, b'b', 1, b'2']);
    server.accept(&[headers(1, &first, true)]);
    let get = |events: Vec<Event>| match &events[..] {
        [Event::Request { head, .. }] => head.clone(),
        events => panic!("{events:?}"),
    };
    let mut heads = Vec::new();
    for n in 0..4 {
        heads.push(get(server.accept(&[headers(3 + 2 * n, indexed, true)])));
        assert_eq!(heads[n as usize].headers["a"], "1");
    }
    assert!(std::sync::Arc::ptr_eq(&heads[2], &heads[3]), "from memory");
    // After one more entry, 62 and 63 are different ones.
    let mut third = indexed.to_vec();
    third.extend_from_slice(&[0x40, 1, b'c', 1, b'3']);
    server.accept(&[headers(11, &third, true)]);
    let head = get(server.accept(&[headers(13, indexed, true)]));
    assert!(!head.headers.contains_key("a"));
    assert_eq!(
        (&head.headers["c"], &head.headers["b"]),
        (&"3".parse().unwrap(), &"2".parse().unwrap())
    );
}

#[test]
fn the_same_block_is_a_request_or_trailers_by_where_it_stands() {
    let mut server = Tested::server();
    let block = block(&[("a", b"b")]);
    for id in [1, 3, 5, 7] {
        server.request_on(id, false);
        let events = server.accept(&[headers(id, &block, true)]);
        assert!(matches!(&events[..], [Event::Trailers { .. }]));
    }
    server.resets(9, PROTOCOL_ERROR, &[headers(9, &block, true)]);
}
