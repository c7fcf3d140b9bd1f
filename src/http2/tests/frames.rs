//! RFC 9113 §3.4, §4 and §6: the preface, and frames one by one.

use super::raw::*;
use super::seen::Event;
use crate::http2::Config;
use crate::http2::error::ErrorCode;

const FRAME_SIZE_ERROR: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const PROTOCOL_ERROR: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;

fn fresh_server() -> Tested {
    let now = std::time::Instant::now();
    let mut connection = crate::http2::Connection::server(Config::default(), now);
    drain(&mut connection);
    Tested { connection, now, input: Default::default() }
}

// ---- §3.4 ----------------------------------------------------------------------------------

#[test]
fn both_ends_begin_with_settings() {
    let now = std::time::Instant::now();
    let mut client = crate::http2::Connection::client(Config::default(), now);
    let bytes = drain(&mut client);
    let (preface, rest) = bytes.split_at(24);
    assert_eq!(preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(
        parse(rest),
        [
            settings(&[(2, 0), (4, 65_535), (5, 40_960), (6, 16_384)]),
            window_update(0, (4 << 20) - 65_535)
        ]
    );
    let mut server = crate::http2::Connection::server(Config::default(), now);
    assert_eq!(
        parse(&drain(&mut server)),
        [
            settings(&[(3, 256), (4, 65_535), (5, 40_960), (6, 16_384)]),
            window_update(0, (4 << 20) - 65_535)
        ]
    );
}

#[test]
fn a_preface_that_is_none_fails_at_its_first_wrong_byte() {
    let mut server = fresh_server();
    server.bytes(b"PRI * HTTP/").expect("so far so good");
    let error = server.bytes(b"1").expect_err("HTTP/1");
    server.failed(PROTOCOL_ERROR, error);

    let mut server = fresh_server();
    let error = server.bytes(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect_err("HTTP/1.1");
    server.failed(PROTOCOL_ERROR, error);
}

#[test]
fn the_first_frame_must_be_settings() {
    let mut server = Tested::greeted_server(Config::default());
    server.fails(PROTOCOL_ERROR, &[ping(*b"01234567")]);
    let mut server = Tested::greeted_server(Config::default());
    server.fails(PROTOCOL_ERROR, &[settings_ack()]);
    let mut server = Tested::greeted_server(Config::default());
    // The nine bytes alone show it.
    let error = server.bytes(&[0, 64, 0, 1, 4, 0, 0, 0, 1]).expect_err("HEADERS");
    server.failed(PROTOCOL_ERROR, error);
}

// ---- §4 ------------------------------------------------------------------------------------

#[test]
fn unknown_frames_flags_and_reserved_bits_are_ignored() {
    let mut server = Tested::server();
    assert!(server.accept(&[frame(0x16, 0xff, 0, [1; 8]), frame(0x10, 0, 0, [0; 4])]).is_empty());
    assert!(server.accept(&[frame(0xff, 0, 3, [])]).is_empty());
    assert!(
        server
            .accept(&[frame(kind::PING, 0xfe & !flag::ACK, 0x8000_0000, *b"01234567")])
            .is_empty()
    );
    assert_eq!(server.frames(), [frame(kind::PING, flag::ACK, 0, *b"01234567")]);
}

#[test]
fn a_frame_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let events = server.accept(&[data(1, vec![7; 40_960], false)]);
    assert!(matches!(&events[..], [Event::Data { stream, bytes, end: false }]
        if *stream == key && bytes.len() == 40_960));
    server.fails(FRAME_SIZE_ERROR, &[data(1, vec![7; 40_961], false)]);

    let config = Config { max_frame_size: 20_000, ..Config::default() };
    let mut server = Tested::server_with(config);
    server.open_request(false);
    assert_eq!(server.accept(&[data(1, vec![7; 20_000], false)]).len(), 1);
    server.fails(FRAME_SIZE_ERROR, &[frame(0x77, 0, 1, vec![7; 20_001])]);
}

#[test]
fn a_frame_too_large_fails_before_it_has_arrived() {
    let mut server = Tested::server();
    let error = server.bytes(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]).expect_err("16 MiB");
    server.failed(FRAME_SIZE_ERROR, error);
}

#[test]
fn a_header_block_that_hpack_cannot_read_ends_the_connection() {
    for block in [&[0x80][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x40, 5, b'a'], &[0xc5]] {
        let mut server = Tested::server();
        server.fails(ErrorCode::COMPRESSION_ERROR, &[headers(1, block, true)]);
    }
}

