//! The functions that the fuzz targets in `fuzz/` call. They are compiled with `--cfg fuzzing`
//! only, so that private modules stay private.
//!
//! A connection's input is the fuzzer's bytes as they are, or a list of frames with correct
//! headers. With those, a mutation reaches more code than the first length field.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::http2::{
    Body, Config, Connection, Decoder, Encoder, ErrorCode, Field, ProtocolEvent, Pseudo, Read,
    SendRequest, StreamKey,
};

/// The most bytes that may wait for a peer that reads nothing: the data of all streams, and
/// answers, which are limited.
const MOST_OUTGOING: usize = 8 << 20;

/// Takes bytes off a fuzzer's input.
struct FuzzInput<'a>(&'a [u8]);

impl<'a> FuzzInput<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Appends the next input of the peer.
    fn input(&mut self, framed: bool, into: &mut BytesMut) {
        if !framed {
            let count = self.byte().unwrap_or(0);
            into.extend_from_slice(self.bytes(usize::from(count)));
            return;
        }
        let [kind, flags, stream, len] = [(); 4].map(|()| self.byte().unwrap_or(0));
        let payload = self.bytes(usize::from(len));
        into.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        into.extend_from_slice(&[kind % 12, flags, 0, 0, 0, stream]);
        into.extend_from_slice(payload);
    }
}

fn config(byte: u8) -> Config {
    let small = byte & 1 == 1;
    Config {
        max_streams: if byte & 2 == 2 { 2 } else { 256 },
        stream_window: if small { 10 } else { 1 << 20 },
        connection_window: if small { 65_535 } else { 4 << 20 },
        any_authority: byte & 4 == 4,
        ..Config::default()
    }
}

/// Does one of the things that an application can do with a stream, chosen by the fuzzer.
fn act(connection: &mut Connection, key: StreamKey, choice: u8, is_client: bool) {
    match choice % 8 {
        0 => connection.forget(key),
        1 => connection.reset(key, ErrorCode::CANCEL),
        2 => connection.discard(key),
        4 => {
            let _ = connection.read(key);
        }
        3 if !is_client => {
            connection.send_response(key, StatusCode::OK, &HeaderMap::new(), true);
        }
        _ => {}
    }
}

fn handle_events(
    connection: &mut Connection,
    keys: &mut Vec<StreamKey>,
    choice: u8,
    is_client: bool,
) {
    while let Some(event) = connection.poll_event() {
        match event {
            ProtocolEvent::Opened(stream) => match connection.take_request(stream) {
                Ok(request) => {
                    keys.push(stream);
                    if choice & 0x40 == 0 {
                        let headers = HeaderMap::new();
                        connection.send_response(stream, StatusCode::OK, &headers, false);
                        connection.send_data(stream, Bytes::from_static(b"reply"), false);
                        connection.send_trailers(stream, &headers);
                        if matches!(request.body, Body::Whole(_)) {
                            connection.forget(stream);
                        }
                    }
                }
                Err(_) => connection.forget(stream),
            },
            ProtocolEvent::Readable(stream) if choice & 0x20 == 0 => {
                if is_client {
                    let _ = connection.take_response(stream);
                }
                while let Read::Data(_) = connection.read(stream) {}
            }
            ProtocolEvent::Reset(stream) => connection.forget(stream),
            _ => {}
        }
    }
}

fn send_request(connection: &mut Connection, keys: &mut Vec<StreamKey>, choice: u8) {
    let headers = HeaderMap::new();
    let request = SendRequest {
        method: "POST",
        scheme: "http",
        authority: b"localhost",
        path: "/a.B/C",
        headers: &headers,
        more: [None; 2],
        id: None,
        descriptors: None,
    };
    match connection.send_request(request, false) {
        Ok(key) => {
            connection.send_data(key, Bytes::from_static(b"request"), choice & 1 == 1);
            keys.push(key);
        }
        Err(_) => {}
    }
}

