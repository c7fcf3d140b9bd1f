//! A whole request that is received in one step means the same as its frames one by one.

use std::sync::LazyLock;

use bytes::BytesMut;
use http::HeaderMap;

use super::raw::*;
use super::seen::Event;
use crate::http2::error::ErrorCode;
use crate::http2::{Config, Notice, ProtocolEvent as Told, WholeResponse};

/// A block that refers to the table, as that of a client that has sent it before: POST, http, and the
/// fields of [`first_block`].
const BLOCK: &[u8] = &[0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];

/// The first stream that the tests use.
const NEXT: u32 = 7;

/// Returns a block that adds its fields to the table (RFC 7541 §6.2.1).
fn first_block() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    // `:path`, `:authority` and `content-type` have a name in the static table.
    let fields = [(4, "/a.B/C"), (1, "localhost"), (31, "application/grpc")];
    for (index, value) in fields {
        block.extend([0x40 | index, value.len() as u8]);
        block.extend(value.bytes());
    }
    block.extend([&[0x40, 2], &b"te"[..], &[8], b"trailers"].concat());
    block
}

/// Returns a server whose header cache has the block.
fn warm_server(config: Config) -> Tested {
    let mut server = Tested::server_with(config);
    for id in (1..NEXT).step_by(2) {
        let block = if id == 1 { first_block() } else { BLOCK.to_vec() };
        let frames = [headers(id, block, false), data(id, "x", true)];
        let events = server.accept(&frames);
        let Event::Request { stream, head, .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!(head.headers["content-type"], "application/grpc");
        server.answer(*stream, b"y");
        server.frames();
    }
    server
}

/// Sends frames to two servers, at once and one by one, and compares everything that can be seen.
#[track_caller]
fn compare(config: Config, frames: &[Frame]) {
    let [mut at_once, mut by_one] = [(); 2].map(|()| warm_server(config));
    let whole = at_once.send(frames);
    let parts = frames.iter().try_for_each(|frame| by_one.send(std::slice::from_ref(frame)));
    assert_eq!(whole, parts);
    compare_state(&at_once, &by_one);
    let [whole, parts] = [&mut at_once, &mut by_one].map(Tested::events);
    assert_eq!(format!("{whole:?}"), format!("{parts:?}"));
    compare_state(&at_once, &by_one);
    for event in &whole {
        if let Event::Request { stream, .. } = event {
            at_once.answer(*stream, b"z");
            by_one.answer(*stream, b"z");
        }
    }
    compare_state(&at_once, &by_one);
    assert_eq!(at_once.frames(), by_one.frames());
}

#[track_caller]
fn compare_state(whole: &Tested, parts: &Tested) {
    let state = |server: &Tested| {
        let connection = &server.connection;
        (
            (
                connection.received.unread(),
                connection.received.copied,
                connection.receive_allowance(),
            ),
            (connection.active_streams(), connection.call_bytes(), connection.budget.left()),
            (connection.server.last_id, connection.server.last_accepted),
        )
    };
    assert_eq!(state(whole), state(parts));
}

fn encoded(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.write(&mut bytes));
    bytes
}

fn whole(stream: u32, body: &[u8]) -> [Frame; 2] {
    [headers(stream, BLOCK, false), data(stream, body, true)]
}

#[test]
fn the_usual_request_is_received_in_one_step() {
    let mut server = warm_server(Config::default());
    // Only the step that takes the whole request does not need the stream's window.
    let window = server.connection.initial_receive_window();
    server.send(&whole(NEXT, b"data")).expect("a request");
    assert_eq!(server.connection.whole_requests(), 1);
    let Some(Told::Opened(key)) = server.connection.poll_event() else { panic!("no request") };
    let (_, stream) = server.connection.find(NEXT).expect("a stream");
    assert_eq!(stream.receive_window.available(), window);
    let request = server.connection.take_request(key).expect("a request");
    assert_eq!(request.head.path, "/a.B/C");
}

static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| map(&[("content-type", "application/grpc")]));
static TRAILERS: LazyLock<HeaderMap> = LazyLock::new(|| map(&[("grpc-status", "0")]));

/// Returns a server that has sent the head and the trailers before.
fn answering_server() -> Tested {
    let mut server = warm_server(Config::default());
    for id in [NEXT, NEXT + 2] {
        let events = server.accept(&whole(id, b"x"));
        let Event::Request { stream, .. } = events[0] else { panic!("{events:?}") };
        server.connection.send_static_response(stream, &HEAD);
        server.connection.send_small(stream, &mut b"y".to_vec(), false);
        server.connection.send_static_trailers(stream, &TRAILERS);
        server.connection.forget(stream);
        server.frames();
    }
    server
}

