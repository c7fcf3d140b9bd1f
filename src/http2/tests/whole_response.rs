//! A whole response that is received in one step means the same as its frames one by one.

use std::task::Poll;

use super::raw::*;
use crate::http2::error::ErrorCode;
use crate::http2::{Body, Config, Content, StreamKey};

/// Blocks that refer to the table, as those of a server that has sent them before.
const HEAD: &[u8] = &[0x88, 0xbf];
const TRAILERS: &[u8] = &[0xbe];

/// Returns a field that is added to the table (RFC 7541 §6.2.1).
fn added(name: &str, value: &str) -> Vec<u8> {
    let [name_len, value_len] = [name.len() as u8, value.len() as u8];
    [&[0x40, name_len], name.as_bytes(), &[value_len], value.as_bytes()].concat()
}

/// Returns a client whose header cache has both blocks.
fn warm_client(config: Config) -> Tested {
    let mut client = Tested::client_with(config, &[]);
    for n in 0..4 {
        let key = client.start_request(true);
        let (head, last) = match n {
            0 => (
                [vec![0x88], added("content-type", "application/grpc")].concat(),
                added("grpc-status", "0"),
            ),
            _ => (HEAD.to_vec(), TRAILERS.to_vec()),
        };
        let id = key.id();
        client.send(&[headers(id, head, false), data(id, "x", false)]).expect("a response");
        client.send(&[headers(id, last, true)]).expect("trailers");
        outcome(&mut client, key);
    }
    client
}

/// Takes a response, and returns its data and its trailers.
fn outcome(client: &mut Tested, key: StreamKey) -> Option<(Vec<u8>, Option<String>)> {
    let taken = client.connection.take_response(key);
    let outcome = match taken {
        Poll::Ready(Ok((head, Body::Whole(Content { mut pieces, trailers })))) => {
            assert_eq!(head.headers["content-type"], "application/grpc");
            let data = std::iter::from_fn(|| pieces.pop()).flatten().collect();
            Some((data, trailers.map(|trailers| format!("{trailers:?}"))))
        }
        _ => None,
    };
    client.connection.forget(key);
    outcome
}

/// Sends frames to two clients, at once and one by one, and compares everything that can be seen.
#[track_caller]
fn compare(config: Config, requests: usize, cancel: bool, frames: &[Frame]) {
    let [mut at_once, mut by_one] = [(); 2].map(|()| warm_client(config));
    let mut keys = Vec::new();
    for _ in 0..requests {
        keys.push(at_once.start_request(true));
        assert_eq!(keys.last(), Some(&by_one.start_request(true)));
    }
    if cancel {
        at_once.connection.forget(keys[0]);
        by_one.connection.forget(keys[0]);
    }
    let whole = at_once.send(frames);
    let parts = frames.iter().try_for_each(|frame| by_one.send(std::slice::from_ref(frame)));
    assert_eq!(whole, parts);
    let [whole, parts] = [&at_once, &by_one].map(|client| client.connection.received.unread());
    assert_eq!(whole, parts);
    for key in keys {
        assert_eq!(outcome(&mut at_once, key), outcome(&mut by_one, key));
    }
    assert_eq!(at_once.frames(), by_one.frames());
    let [whole, parts] = [&at_once, &by_one].map(|client| &client.connection);
    assert_eq!(whole.receive_allowance(), parts.receive_allowance());
    assert_eq!(whole.active_streams(), parts.active_streams());
    assert_eq!(whole.budget.left(), parts.budget.left());
}

fn response(stream: u32, body: &[u8]) -> [Frame; 3] {
    [headers(stream, HEAD, false), data(stream, body, false), headers(stream, TRAILERS, true)]
}

#[test]
fn the_header_cache_has_the_blocks() {
    let mut client = warm_client(Config::default());
    let key = client.start_request(true);
    client.send(&response(key.id(), b"data")).expect("a response");
    let lent = client.connection.lent.as_ref().map(|lent| lent.len());
    assert_eq!(lent, Some(1));
    let (data, trailers) = outcome(&mut client, key).expect("a whole response");
    assert!(data == b"data" && trailers.is_some_and(|trailers| trailers.contains("grpc-status")));
}

#[test]
fn a_response_at_once_is_the_same_as_its_frames() {
    let config = Config::default();
    for size in [0, 1, 1_000, 8_191, 8_192, 16_384] {
        compare(config, 1, false, &response(9, &vec![7; size]));
        compare(config, 1, true, &response(9, &vec![7; size]));
    }
    let three = [response(13, b"c"), response(9, b"a"), response(11, b"b")].concat();
    compare(config, 3, false, &three);
    // The connection's window is announced again at the same moment.
    let many: Vec<_> = (0..40).flat_map(|n| response(9 + 2 * n, &[7; 8_000])).collect();
    compare(Config { connection_window: 65_535, ..config }, 40, false, &many);
}

#[test]
fn a_response_in_a_large_read_buffer_is_received_in_one_step_too() {
    let mut client = warm_client(Config::default());
    let key = client.start_request(true);
    client.input.reserve(256 * 1024);
    // Only the step that takes the whole response does not need the stream's window.
    let window = client.connection.streams.get(key).map(|stream| stream.receive_window.available());
    client.send(&response(key.id(), &[7; 1_000])).expect("a response");
    assert!(client.connection.lent.as_ref().is_none_or(|lent| lent.is_empty()));
    let left = client.connection.streams.get(key).map(|stream| stream.receive_window.available());
    assert_eq!(left, window);
    let (data, trailers) = outcome(&mut client, key).expect("a whole response");
    assert!(data == [7; 1_000] && trailers.is_some());
}

#[test]
fn what_is_no_usual_response_is_treated_as_its_frames_are() {
    let config = Config::default();
    // Twice, for a call that has ended; for a stream that is idle; of two streams.
    compare(config, 1, false, &[response(9, b"a"), response(9, b"a")].concat());
    compare(config, 1, false, &response(11, b"a"));
    let [head, _, last] = response(9, b"");
    compare(config, 2, false, &[head.clone(), data(11, "a", false), last.clone()]);
    compare(config, 2, false, &[head.clone(), data(9, "a", false), headers(11, TRAILERS, true)]);
    // The end is missing, comes too early, or is a reset.
    compare(config, 1, false, &[head.clone(), data(9, "a", false), headers(9, TRAILERS, false)]);
    compare(config, 1, false, &[head.clone(), data(9, "a", true), last.clone()]);
    compare(config, 1, false, &[head.clone(), data(9, "a", false), rst(9, ErrorCode::CANCEL)]);
    // More than one frame of data.
    compare(config, 1, false, &[head, data(9, "a", false), data(9, "b", false), last]);
    // Beyond the stream's window.
    let small = Config { stream_window: 100, ..config };
    compare(small, 1, false, &response(9, &[7; 100]));
    compare(small, 1, false, &response(9, &[7; 101]));
}
