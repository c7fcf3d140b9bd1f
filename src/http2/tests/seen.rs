//! The events of a connection with their contents, in the order in which they came, for tests of
//! whole messages. Everything that has arrived is read.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;

use crate::http2::arrived::{Failure, MessageEnd};
use crate::http2::error::ErrorCode;
use crate::http2::head::{RequestHead, ResponseHead};
use crate::http2::{Body, Connection, NoRequest, ProtocolEvent as Told, Read, Reset, StreamKey};

#[derive(Debug)]
pub(super) enum Event {
    Ready,
    Request {
        stream: StreamKey,
        head: Arc<RequestHead>,
        end: bool,
    },
    RequestTooLarge {
        stream: StreamKey,
        limit: u32,
        foreign: bool,
    },
    Response {
        stream: StreamKey,
        head: Arc<ResponseHead>,
        end: bool,
    },
    Data {
        stream: StreamKey,
        bytes: Bytes,
        end: bool,
    },
    Trailers {
        stream: StreamKey,
        headers: Arc<HeaderMap>,
    },
    Reset {
        stream: StreamKey,
        reset: Reset,
    },
    /// It was reset after the whole message had come.
    Stopped {
        stream: StreamKey,
    },
    /// It ended with the connection.
    Lost,
    Writable {
        stream: StreamKey,
    },
    SlotsAvailable,
    GoAway {
        last_stream: u32,
        code: ErrorCode,
    },
}

pub(super) fn events(connection: &mut Connection) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Some(event) = connection.poll_event() {
        match event {
            Told::Ready => seen.push(Event::Ready),
            Told::Opened(stream) => opened(connection, stream, &mut seen),
            Told::Readable(stream) => readable(connection, stream, &mut seen),
            Told::Writable(stream) => seen.push(Event::Writable { stream }),
            Told::Reset(stream) => reset(connection, stream, &mut seen),
            Told::SlotsAvailable => seen.push(Event::SlotsAvailable),
            Told::GoAway => {
                let go_away = connection.peer_go_away().expect("a GOAWAY");
                let (last_stream, code) = (go_away.last_stream, go_away.code);
                seen.push(Event::GoAway { last_stream, code });
            }
        }
    }
    seen
}

fn opened(connection: &mut Connection, stream: StreamKey, seen: &mut Vec<Event>) {
    match connection.take_request(stream) {
        Ok(request) => {
            let end = is_empty(&request.body);
            if let Some(stream) = connection.streams.get_mut(stream) {
                // For tests that check them.
                stream.descriptors = request.descriptors;
            }
            seen.push(Event::Request { stream, head: request.head, end });
            rest(connection, stream, request.body, seen);
        }
        Err(NoRequest::TooLarge { limit, foreign }) => {
            seen.push(Event::RequestTooLarge { stream, limit, foreign });
        }
        Err(NoRequest::Forgotten) => panic!("a request that is gone was opened"),
    }
}

fn readable(connection: &mut Connection, stream: StreamKey, seen: &mut Vec<Event>) {
    if let Poll::Ready(Ok((head, body))) = connection.take_response(stream) {
        let end = is_empty(&body);
        seen.push(Event::Response { stream, head, end });
        rest(connection, stream, body, seen);
    } else {
        pieces(connection, stream, seen);
    }
}

fn reset(connection: &mut Connection, stream: StreamKey, seen: &mut Vec<Event>) {
    pieces(connection, stream, seen);
    seen.push(match connection.read(stream) {
        Read::Failed(Failure::Reset(reset)) => Event::Reset { stream, reset },
        Read::Failed(Failure::ConnectionEnded { .. }) => Event::Lost,
        _ => Event::Stopped { stream },
    });
}

fn is_empty(body: &Body) -> bool {
    matches!(body, Body::Whole(content) if content.pieces.is_empty() && content.trailers.is_none())
}

fn rest(connection: &mut Connection, stream: StreamKey, body: Body, seen: &mut Vec<Event>) {
    let Body::Whole(mut content) = body else {
        return pieces(connection, stream, seen);
    };
    while let Some(bytes) = content.pieces.pop() {
        let end = content.pieces.is_empty() && content.trailers.is_none();
        seen.push(Event::Data { stream, bytes, end });
    }
    if let Some(headers) = content.trailers {
        seen.push(Event::Trailers { stream, headers });
    }
}

fn pieces(connection: &mut Connection, stream: StreamKey, seen: &mut Vec<Event>) {
    let mut ended = false;
    loop {
        match connection.read(stream) {
            Read::Data(bytes) => {
                ended = connection.streams.get(stream).is_some_and(|stream| {
                    stream.arrived.pieces.is_empty()
                        && matches!(stream.arrived.end, MessageEnd::Plain)
                });
                seen.push(Event::Data { stream, bytes, end: ended });
            }
            Read::Trailers(headers) => return seen.push(Event::Trailers { stream, headers }),
            Read::End if !ended && !stopped(connection, stream) => {
                return seen.push(Event::Data { stream, bytes: Bytes::new(), end: true });
            }
            // An event of its own tells that it failed.
            Read::Failed(_) | Read::End | Read::Pending | Read::Forgotten => return,
        }
    }
}

/// Returns whether the stream was reset after its end, so that reading it returns no more than
/// before.
fn stopped(connection: &Connection, stream: StreamKey) -> bool {
    connection.streams.get(stream).is_some_and(|stream| stream.reset_by_peer || stream.reset_by_us)
}