#[test]
fn a_request_that_is_answered_without_a_stream_is_the_same_as_one_with_a_stream() {
    let [mut without, mut with] = [(); 2].map(|()| answering_server());
    let answer = WholeResponse { head: &HEAD, data: b"answer", trailers: &TRAILERS };
    for id in (NEXT + 4..NEXT + 20).step_by(2) {
        for server in [&mut without, &mut with] {
            server.send(&whole(id, &[7; 2_000])).expect("a request");
        }
        let (request, head, mut content) = without.connection.take_whole().expect("a request");
        assert_eq!(
            (&head.path, content.pieces.pop()),
            (&"/a.B/C".parse().unwrap(), Some(vec![7; 2_000].into()))
        );
        without.connection.answer(request, answer).expect("an answer");
        let events = with.events();
        let Event::Request { stream, .. } = events[0] else { panic!("{events:?}") };
        assert!(with.connection.send_whole(stream, answer));
        compare_state(&without, &with);
        assert_eq!(without.frames(), with.frames());
        // Whatever comes on the stream afterwards means the same, too.
        let late = [rst(id, ErrorCode::CANCEL), window_update(id, 5)];
        assert_eq!(without.send(&late), with.send(&late));
        compare_state(&without, &with);
    }
    let late = data(NEXT + 4, "late", true);
    let [one, other] = [without, with].map(|mut server| server.send(std::slice::from_ref(&late)));
    assert_eq!(one.expect_err("a closed stream"), other.expect_err("a closed stream"));
}

#[test]
fn a_request_that_cannot_be_answered_at_once_is_opened() {
    let [mut at_once, mut by_key] = [(); 2].map(|()| answering_server());
    for server in [&mut at_once, &mut by_key] {
        // The client's window is smaller than the answer.
        server.accept(&[settings(&[(4, 3)])]);
        server.send(&whole(NEXT + 4, b"data")).expect("a request");
    }
    let (request, ..) = at_once.connection.take_whole().expect("a request");
    let answer = WholeResponse { head: &HEAD, data: b"answer", trailers: &TRAILERS };
    let request = at_once.connection.answer(request, answer).expect_err("no room");
    let opened = at_once.connection.open(request);
    let events = by_key.events();
    let Event::Request { stream, .. } = events[0] else { panic!("{events:?}") };
    compare_state(&at_once, &by_key);
    at_once.answer(opened, b"answer");
    by_key.answer(stream, b"answer");
    for server in [&mut at_once, &mut by_key] {
        server.accept(&[window_update(NEXT + 4, 100)]);
    }
    compare_state(&at_once, &by_key);
    assert_eq!(at_once.frames(), by_key.frames());
    assert_eq!(at_once.connection.active_streams(), 0);
}

#[test]
fn a_request_that_was_not_taken_may_be_cancelled_or_end_with_the_connection() {
    let mut server = answering_server();
    let [first, second] = [NEXT + 4, NEXT + 6];
    server.send(&[whole(first, b"a"), whole(second, b"b")].concat()).expect("requests");
    assert_eq!(server.connection.whole_requests(), 2);
    assert!(!server.connection.has_events());
    server.send(&[rst(first, ErrorCode::CANCEL)]).expect("a reset");
    assert_eq!((server.connection.whole_requests(), server.connection.active_streams()), (0, 1));
    let events = server.events();
    assert!(
        matches!(&events[0], Event::Request { stream, .. } if stream.id() == second),
        "{events:?}"
    );
    // A connection that has ended has no requests.
    server.send(&whole(second + 2, b"c")).expect("a request");
    server.connection.disconnect();
    assert!(server.connection.take_whole().is_none());
    let events = server.events();
    assert!(events.iter().all(|event| !matches!(event, Event::Request { .. })), "{events:?}");
    let mut server = answering_server();
    server.send(&whole(first, b"a")).expect("a request");
    let (request, ..) = server.connection.take_whole().expect("a request");
    server.connection.disconnect();
    let answer = WholeResponse { head: &HEAD, data: b"answer", trailers: &TRAILERS };
    let request = server.connection.answer(request, answer).expect_err("no connection");
    let key = server.connection.open(request);
    server.connection.forget(key);
    assert_eq!((server.connection.active_streams(), server.connection.call_bytes()), (0, 0));
}

