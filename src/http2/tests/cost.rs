//! What a unary call costs, and a header block of a peer that wastes work. This is a measurement, not a
//! test. Count the instructions as the difference between two runs under callgrind with different
//! `CALLS`:
//!
//! `CALLS=20000 valgrind --tool=callgrind $TEST_BINARY --ignored --exact
//! http2::tests::cost::of_a_unary_call_on_a_server`

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::raw::*;
use crate::http2::head::{HeadBuilder, HeadKind};
use crate::http2::hpack::Decoder;
use crate::http2::{Body, Config, Connection, ProtocolEvent};

fn calls() -> u32 {
    let calls = std::env::var("CALLS").ok().and_then(|calls| calls.parse().ok());
    calls.unwrap_or(1_000_000)
}

fn report(what: &str, start: Instant, calls: u32) {
    let each = start.elapsed() / calls;
    #[expect(clippy::print_stderr, reason = "what it is for")]
    {
        eprintln!("{what}: {each:?} each");
    }
}

/// Moves all waiting bytes, as a socket would.
fn carry(from: &mut Connection, to: &mut BytesMut) {
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let count = from.outgoing(&mut slices);
    let mut len = 0;
    for slice in &slices[..count] {
        to.extend_from_slice(slice);
        len += slice.len();
    }
    from.advance(len);
}

/// Answers a request with its own body.
fn answer(server: &mut Connection, event: ProtocolEvent, reply: &HeaderMap, trailers: &HeaderMap) {
    let ProtocolEvent::Opened(stream) = event else { panic!("{event:?}") };
    let request = server.take_request(stream).expect("a request");
    black_box(&request.head);
    let Body::Whole(mut content) = request.body else { panic!("half a request") };
    server.send_response(stream, StatusCode::OK, reply, false);
    server.send_data(stream, content.pieces.pop().expect("a body"), false);
    server.send_trailers(stream, trailers);
    server.forget(stream);
}

fn call_headers() -> HeaderMap {
    map(&[("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "tonic/0.14.2")])
}

fn reply_headers() -> HeaderMap {
    map(&[("content-type", "application/grpc")])
}

#[test]
#[ignore = "a measurement"]
fn of_a_unary_call_on_a_server() {
    let calls = calls();
    let payload = Bytes::from(vec![7; 1_024]);
    let mut client = Connection::client(Config::default(), Instant::now());
    let mut bytes = BytesMut::new();
    let (headers, reply, trailers) =
        (call_headers(), reply_headers(), map(&[("grpc-status", "0")]));
    // After two requests the table no longer changes. The third request is like all later ones.
    let mut server = Tested::server();
    server.accept(&[window_update(0, 0x7fff_0000 - 65_535)]);
    drain(&mut client);
    for _ in 0..3 {
        bytes.clear();
        let key = client.send_request(head(&headers), false).expect("a slot");
        client.send_data(key, payload.clone(), true);
        carry(&mut client, &mut bytes);
        server.connection.receive(&mut bytes.clone(), server.now).expect("a request");
        for event in server.events() {
            if let super::seen::Event::Data { stream, .. } = event {
                server.connection.forget(stream);
            }
        }
        server.frames();
    }
    let header_len = 9 + usize::from(bytes[2]);
    let start = Instant::now();
    let mut input = BytesMut::new();
    let mut output = BytesMut::new();
    for n in 3..calls + 3 {
        let id = (2 * n + 1).to_be_bytes();
        bytes[5..9].copy_from_slice(&id);
        bytes[header_len + 5..header_len + 9].copy_from_slice(&id);
        input.extend_from_slice(&bytes);
        let connection = &mut server.connection;
        connection.receive(&mut input, server.now).expect("a request");
        while let Some(event) = connection.poll_event() {
            answer(connection, event, &reply, &trailers);
        }
        carry(connection, &mut output);
        black_box(&output);
        output.clear();
    }
    report("server", start, calls);
}

#[test]
#[ignore = "a measurement"]
fn of_a_unary_call_on_both_ends() {
    let calls = calls();
    let now = Instant::now();
    let mut client = Connection::client(Config::default(), now);
    let mut server = Connection::server(Config::default(), now);
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let (headers, reply, trailers) =
        (call_headers(), reply_headers(), map(&[("grpc-status", "0")]));
    let payload = Bytes::from(vec![7; 1_024]);
    let start = Instant::now();
    for _ in 0..calls {
        let key = client.send_request(head(&headers), false).expect("a slot");
        client.send_data(key, payload.clone(), true);
        carry(&mut client, &mut to_server);
        server.receive(&mut to_server, now).expect("a request");
        while let Some(event) = server.poll_event() {
            if let ProtocolEvent::Opened(_) = event {
                answer(&mut server, event, &reply, &trailers);
            }
        }
        carry(&mut server, &mut to_client);
        client.receive(&mut to_client, now).expect("a response");
        while let Some(event) = client.poll_event() {
            if let ProtocolEvent::Readable(stream) = event {
                black_box(client.take_response(stream).is_ready());
                client.forget(stream);
            }
        }
    }
    report("both ends", start, calls);
}

/// The entry has a malformed name of 4,000 bytes, and the references have three bytes each.
/// [`of_a_block_of_static_references`] is what to compare with.
#[test]
#[ignore = "a measurement"]
fn of_a_block_of_references_to_a_malformed_name() {
    let entry = [&[0x40, 127, 0xa1, 0x1e][..], &[b'a'; 3_999], b"A", &[0]].concat();
    decode_blocks("3-byte references to a malformed name", &entry, &[0x0f, 62 - 15, 0]);
}

#[test]
#[ignore = "a measurement"]
fn of_a_block_of_static_references() {
    decode_blocks("static references", &[], &[0x82]);
}

/// Decodes `CALLS` blocks of 15,000 bytes, which repeat `unit` and come after an entry of the table.
fn decode_blocks(what: &str, entry: &[u8], unit: &[u8]) {
    let calls = calls();
    let mut decoder = Decoder::new(4096);
    decoder.decode(entry, |_| ()).expect("an entry");
    let block = unit.repeat(15_000 / unit.len());
    let start = Instant::now();
    for _ in 0..calls {
        let mut builder = HeadBuilder::new(HeadKind::Request, 16_384, false);
        decoder.decode(black_box(&block), |field| builder.field(field)).expect("a block");
        black_box(builder.finish()).expect_err("no request");
    }
    report(what, start, calls);
}
