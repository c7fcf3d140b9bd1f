//! Heads that never change are sent without being encoded again, and have the same meaning.

use std::sync::LazyLock;

use http::{HeaderMap, StatusCode};

use super::raw::*;
use super::seen::Event;
use crate::http2::send_head::NotNow;
use crate::http2::{Config, HeadId, SendRequest, WholeResponse};

static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| {
    map(&[("content-type", "application/grpc"), ("te", "trailers"), ("x-one", "1")])
});

static TRAILERS: LazyLock<HeaderMap> = LazyLock::new(|| map(&[("grpc-status", "0")]));

const PATHS: [&str; 2] = ["/a.B/First", "/a.B/Second"];

fn request(path: &'static str) -> SendRequest<'static> {
    SendRequest { path, id: Some(HeadId::request(path, &HEAD)), ..head(&HEAD) }
}

/// Returns what one end sends, without its part of the handshake.
fn messages(from: &mut Tested) -> Vec<Frame> {
    let mut frames = from.frames();
    frames.retain(|frame| matches!(frame.kind, kind::HEADERS | kind::DATA));
    frames
}

/// Sends the client's bytes, and returns the paths and the headers of the requests that came.
fn pass(client: &mut Tested, server: &mut Tested) -> Vec<(String, HeaderMap)> {
    take(server, &messages(client))
}

fn take(server: &mut Tested, frames: &[Frame]) -> Vec<(String, HeaderMap)> {
    let events = server.accept(frames);
    let came = events.into_iter().filter_map(|event| match event {
        Event::Request { stream, head, .. } => {
            server.connection.forget(stream);
            Some((head.path.to_string(), head.headers.clone()))
        }
        _ => None,
    });
    came.collect()
}

#[test]
fn a_known_request_means_the_same_whatever_happens_to_the_table() {
    let mut client = Tested::client();
    let config = Config { max_streams: 1_000, ..Config::default() };
    let mut server = Tested::server_with(config);
    client.accept(&[settings(&[(3, 1_000)])]);
    let mut lengths = Vec::new();
    for round in 0..200_u32 {
        match round {
            // Other requests add to the table, and evict what was added before.
            20..100 => {
                let own = map(&[("x-other", &format!("{}", round / 2)), ("x-one", "2")]);
                let other = SendRequest { headers: &own, ..head(&own) };
                client.connection.send_request(other, true).unwrap();
                assert_eq!(pass(&mut client, &mut server)[0].1, own);
            }
            // The peer makes its table smaller, and then larger again.
            120 => drop(client.accept(&[settings(&[(1, 0)])])),
            140 => drop(client.accept(&[settings(&[(1, 80)])])),
            160 => drop(client.accept(&[settings(&[(1, 4096)])])),
            _ => {}
        }
        for path in PATHS {
            client.connection.send_request(request(path), true).unwrap();
            let frames = messages(&mut client);
            lengths.push(frames[0].payload.len());
            let came = take(&mut server, &frames);
            assert_eq!(came, [(path.to_owned(), HEAD.clone())], "round {round}");
        }
    }
    assert!(lengths.last() < lengths.first(), "it refers to the table again");
}

#[test]
fn the_tables_size_is_announced_once() {
    let (mut client, mut server) = (Tested::client(), Tested::server());
    let mut lengths = |client: &mut Tested| {
        [(); 3].map(|()| {
            client.connection.send_request(request(PATHS[0]), true).unwrap();
            let frames = messages(client);
            assert_eq!(take(&mut server, &frames).len(), 1);
            frames[0].payload.len()
        })
    };
    let [_, _, usual] = lengths(&mut client);
    // It becomes smaller and as large as before, and nothing in it is evicted.
    client.accept(&[settings(&[(1, 1_000)]), settings(&[(1, 4_096)])]);
    let [announced, second, third] = lengths(&mut client);
    assert!(announced > usual);
    assert_eq!([second, third], [usual; 2]);
}

#[test]
fn what_stands_beside_the_fields_is_part_of_the_head() {
    static NAME: http::HeaderName = http::HeaderName::from_static("x-beside");
    static VALUE: http::HeaderValue = http::HeaderValue::from_static("value");
    let (mut client, mut server) = (Tested::client(), Tested::server());
    for round in 0..20 {
        let more = match round % 3 {
            0 => [None; 2],
            1 => [Some((&NAME, &VALUE)), None],
            _ => [None, Some((&NAME, &VALUE))],
        };
        let request = SendRequest { more, ..request(PATHS[0]) };
        client.connection.send_request(request, true).unwrap();
        let (_, headers) = pass(&mut client, &mut server).pop().unwrap();
        assert_eq!(headers.contains_key("x-beside"), round % 3 > 0, "round {round}");
    }
}

#[test]
fn a_known_request_may_be_too_large_for_the_peer_later() {
    let (mut client, mut server) = (Tested::client(), Tested::server());
    for _ in 0..5 {
        client.connection.send_request(request(PATHS[0]), true).unwrap();
        pass(&mut client, &mut server);
    }
    client.accept(&[settings(&[(6, 100)])]);
    let refused = client.connection.send_request(request(PATHS[0]), true);
    assert_eq!(refused, Err(NotNow::TooLarge { limit: 100 }));
}

#[test]
fn a_known_response_means_the_same() {
    let (mut client, mut server) = (Tested::client(), Tested::server());
    for round in 0..20 {
        let key = client.connection.send_request(request(PATHS[0]), true).unwrap();
        let opened = server.accept(&messages(&mut client));
        let Event::Request { stream, .. } = opened[0] else { panic!("{opened:?}") };
        if round == 10 {
            // From now on it is more than the client takes.
            server.accept(&[settings(&[(6, 120)])]);
        }
        server.connection.send_static_response(stream, &HEAD);
        let mut message = b"message".to_vec();
        server.connection.send_small(stream, &mut message, false);
        server.connection.send_static_trailers(stream, &TRAILERS);
        server.connection.forget(stream);
        let events = client.accept(&messages(&mut server));
        match &events[..] {
            [Event::Response { head, .. }, .., Event::Trailers { headers, .. }] if round < 10 => {
                assert_eq!(head.status, StatusCode::OK);
                assert_eq!(head.headers, *HEAD);
                assert_eq!(**headers, *TRAILERS);
            }
            [Event::Response { head, .. }, ..] if round >= 10 => {
                assert_eq!(head.headers["grpc-status"], "8", "{head:?}");
            }
            events => panic!("{events:?}"),
        }
        client.connection.forget(key);
    }
}

fn response(data: &[u8]) -> WholeResponse<'_> {
    WholeResponse { head: &HEAD, data, trailers: &TRAILERS }
}