// ---- §6.1 DATA -----------------------------------------------------------------------------

#[test]
fn data_on_stream_0_is_a_connection_error() {
    Tested::server().fails(PROTOCOL_ERROR, &[data(0, "x", false)]);
}

#[test]
fn padding_is_cut_off() {
    let mut server = Tested::server();
    server.open_request(false);
    let mut padded = vec![3];
    padded.extend_from_slice(b"abc\0\0\0");
    let events = server.accept(&[frame(kind::DATA, flag::PADDED, 1, padded)]);
    assert!(matches!(&events[..], [Event::Data { bytes, .. }] if bytes == "abc"));
    // It is large enough to be cut out of the input, and another frame follows.
    let mut padded = vec![200];
    padded.extend_from_slice(&[b'z'; 9_000]);
    padded.extend_from_slice(&[0; 200]);
    let events = server.accept(&[
        frame(kind::DATA, flag::PADDED, 1, padded),
        data(1, "tail", false),
        frame(kind::DATA, flag::PADDED | flag::END_STREAM, 1, [0]),
    ]);
    let mut whole = Vec::new();
    for event in &events {
        let Event::Data { bytes, .. } = event else { panic!("{events:?}") };
        whole.extend_from_slice(bytes);
    }
    assert!(matches!(events.last(), Some(Event::Data { end: true, .. })), "{events:?}");
    assert_eq!(whole, [&[b'z'; 9_000][..], b"tail"].concat());
}

#[test]
fn padding_longer_than_its_frame_is_a_connection_error() {
    for kind in [kind::DATA, kind::HEADERS] {
        for payload in [&[1][..], &[4, 0, 0, 0], &[255, 1, 2]] {
            let mut server = Tested::server();
            server.open_request(false);
            let frame = frame(kind, flag::PADDED | flag::END_HEADERS, 1, payload);
            server.fails(PROTOCOL_ERROR, &[frame]);
        }
    }
}

#[test]
fn a_padded_frame_without_a_pad_length_is_a_connection_error() {
    let mut server = Tested::server();
    server.open_request(false);
    server.fails(FRAME_SIZE_ERROR, &[frame(kind::DATA, flag::PADDED, 1, [])]);
}

// ---- §6.2 HEADERS --------------------------------------------------------------------------

#[test]
fn headers_may_be_padded_and_have_a_priority() {
    let mut payload = vec![4, 0x80, 0, 0, 0, 15];
    payload.extend_from_slice(&request_block());
    payload.extend_from_slice(&[0; 4]);
    let flags = flag::PADDED | flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM;
    let events = Tested::server().accept(&[frame(kind::HEADERS, flags, 1, payload)]);
    assert!(
        matches!(&events[..], [Event::Request { head, end: true, .. }] if head.path == "/a.B/C")
    );
}

#[test]
fn headers_on_stream_0_is_a_connection_error() {
    Tested::server().fails(PROTOCOL_ERROR, &[headers(0, request_block(), true)]);
}

#[test]
fn headers_too_short_for_their_priority_are_a_connection_error() {
    let frame = frame(kind::HEADERS, flag::PRIORITY | flag::END_HEADERS, 1, [0; 4]);
    Tested::server().fails(FRAME_SIZE_ERROR, &[frame]);
}

#[test]
fn headers_that_depend_on_themselves_are_a_stream_error_and_are_decoded() {
    let mut server = Tested::server();
    let mut payload = vec![0, 0, 0, 1, 0];
    // This adds x: y to the table.
    payload.extend_from_slice(&request_block());
    payload.extend_from_slice(&[0x40, 1, b'x', 1, b'y']);
    let flags = flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM;
    server.resets(1, PROTOCOL_ERROR, &[frame(kind::HEADERS, flags, 1, payload)]);
    let mut next = request_block();
    next.push(0x80 | 62);
    let events = server.accept(&[headers(3, next, true)]);
    assert!(matches!(&events[..], [Event::Request { head, .. }] if head.headers["x"] == "y"));
}

// ---- §6.3 PRIORITY -------------------------------------------------------------------------

#[test]
fn priority_is_checked_and_ignored_in_every_state() {
    let mut server = Tested::server();
    let priority = |stream| frame(kind::PRIORITY, 0, stream, [0, 0, 0, 9, 16]);
    assert!(server.accept(&[priority(1), priority(5), priority(2)]).is_empty());
    let key = server.open_request(true);
    assert!(server.accept(&[priority(1)]).is_empty());
    server.answer(key, b"");
    assert!(server.accept(&[priority(1)]).is_empty());
    server.fails(PROTOCOL_ERROR, &[priority(0)]);
}