#[test]
fn a_request_at_once_is_the_same_as_its_frames() {
    let config = Config::default();
    for size in [0, 1, 1_000, 1_025, 8_191, 8_192, 16_384] {
        compare(config, &whole(NEXT, &vec![7; size]));
    }
    let three = [whole(7, b"a"), whole(9, b"b"), whole(13, b"c")].concat();
    compare(config, &three);
    // It passed over a stream, which can no longer be used.
    compare(config, &[&three[..], &whole(11, b"d")].concat());
    // It is cancelled before its handler is called.
    compare(config, &[&whole(7, b"a")[..], &[rst(7, ErrorCode::CANCEL)]].concat());
    compare(config, &[&whole(7, b"a")[..], &[window_update(7, 5)]].concat());
    // The connection's window is announced again at the same moment.
    let many: Vec<_> = (0..40).flat_map(|n| whole(NEXT + 2 * n, &[7; 8_000])).collect();
    compare(Config { connection_window: 65_535, ..config }, &many);
    // More than the server takes at a time, or in one turn.
    compare(Config { max_streams: 2, ..config }, &three);
    let many: Vec<_> = (0..600).flat_map(|n| whole(NEXT + 2 * n, b"a")).collect();
    compare(Config { max_streams: 1_000, ..config }, &many);
}

#[test]
fn requests_before_one_that_has_not_arrived_completely_need_no_streams() {
    let frames = [whole(NEXT, b"first"), whole(NEXT + 2, b"second"), whole(NEXT + 4, b"third")];
    let bytes = encoded(&frames.concat());
    let last = bytes.len() - encoded(&frames[2]).len();
    let data_begins = bytes.len() - encoded(&frames[2][1..]).len();
    for cut in last + 1..bytes.len() {
        let mut server = warm_server(Config::default());
        server.bytes(&bytes[..cut]).expect("two requests and a part");
        // A head alone is a request, of which the data may come much later.
        let is_opened = (data_begins..data_begins + 9).contains(&cut);
        let whole = if is_opened { 0 } else { 2 };
        assert_eq!(server.connection.whole_requests(), whole, "{cut}");
        server.bytes(&bytes[cut..]).expect("the rest");
        let mut at_once = warm_server(Config::default());
        at_once.bytes(&bytes).expect("three requests");
        compare_state(&server, &at_once);
        assert_eq!(format!("{:?}", server.events()), format!("{:?}", at_once.events()), "{cut}");
    }
}

#[test]
fn what_is_no_usual_request_is_treated_as_its_frames_are() {
    let config = Config::default();
    let [head, last] = whole(NEXT, b"a");
    // Twice; on a stream that ended; of an even number; on the connection itself; of two streams.
    compare(config, &[whole(NEXT, b"a"), whole(NEXT, b"a")].concat());
    compare(config, &whole(NEXT - 2, b"a"));
    compare(config, &whole(NEXT + 1, b"a"));
    compare(config, &whole(0, b"a"));
    compare(config, &[head.clone(), data(NEXT + 2, "a", true)]);
    // The end is missing, is a reset or comes with trailers.
    compare(config, &[head.clone(), data(NEXT, "a", false)]);
    compare(config, &[head.clone(), rst(NEXT, ErrorCode::CANCEL)]);
    compare(config, &[head.clone(), data(NEXT, "a", false), headers(NEXT, [0xbe], true)]);
    // The data comes in two frames, or after another stream's.
    compare(config, &[head.clone(), data(NEXT, "a", false), data(NEXT, "b", true)]);
    compare(config, &[head.clone(), ping(*b"12345678"), last.clone()]);
    compare(config, &[headers(NEXT, BLOCK, true), last]);
    // Another block, with a length that is right or wrong.
    for length in [&[0x0f, 0x0d, 1, b'1'], &[0x0f, 0x0d, 1, b'2']] {
        let block = [BLOCK, length].concat();
        let frames = |id| [headers(id, block.clone(), false), data(id, "a", true)];
        compare(config, &[frames(NEXT), frames(NEXT + 2), frames(NEXT + 4)].concat());
    }
    // Beyond the stream's window.
    let small = Config { stream_window: 100, ..config };
    compare(small, &whole(NEXT, &[7; 100]));
    compare(small, &whole(NEXT, &[7; 101]));
}

#[test]
fn a_server_that_drains_refuses_it() {
    let mut server = warm_server(Config::default());
    server.connection.go_away(Notice::Short);
    let asked = server.frames().pop().expect("a PING");
    server.send(&[frame(kind::PING, flag::ACK, 0, asked.payload)]).expect("its answer");
    server.send(&whole(NEXT, b"a")).expect("is refused");
    assert_eq!(server.frames().pop(), Some(rst(NEXT, ErrorCode::REFUSED_STREAM)));
    assert_eq!(server.connection.active_streams(), 0);
}
