//! Messages in: what the application takes of what has arrived. Taking data gives the peer window
//! to send as much again.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;

use super::arrived::{Failure, MessageEnd, Pieces};
use super::connection::Connection;
use super::frame::kind;
use super::head::{Head, RequestHead, ResponseHead};
use super::key::StreamKey;
use super::role::Role;
use super::stream::Receiving;
use crate::descriptors::ReceivedSet;

/// A request as it is given to a handler.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: Arc<RequestHead>,
    pub(crate) body: Body,
    /// The descriptors that came with the head.
    pub(crate) descriptors: Option<Box<ReceivedSet>>,
}

/// Why there is no request to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRequest {
    /// The peer has cancelled it, so there is nothing to do.
    Forgotten,
    /// Its header list is larger than `limit`, which is
    /// [`max_header_list_size`](super::Config::max_header_list_size). The driver has to answer and
    /// forget it. `foreign` means that its method or its content type is not gRPC's.
    TooLarge { limit: u32, foreign: bool },
}

/// What follows a head.
#[derive(Debug)]
pub(crate) enum Body {
    /// The whole body has arrived.
    Whole(Content),
    /// The body is still arriving. It is read by [`Connection::read`].
    Open,
}

/// A body that has arrived in full, and its trailers.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) pieces: Pieces,
    pub(crate) trailers: Option<Arc<HeaderMap>>,
}

/// The next part of a body.
#[derive(Debug)]
pub(crate) enum Read {
    Data(Bytes),
    /// Trailers, and the end.
    Trailers(Arc<HeaderMap>),
    End,
    Failed(Failure),
    /// Nothing has arrived. [`ProtocolEvent::Readable`](super::ProtocolEvent::Readable) or
    /// [`ProtocolEvent::Reset`](super::ProtocolEvent::Reset) tells when to read again.
    Pending,
    /// The stream was forgotten.
    Forgotten,
}

impl Connection {
    /// Server: takes a request that was [opened](super::ProtocolEvent::Opened), with its whole body if that
    /// has arrived.
    pub(crate) fn take_request(&mut self, key: StreamKey) -> Result<Request, NoRequest> {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.forgotten) else {
            return Err(NoRequest::Forgotten);
        };
        stream.taken = true;
        match stream.arrived.head.take() {
            Some(Head::Request(head)) => {
                let descriptors = stream.descriptors.take();
                Ok(Request { head, body: self.take_body(key), descriptors })
            }
            _ => Err(NoRequest::TooLarge {
                limit: self.config.max_header_list_size,
                foreign: stream.foreign,
            }),
        }
    }

    /// Client: takes a response's head, with its whole body if that has arrived. Then the stream
    /// can be [forgotten](Self::forget).
    pub(crate) fn take_response(
        &mut self,
        key: StreamKey,
    ) -> Poll<Result<(Arc<ResponseHead>, Body), Failure>> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Poll::Pending;
        };
        match stream.arrived.head.take() {
            Some(Head::Response(head)) => Poll::Ready(Ok((head, self.take_body(key)))),
            _ => match stream.arrived.end {
                MessageEnd::Failed(failure) => Poll::Ready(Err(failure)),
                _ => Poll::Pending,
            },
        }
    }

    /// Client: returns why a stream failed whose response has not begun. It takes nothing.
    pub(crate) fn failure_of(&self, key: StreamKey) -> Option<Failure> {
        let arrived = &self.streams.get(key)?.arrived;
        match arrived.end {
            MessageEnd::Failed(failure) if arrived.head.is_none() => Some(failure),
            _ => None,
        }
    }

    /// Client: returns whether a response is complete or has failed, read or not. Then the rest of
    /// the request is of no use.
    pub(crate) fn is_answered(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_none_or(|stream| stream.receiving == Receiving::Done)
    }

    #[inline]
    fn take_body(&mut self, key: StreamKey) -> Body {
        let Some(stream) = self.streams.get_mut(key) else {
            return Body::Open;
        };
        let trailers = match std::mem::replace(&mut stream.arrived.end, MessageEnd::Plain) {
            MessageEnd::Plain => None,
            MessageEnd::Trailers(trailers) => Some(trailers),
            unfinished => {
                stream.arrived.end = unfinished;
                return Body::Open;
            }
        };
        let pieces = std::mem::take(&mut stream.arrived.pieces);
        let unread = std::mem::take(&mut stream.unread);
        self.received.release(unread);
        self.received.copied -= pieces.copied();
        if self.role == Role::Server {
            self.streams.hold(key, unread as usize);
        }
        Body::Whole(Content { pieces, trailers })
    }

    /// Takes the next part of a body, and lets the peer send as much again.
    pub(crate) fn read(&mut self, key: StreamKey) -> Read {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.forgotten) else {
            return Read::Forgotten;
        };
        if let Some(piece) = stream.arrived.pieces.pop_piece() {
            let len = piece.bytes.len() as u32;
            if !piece.origin.is_pinned() {
                self.received.copied -= len as usize;
            }
            self.credit(key, len);
            return Read::Data(piece.into_bytes());
        }
        match std::mem::replace(&mut stream.arrived.end, MessageEnd::Plain) {
            MessageEnd::Open => {
                stream.arrived.end = MessageEnd::Open;
                Read::Pending
            }
            MessageEnd::Plain => Read::End,
            MessageEnd::Trailers(trailers) => Read::Trailers(trailers),
            MessageEnd::Failed(failure) => {
                stream.arrived.end = MessageEnd::Failed(failure);
                Read::Failed(failure)
            }
        }
    }

    /// Counts bytes that a handler keeps of a request until its call has ended.
    pub(crate) fn hold(&mut self, key: StreamKey, bytes: usize) {
        self.streams.hold(key, bytes);
    }

    /// Drops what has arrived of a body, because it will not be read. The peer may go on sending.
    pub(crate) fn discard(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.discarded = true;
        let pieces = std::mem::take(&mut stream.arrived.pieces);
        self.received.copied -= pieces.copied();
        let unread = stream.unread;
        self.credit(key, unread);
    }

    /// Notes that `bytes` of a stream's data are no longer kept, so that the peer may send as many
    /// more.
    pub(super) fn credit(&mut self, key: StreamKey, bytes: u32) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let bytes = stream.unread.min(bytes);
        stream.unread -= bytes;
        self.received.release(bytes);
        if stream.receiving != Receiving::Done
            && let Some(increment) = self.window_after(key, bytes)
        {
            self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment.to_be_bytes());
        }
    }
}