fn drive(mut connection: Connection, source: &mut FuzzInput<'_>, is_client: bool) {
    let framed = source.byte().is_some_and(|byte| byte & 1 == 1);
    let mut now = Instant::now();
    let mut input = BytesMut::new();
    if !is_client && framed {
        input.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    } else if framed {
        input.extend_from_slice(b"\0\0\0\x04\0\0\0\0\0");
    }
    let mut keys: Vec<StreamKey> = Vec::new();
    while !source.0.is_empty() {
        source.input(framed, &mut input);
        let choice = source.byte().unwrap_or(0);
        let failed = connection.receive(&mut input, now).is_err();
        handle_events(&mut connection, &mut keys, choice, is_client);
        keys.truncate(512);
        if !keys.is_empty() {
            let key = keys[usize::from(choice) % keys.len()];
            act(&mut connection, key, choice, is_client);
        }
        if is_client && choice & 0x80 == 0x80 {
            send_request(&mut connection, &mut keys, choice);
        }
        if choice & 0x10 == 0 {
            connection.advance(connection.outgoing_len());
        }
        assert!(connection.outgoing_len() <= MOST_OUTGOING, "outgoing is not bounded");
        now += Duration::from_millis(u64::from(choice));
        connection.note_time(now);
        if connection.next_timeout().is_some_and(|at| at <= now) {
            let _ = connection.on_timeout(now);
        }
        if failed {
            break;
        }
    }
    // Whatever came, no stream is left after the application has forgotten all of them.
    for key in keys {
        connection.forget(key);
    }
    while connection.poll_event().is_some() {}
    connection.close(ErrorCode::NO_ERROR, "done");
    connection.advance(connection.outgoing_len());
    assert!(connection.is_done());
}

/// Feeds a client's bytes to a server.
pub fn server_input(data: &[u8]) {
    let mut source = FuzzInput(data);
    let config = config(source.byte().unwrap_or(0));
    drive(Connection::server(config, Instant::now()), &mut source, false);
}

/// Feeds a server's bytes to a client with calls in flight.
pub fn client_input(data: &[u8]) {
    let mut source = FuzzInput(data);
    let config = config(source.byte().unwrap_or(0));
    drive(Connection::client(config, Instant::now()), &mut source, true);
}

/// Finds messages in a body's data, in pieces of any size.
pub fn messages(data: &[u8]) {
    crate::stubs::fuzzing::messages(data);
}

/// Feeds header blocks to a decoder, and changes the table's limit between them.
pub fn hpack_decoder(data: &[u8]) {
    let mut source = FuzzInput(data);
    let mut decoder = Decoder::new(4096);
    while let Some(len) = source.byte() {
        if len == 255 {
            decoder.set_max_table_size(usize::from(source.byte().unwrap_or(0)) * 64);
            continue;
        }
        let block = source.bytes(usize::from(len));
        let before = decoder.generation();
        let mut fields = Vec::new();
        if decoder.decode(block, |field| fields.push(field.clone())).is_err() {
            return;
        }
        if decoder.generation() == before {
            let mut again = Vec::new();
            decoder.decode(block, |field| again.push(field.clone())).expect("as before");
            assert_eq!(fields, again, "one block, one table, two lists");
        }
    }
}

/// Encodes and decodes lists of fields, which must come out unchanged.
pub fn hpack_round_trip(data: &[u8]) {
    let mut source = FuzzInput(data);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    while let Some(choice) = source.byte() {
        if choice & 0x80 == 0x80 {
            let size = usize::from(choice & 0x7f) * 64;
            // As on a connection, the encoder is told the decoder's limit.
            encoder.set_peer_max_table_size(size);
            decoder.set_max_table_size(size);
        }
        let mut fields = vec![Field::Pseudo(Pseudo::Method, HeaderValue::from_static("POST"))];
        for _ in 0..choice % 8 {
            let name_len = usize::from(source.byte().unwrap_or(0) % 16);
            let value_len = usize::from(source.byte().unwrap_or(0));
            let name = HeaderName::from_bytes(source.bytes(name_len));
            let value = HeaderValue::from_bytes(source.bytes(value_len));
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(choice & 0x40 == 0x40);
                fields.push(Field::Header(name, value));
            }
        }
        let mut block = BytesMut::new();
        let mut writer = encoder.begin(&mut block);
        for field in &fields {
            match field {
                Field::Pseudo(name, value) => writer.pseudo(*name, value.as_bytes()),
                Field::Header(name, value) => writer.header(name, value),
                Field::Malformed { .. } => unreachable!("none was made"),
            }
        }
        let mut decoded = Vec::new();
        decoder.decode(&block, |field| decoded.push(field.clone())).expect("our own block");
        assert_eq!(decoded, fields);
    }
}
