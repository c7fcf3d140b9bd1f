//! A peer made by hand: frames as bytes, and one connection to send them to.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::http2::connection::Connection;
use crate::http2::error::{ConnectionError, ErrorCode};
use crate::http2::frame::PREFACE;
use crate::http2::key::StreamKey;
use crate::http2::send_head::SendRequest;
use crate::http2::{Config, ReceiveOutcome, Reset};

use super::seen::{self, Event};
use super::wire;
pub(super) use super::wire::Frame;
pub(super) use crate::http2::frame::{flag, kind};

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Frame {
    Frame { kind, flags, stream, payload: payload.as_ref().to_vec() }
}

pub(super) fn data(stream: u32, payload: impl AsRef<[u8]>, end: bool) -> Frame {
    frame(kind::DATA, u8::from(end), stream, payload)
}

pub(super) fn headers(stream: u32, block: impl AsRef<[u8]>, end: bool) -> Frame {
    frame(kind::HEADERS, flag::END_HEADERS | u8::from(end), stream, block)
}

pub(super) fn rst(stream: u32, code: ErrorCode) -> Frame {
    frame(kind::RST_STREAM, 0, stream, code.0.to_be_bytes())
}

pub(super) fn window_update(stream: u32, increment: u32) -> Frame {
    frame(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub(super) fn ping(bytes: [u8; 8]) -> Frame {
    frame(kind::PING, 0, 0, bytes)
}

pub(super) fn settings(settings: &[(u16, u32)]) -> Frame {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [id.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()])
        .flatten()
        .collect();
    frame(kind::SETTINGS, 0, 0, payload)
}

pub(super) fn settings_ack() -> Frame {
    frame(kind::SETTINGS, flag::ACK, 0, [])
}

pub(super) fn go_away(last: u32, code: ErrorCode) -> Frame {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend_from_slice(&code.0.to_be_bytes());
    frame(kind::GOAWAY, 0, 0, payload)
}

/// Returns a header block. Values may be bytes that are not text.
pub(super) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    wire::block(fields)
}

pub(super) const REQUEST: &[(&str, &[u8])] = &[
    (":method", b"POST"),
    (":scheme", b"http"),
    (":path", b"/a.B/C"),
    (":authority", b"localhost"),
    ("content-type", b"application/grpc"),
    ("te", b"trailers"),
];

pub(super) fn request_block() -> Vec<u8> {
    block(REQUEST)
}

/// Returns REQUEST with more fields after it.
pub(super) fn request_with(more: &[(&str, &[u8])]) -> Vec<u8> {
    block(&[REQUEST, more].concat())
}

pub(super) fn response_block() -> Vec<u8> {
    block(&[(":status", b"200"), ("content-type", b"application/grpc")])
}

pub(super) fn trailers_block() -> Vec<u8> {
    block(&[("grpc-status", b"0")])
}

pub(super) fn request(stream: u32, end: bool) -> Frame {
    headers(stream, request_block(), end)
}

/// Takes out all that a connection has to write.
pub(super) fn drain(connection: &mut Connection) -> Vec<u8> {
    let mut all = Vec::new();
    while connection.has_outgoing() {
        let mut slices = [IoSlice::new(&[]); 8];
        let count = connection.outgoing(&mut slices);
        let len = slices[..count].iter().map(|slice| slice.len()).sum();
        for slice in &slices[..count] {
            all.extend_from_slice(slice);
        }
        connection.advance(len);
    }
    all
}

pub(super) fn parse(bytes: &[u8]) -> Vec<Frame> {
    let mut bytes = BytesMut::from(bytes);
    let frames = std::iter::from_fn(|| Frame::take(&mut bytes)).collect();
    assert!(bytes.is_empty(), "half a frame was written");
    frames
}

/// A connection, and a clock that stands still unless a test moves it.
pub(super) struct Tested {
    pub(super) connection: Connection,
    pub(super) now: Instant,
    pub(super) input: BytesMut,
}

impl Tested {
    /// Returns a server that has seen only the preface.
    pub(super) fn greeted_server(config: Config) -> Self {
        let now = Instant::now();
        let mut connection = Connection::server(config, now);
        drain(&mut connection);
        let mut tested = Self { connection, now, input: BytesMut::new() };
        tested.bytes(PREFACE).expect("the preface");
        tested
    }

    /// Returns a server whose peer has sent its settings and acknowledged ours.
    pub(super) fn server_with(config: Config) -> Self {
        let mut tested = Self::greeted_server(config);
        tested.shake(&[]);
        tested
    }

    pub(super) fn server() -> Self {
        Self::server_with(Config::default())
    }

    pub(super) fn client_with(config: Config, peer: &[(u16, u32)]) -> Self {
        let now = Instant::now();
        let mut connection = Connection::client(config, now);
        drain(&mut connection);
        let mut tested = Self { connection, now, input: BytesMut::new() };
        tested.shake(peer);
        tested
    }

