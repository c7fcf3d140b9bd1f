//! What a connection tells its driver.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::error::ErrorCode;
use super::head::{RequestHead, ResponseHead};
use super::stream::StreamKey;

/// Something arrived. A stream's events come in the order of its frames; none comes after
/// [`Connection::forget`](super::Connection::forget).
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer's preface and first SETTINGS are here: it speaks HTTP/2.
    Ready,
    /// Server: a request. With `end` it has neither body nor trailers.
    Request { stream: StreamKey, head: Arc<RequestHead>, end: bool },
    /// Server: a request whose header list is larger than
    /// [`max_header_list_size`](super::Config::max_header_list_size). Answer it, 431 or as gRPC
    /// does, and forget it.
    RequestTooLarge { stream: StreamKey, end: bool },
    /// Client: a 1xx response; the real one follows.
    Informational { stream: StreamKey, head: Arc<ResponseHead> },
    /// Client: the response. With `end` it has neither body nor trailers.
    Response { stream: StreamKey, head: Arc<ResponseHead>, end: bool },
    /// Part of a body. Its octets hold window until [`release`](super::Connection::release)d.
    /// Empty only where `end`.
    Data { stream: StreamKey, bytes: Bytes, end: bool },
    /// Trailers, and with them the message's end.
    Trailers { stream: StreamKey, headers: Arc<HeaderMap> },
    /// The stream is over before its time. Nothing more can be sent on it.
    Reset { stream: StreamKey, reset: Reset },
    /// What was queued by [`send_data`](super::Connection::send_data) has left: send more.
    Writable { stream: StreamKey },
    /// Client: a request turned away with [`NotNow::NoSlot`](super::NotNow::NoSlot) may go now.
    SlotsAvailable,
    /// The peer will take no new streams. Those above `last_stream` are reset, each with its own
    /// event after this one, and were never processed.
    GoAway { last_stream: u32, code: ErrorCode, debug: Bytes },
    /// The answer to [`ping`](super::Connection::ping).
    Pong([u8; 8]),
}

impl Event {
    /// The stream that it is about, if it is about one.
    #[inline]
    pub(crate) fn stream(&self) -> Option<StreamKey> {
        match self {
            Self::Request { stream, .. }
            | Self::RequestTooLarge { stream, .. }
            | Self::Informational { stream, .. }
            | Self::Response { stream, .. }
            | Self::Data { stream, .. }
            | Self::Trailers { stream, .. }
            | Self::Reset { stream, .. }
            | Self::Writable { stream } => Some(*stream),
            Self::Ready | Self::SlotsAvailable | Self::GoAway { .. } | Self::Pong(_) => None,
        }
    }
}

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) code: ErrorCode,
    /// The peer did it. Otherwise we did, for a fault of the peer's.
    pub(crate) by_peer: bool,
    /// The server has not touched the request: it may be sent again (RFC 9113 §8.7).
    pub(crate) never_processed: bool,
    pub(crate) why: &'static str,
}
