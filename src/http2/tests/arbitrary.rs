//! Bytes without sense, and frames that are almost valid: no panic, no endless loop, and the sums
//! stay right.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::raw::{self, Frame, drain, frame};
use super::seen::{self, Event};
use crate::http2::error::ErrorCode;
use crate::http2::frame::PREFACE;
use crate::http2::{Config, Connection};

/// Does what a driver does with the events, by the next of `choices`.
fn drive(connection: &mut Connection, choices: &mut impl Iterator<Item = u8>) {
    for event in seen::events(connection) {
        let choice = choices.next().unwrap_or(0);
        match event {
            Event::Request { stream, .. } | Event::RequestTooLarge { stream, .. } => {
                if choice % 4 != 3 {
                    let end = choice % 4 == 2;
                    connection.send_response(stream, StatusCode::OK, &HeaderMap::new(), end);
                }
                if choice % 4 == 1 {
                    let body = Bytes::from(vec![choice; 40 * usize::from(choice)]);
                    connection.send_data(stream, body, false);
                    connection.send_trailers(stream, &raw::map(&[("a", "b")]));
                }
                if choice & 8 != 0 {
                    connection.forget(stream);
                }
            }
            Event::Data { stream, .. } => match choice % 4 {
                1 => connection.reset(stream, ErrorCode::CANCEL),
                2 => connection.forget(stream),
                _ => {}
            },
            Event::Trailers { stream, .. } | Event::Reset { stream, .. } => {
                connection.forget(stream);
            }
            _ => {}
        }
    }
}

fn feed(connection: &mut Connection, now: Instant, bytes: &[u8], choices: &[u8]) {
    let mut input = BytesMut::new();
    let mut choices = choices.iter().copied().cycle();
    let mut rest = bytes;
    let mut now = now;
    while !rest.is_empty() {
        let step = usize::from(choices.next().unwrap_or(1)).max(1).min(rest.len());
        let step = if step > 200 { rest.len() } else { step };
        input.extend_from_slice(&rest[..step]);
        rest = &rest[step..];
        let before = input.len();
        let result = connection.receive(&mut input, now);
        assert!(input.len() <= before);
        drive(connection, &mut choices);
        if step % 3 == 0 {
            drain(connection);
        }
        now += Duration::from_millis(step as u64);
        connection.note_time(now);
        connection.next_timeout();
        if result.is_err() {
            assert!(connection.failure().is_some());
            drain(connection);
            assert!(connection.is_done());
            break;
        }
    }
    check(connection);
}

fn check(connection: &mut Connection) {
    // Window that no stream holds belongs to the peer again.
    let keys = connection.streams.keys();
    for key in keys {
        // Some streams are held back by data that waits. A reset ends those.
        connection.reset(key, ErrorCode::CANCEL);
        connection.forget(key);
    }
    drive(connection, &mut std::iter::empty());
    assert_eq!(connection.active_streams(), 0);
    assert_eq!(connection.queued_len(), 0);
    if connection.failure().is_none() {
        assert_eq!(connection.streams.open(), 0);
        assert_eq!(connection.received.unread(), 0);
    }
    drain(connection);
}

fn server() -> Connection {
    let mut server = Connection::server(Config::default(), Instant::now());
    drain(&mut server);
    server
}

fn client() -> Connection {
    let mut client = Connection::client(Config::default(), Instant::now());
    let headers = HeaderMap::new();
    for _ in 0..4 {
        let key = client.send_request(raw::head(&headers), false).expect("a slot");
        client.send_data(key, Bytes::from_static(b"abc"), key.id() != 1);
    }
    drain(&mut client);
    client
}

/// Returns frames that are likely to be accepted.
fn plausible() -> impl Strategy<Value = Frame> {
    let blocks = prop_oneof![
        Just(raw::request_block()),
        Just(raw::response_block()),
        Just(raw::trailers_block()),
        Just(raw::block(&[(":status", b"100")])),
        Just(vec![0x82, 0x86, 0x84, 0x40, 1, b'a', 1, b'b']),
        Just(vec![0x83, 0x86, 0x84, 0x80 | 62]),
        prop::collection::vec(any::<u8>(), 0..30),
    ];
    let payload = prop_oneof![
        3 => blocks,
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => Just(vec![0, 0, 0, 8]),
        1 => Just(vec![0, 4, 0, 0, 255, 255]),
        1 => Just(vec![7; 8]),
        1 => Just(vec![7; 5_000]),
        1 => Just(vec![7; 30_000]),
    ];
    (0..12u8, any::<u8>(), 0..12u32, payload).prop_map(|(kind, flags, stream, payload)| {
        // Usually the payload is the whole block, and the block ends.
        let flags = if flags < 200 { flags & 1 | 4 } else { flags };
        let stream = match kind {
            4 | 6 | 7 => 0,
            _ => stream,
        };
        frame(kind, flags, stream, payload)
    })
}

/// Changes a few bytes, and cuts some.
fn mutate(mut bytes: Vec<u8>, mutations: &[(u16, u8)]) -> Vec<u8> {
    for (place, value) in mutations {
        if !bytes.is_empty() {
            let place = usize::from(*place) % bytes.len();
            bytes[place] = *value;
        }
    }
    bytes
}

fn written(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for frame in frames {
        frame.write(&mut out);
    }
    out.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        choices in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        feed(&mut server(), Instant::now(), &bytes, &choices);
        feed(&mut client(), Instant::now(), &bytes, &choices);
        let mut greeted = PREFACE.to_vec();
        greeted.extend(written(&[raw::settings(&[])]));
        greeted.extend_from_slice(&bytes);
        feed(&mut server(), Instant::now(), &greeted, &choices);
        feed(&mut client(), Instant::now(), &greeted[PREFACE.len()..], &choices);
    }

    #[test]
    fn frames_that_almost_make_sense_never_panic(
        frames in prop::collection::vec(plausible(), 0..40),
        mutations in prop::collection::vec(any::<(u16, u8)>(), 0..3),
        choices in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let bytes = mutate(written(&frames), &mutations);
        let settings = written(&[raw::settings(&[(4, 70)]), raw::settings_ack()]);
        let greeted = [PREFACE.to_vec(), settings.clone(), bytes.clone()].concat();
        feed(&mut server(), Instant::now(), &greeted, &choices);
        feed(&mut client(), Instant::now(), &[settings, bytes].concat(), &choices);
    }
}