    pub(super) fn client() -> Self {
        Self::client_with(Config::default(), &[])
    }

    fn shake(&mut self, peer: &[(u16, u32)]) {
        self.send(&[settings(peer), settings_ack()]).expect("settings");
        assert!(matches!(self.events()[..], [Event::Ready]));
        assert_eq!(self.frames(), [settings_ack()]);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.input.extend_from_slice(bytes);
        self.receive()
    }

    /// Runs as many turns as the input needs.
    fn receive(&mut self) -> Result<(), ConnectionError> {
        while self.connection.receive(&mut self.input, self.now)? == ReceiveOutcome::Some {}
        Ok(())
    }

    pub(super) fn send(&mut self, frames: &[Frame]) -> Result<(), ConnectionError> {
        for frame in frames {
            frame.write(&mut self.input);
        }
        self.receive()
    }

    /// Sends frames that must be accepted, and returns the events.
    pub(super) fn accept(&mut self, frames: &[Frame]) -> Vec<Event> {
        self.send(frames).expect("must be accepted");
        self.events()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        seen::events(&mut self.connection)
    }

    /// Returns what the connection has written since the last call.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        parse(&drain(&mut self.connection))
    }

    /// Does what a driver does at the end of a turn.
    pub(super) fn next_timeout(&mut self) -> Option<Instant> {
        self.connection.note_time(self.now);
        self.connection.next_timeout()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Returns a server's stream 1, which is open and has no events left.
    pub(super) fn open_request(&mut self, end: bool) -> StreamKey {
        self.request_on(1, end)
    }

    pub(super) fn request_on(&mut self, id: u32, end: bool) -> StreamKey {
        match &self.accept(&[request(id, end)])[..] {
            [Event::Request { stream, .. }] => *stream,
            events => panic!("no request but {events:?}"),
        }
    }

    /// Starts a client's next stream.
    pub(super) fn start_request(&mut self, end: bool) -> StreamKey {
        let headers = HeaderMap::new();
        let key = self.connection.send_request(head(&headers), end).expect("a slot");
        self.frames();
        key
    }

    /// Sends a whole gRPC response and forgets the stream.
    pub(super) fn answer(&mut self, key: StreamKey, body: &[u8]) {
        let connection = &mut self.connection;
        connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
        connection.send_data(key, Bytes::copy_from_slice(body), false);
        connection.send_trailers(key, &map(&[("grpc-status", "0")]));
        connection.forget(key);
    }

    /// Checks that `frames` end the connection with this code, and that the GOAWAY has it.
    #[track_caller]
    pub(super) fn fails(&mut self, code: ErrorCode, frames: &[Frame]) -> ConnectionError {
        let error = self.send(frames).expect_err("must be a connection error");
        self.failed(code, error);
        error
    }

    #[track_caller]
    pub(super) fn failed(&mut self, code: ErrorCode, error: ConnectionError) {
        assert_eq!(error.code, code, "{error}");
        assert_eq!(self.connection.failure(), Some(error));
        let written = self.frames();
        let last = written.last().expect("a GOAWAY");
        assert_eq!(last.kind, kind::GOAWAY, "{written:?}");
        assert_eq!(last.payload[4..8], code.0.to_be_bytes(), "{error}");
        assert!(self.connection.is_done());
        // Nothing is received or sent any more.
        assert!(self.send(&[ping(*b"12345678")]).is_err());
        assert!(self.frames().is_empty());
    }

    /// Checks that `frames` reset this stream and do nothing else.
    #[track_caller]
    pub(super) fn resets(&mut self, stream: u32, code: ErrorCode, frames: &[Frame]) -> Vec<Event> {
        let events = self.accept(frames);
        assert_eq!(self.frames(), [rst(stream, code)], "{events:?}");
        events
    }

    /// Checks that `frames` reset a stream that the driver knows, and that the driver is told.
    #[track_caller]
    pub(super) fn resets_known(
        &mut self,
        key: StreamKey,
        code: ErrorCode,
        frames: &[Frame],
    ) -> Reset {
        let events = self.resets(key.id(), code, frames);
        match events.last() {
            Some(Event::Reset { stream, reset }) if *stream == key => {
                assert_eq!(reset.code, code);
                *reset
            }
            // Its message had ended before.
            Some(Event::Stopped { stream }) if *stream == key => Reset::new(code, ""),
            _ => panic!("no reset but {events:?}"),
        }
    }
}

pub(super) fn head(headers: &HeaderMap) -> SendRequest<'_> {
    SendRequest {
        method: "POST",
        scheme: "http",
        authority: b"localhost",
        path: "/a.B/C",
        headers,
        more: [None; 2],
        id: None,
        descriptors: None,
    }
}

pub(super) fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        })
        .collect()
}