#[test]
fn priority_of_wrong_size_or_on_itself_is_a_stream_error() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.resets_known(key, FRAME_SIZE_ERROR, &[frame(kind::PRIORITY, 0, 1, [0; 4])]);
    let key = server.request_on(3, false);
    server.resets_known(key, PROTOCOL_ERROR, &[frame(kind::PRIORITY, 0, 3, [0, 0, 0, 3, 0])]);
    // An idle stream cannot be reset (§5.1).
    server.fails(PROTOCOL_ERROR, &[frame(kind::PRIORITY, 0, 5, [0, 0, 0, 5, 0])]);
}

// ---- §6.4 RST_STREAM -----------------------------------------------------------------------

#[test]
fn rst_stream_of_wrong_size_on_stream_0_or_idle_is_a_connection_error() {
    let mut server = Tested::server();
    server.open_request(false);
    server.fails(FRAME_SIZE_ERROR, &[frame(kind::RST_STREAM, 0, 1, [0; 3])]);
    Tested::server().fails(PROTOCOL_ERROR, &[rst(0, ErrorCode::CANCEL)]);
    Tested::server().fails(PROTOCOL_ERROR, &[rst(1, ErrorCode::CANCEL)]);
}

#[test]
fn rst_stream_ends_a_stream_and_says_why() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    let events = server.accept(&[data(1, "abc", false), rst(1, ErrorCode(77))]);
    match &events[..] {
        [Event::Data { .. }, Event::Reset { stream, reset }] => {
            assert_eq!(*stream, key);
            assert_eq!(reset.code, ErrorCode(77));
            assert!(!reset.never_processed);
        }
        events => panic!("{events:?}"),
    }
    assert!(server.frames().is_empty());
    // A second reset may come if both ends reset the stream. It is ignored.
    assert!(server.accept(&[rst(1, ErrorCode::CANCEL)]).is_empty());
    server.connection.forget(key);
    assert!(server.accept(&[rst(1, ErrorCode::CANCEL)]).is_empty());
    assert_eq!(server.connection.active_streams(), 0);
}

#[test]
fn a_refused_stream_was_never_processed() {
    let mut client = Tested::client();
    let key = client.start_request(true);
    let events = client.accept(&[rst(1, ErrorCode::REFUSED_STREAM)]);
    assert!(matches!(&events[..], [Event::Reset { stream, reset }]
        if *stream == key && reset.never_processed));
}

// ---- §6.5 SETTINGS -------------------------------------------------------------------------

#[test]
fn settings_out_of_shape_are_connection_errors() {
    let cases = [
        (FRAME_SIZE_ERROR, frame(kind::SETTINGS, 0, 0, [0; 5])),
        (FRAME_SIZE_ERROR, frame(kind::SETTINGS, flag::ACK, 0, [0; 6])),
        (PROTOCOL_ERROR, frame(kind::SETTINGS, 0, 1, [0; 6])),
        (PROTOCOL_ERROR, settings(&[(2, 2)])),
        (FLOW_CONTROL_ERROR, settings(&[(4, 0x8000_0000)])),
        (PROTOCOL_ERROR, settings(&[(5, 16_383)])),
        (PROTOCOL_ERROR, settings(&[(5, 16_777_216)])),
    ];
    for (code, frame) in cases {
        let mut server = Tested::server();
        server.open_request(true);
        server.fails(code, &[frame]);
    }
}

#[test]
fn a_server_must_not_enable_push() {
    Tested::client().fails(PROTOCOL_ERROR, &[settings(&[(2, 1)])]);
    assert!(Tested::client().accept(&[settings(&[(2, 0)])]).is_empty());
    assert!(Tested::server().accept(&[settings(&[(2, 1)])]).is_empty());
}

#[test]
fn settings_are_acknowledged_and_unknown_ones_ignored() {
    let mut server = Tested::server();
    let odd = settings(&[(0xff, 7), (65_027, 1), (5, 16_777_215), (1, 0), (2, 0), (6, 9)]);
    server.accept(&[odd.clone(), odd]);
    assert_eq!(server.frames(), [settings_ack(), settings_ack()]);
}

// ---- §6.6 PUSH_PROMISE ---------------------------------------------------------------------

#[test]
fn push_promise_is_a_connection_error_for_both() {
    let promise = frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, [0, 0, 0, 2]);
    let mut server = Tested::server();
    server.open_request(false);
    server.fails(PROTOCOL_ERROR, std::slice::from_ref(&promise));
    let mut client = Tested::client();
    client.start_request(true);
    client.fails(PROTOCOL_ERROR, &[promise]);
}

