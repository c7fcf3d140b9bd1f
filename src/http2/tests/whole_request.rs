//! A whole request that is received in one step means the same as its frames one by one.

use super::raw::*;
use super::seen::Event;
use crate::http2::Config;
use crate::http2::error::ErrorCode;

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

fn whole(stream: u32, body: &[u8]) -> [Frame; 2] {
    [headers(stream, BLOCK, false), data(stream, body, true)]
}

#[test]
fn the_usual_request_is_received_in_one_step() {
    let mut server = warm_server(Config::default());
    // Only the step that takes the whole request does not need the stream's window.
    let window = server.connection.initial_receive_window();
    server.send(&whole(NEXT, b"data")).expect("a request");
    let (key, stream) = server.connection.find(NEXT).expect("a stream");
    assert_eq!(stream.receive_window.available(), window);
    let request = server.connection.take_request(key).expect("a request");
    assert_eq!(request.head.path, "/a.B/C");
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
    server.connection.go_away();
    let asked = server.frames().pop().expect("a PING");
    server.send(&[frame(kind::PING, flag::ACK, 0, asked.payload)]).expect("its answer");
    server.send(&whole(NEXT, b"a")).expect("is refused");
    assert_eq!(server.frames().pop(), Some(rst(NEXT, ErrorCode::REFUSED_STREAM)));
    assert_eq!(server.connection.active_streams(), 0);
}