#[test]
fn a_response_in_one_step_is_the_same_as_in_three() {
    // The client's window for a stream takes the last of these in part.
    let sizes = [5, 5, 5, 1, 0, 16_383, 16_384, 5, 70_000];
    let mut clients = [Tested::client(), Tested::client()];
    let mut servers = [Tested::server(), Tested::server()];
    let mut steps = Vec::new();
    for (round, size) in sizes.into_iter().enumerate() {
        let sent = [0, 1].map(|side| {
            let (client, server) = (&mut clients[side], &mut servers[side]);
            let key = client.connection.send_request(request(PATHS[0]), true).unwrap();
            let opened = server.accept(&messages(client));
            let Event::Request { stream, .. } = opened[0] else { panic!("{opened:?}") };
            let server = &mut server.connection;
            let mut message = vec![7; size];
            let whole = side == 1 && server.send_whole(stream, response(&message));
            if !whole {
                server.send_static_response(stream, &HEAD);
                server.send_small(stream, &mut message, false);
                server.send_static_trailers(stream, &TRAILERS);
            }
            if side == 1 {
                steps.push(whole);
                assert!(!server.send_whole(stream, response(b"again")), "round {round}");
            }
            server.forget(stream);
            client.connection.forget(key);
            servers[side].frames()
        });
        assert_eq!(sent[0], sent[1], "round {round}: {size} bytes");
    }
    // Before the encoder has sent the head, and where the data is not one small frame, it does nothing.
    assert_eq!(steps[3..], [true, false, true, false, true, false]);
    assert!(!steps[0]);
}