// ---- §6.7 PING -----------------------------------------------------------------------------

#[test]
fn a_ping_is_answered_and_an_answer_is_not() {
    let mut server = Tested::server();
    server.accept(&[ping(*b"12345678"), frame(kind::PING, flag::ACK, 0, *b"whatever")]);
    assert_eq!(server.frames(), [frame(kind::PING, flag::ACK, 0, *b"12345678")]);
}

#[test]
fn a_ping_out_of_shape_is_a_connection_error() {
    Tested::server().fails(FRAME_SIZE_ERROR, &[frame(kind::PING, 0, 0, [0; 6])]);
    Tested::server().fails(PROTOCOL_ERROR, &[frame(kind::PING, 0, 1, [0; 8])]);
}

// ---- §6.8 GOAWAY ---------------------------------------------------------------------------

#[test]
fn go_away_out_of_shape_is_a_connection_error() {
    Tested::client().fails(PROTOCOL_ERROR, &[frame(kind::GOAWAY, 0, 1, [0; 8])]);
    Tested::client().fails(FRAME_SIZE_ERROR, &[frame(kind::GOAWAY, 0, 0, [0; 7])]);
}

// ---- §6.9 WINDOW_UPDATE --------------------------------------------------------------------

#[test]
fn window_update_by_0_is_an_error_of_whatever_it_is_for() {
    Tested::server().fails(PROTOCOL_ERROR, &[window_update(0, 0)]);
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.resets_known(key, PROTOCOL_ERROR, &[window_update(1, 0)]);
}

#[test]
fn window_update_of_wrong_size_is_a_connection_error() {
    Tested::server().fails(FRAME_SIZE_ERROR, &[frame(kind::WINDOW_UPDATE, 0, 0, [0, 0, 1])]);
}

#[test]
fn a_window_beyond_2_31_1_is_an_error_of_whatever_it_is_for() {
    const MAX: u32 = 0x7fff_ffff;
    let mut server = Tested::server();
    server.accept(&[window_update(0, MAX - 65_535)]);
    server.fails(FLOW_CONTROL_ERROR, &[window_update(0, 1)]);
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.accept(&[window_update(1, MAX - 65_535)]);
    server.resets_known(key, FLOW_CONTROL_ERROR, &[window_update(1, 1)]);
    // If SETTINGS causes it, it is a connection error (§6.9.2).
    let mut server = Tested::server();
    server.open_request(false);
    server.accept(&[window_update(1, 1)]);
    server.fails(FLOW_CONTROL_ERROR, &[settings(&[(4, MAX)])]);
}

// ---- §6.10 CONTINUATION --------------------------------------------------------------------

#[test]
fn a_header_block_may_come_in_pieces_of_any_size() {
    let block = request_block();
    for size in [1, 2, 7, block.len() - 1] {
        let mut server = Tested::server();
        let mut pieces = block.chunks(size);
        let mut frames = vec![frame(kind::HEADERS, flag::END_STREAM, 1, pieces.next().unwrap())];
        frames.extend(pieces.map(|piece| frame(kind::CONTINUATION, 0, 1, piece)));
        frames.push(frame(kind::CONTINUATION, flag::END_HEADERS, 1, []));
        let events = server.accept(&frames);
        assert!(matches!(&events[..], [Event::Request { end: true, head, .. }]
            if head.headers["te"] == "trailers"));
    }
}

#[test]
fn nothing_may_come_between_the_pieces_of_a_header_block() {
    let begun = frame(kind::HEADERS, 0, 1, &request_block()[..5]);
    let others = [
        data(1, "x", false),
        ping(*b"12345678"),
        request(3, true),
        frame(kind::CONTINUATION, 0, 3, []),
        frame(0x42, 0, 1, []),
        settings(&[]),
    ];
    for other in others {
        Tested::server().fails(PROTOCOL_ERROR, &[begun.clone(), other]);
    }
}

#[test]
fn continuation_needs_something_to_continue() {
    let more = frame(kind::CONTINUATION, flag::END_HEADERS, 1, request_block());
    Tested::server().fails(PROTOCOL_ERROR, std::slice::from_ref(&more));
    Tested::server().fails(PROTOCOL_ERROR, &[request(1, false), more.clone()]);
    Tested::server().fails(PROTOCOL_ERROR, &[data(0, "", false), more]);
}
