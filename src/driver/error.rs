//! Why connections and streams end early.

use std::fmt;
use std::sync::Arc;

use crate::http2::{self, ConnectionError, ErrorCode, Failure, Reset};

/// Why a connection has ended.
#[derive(Clone, Debug)]
pub(crate) enum CloseReason {
    /// The peer closed it, or this end did after all calls had ended.
    Closed,
    /// The peer has sent GOAWAY with an error.
    GoneAway { code: ErrorCode, debug: String },
    /// Reading or writing failed.
    Io(Arc<std::io::Error>),
    /// The peer broke a rule of HTTP/2, or exceeded a limit or a time.
    Http2(ConnectionError),
    /// The peer's first bytes are not HTTP/2.
    NotHttp2(ConnectionError),
}

impl CloseReason {
    /// Returns the reason that the peer's GOAWAY names, if there is one with an error. The peer may
    /// still answer what it has taken (RFC 9113 §6.8).
    pub(crate) fn of_go_away(h2: &http2::Connection) -> Option<Self> {
        let go_away = h2.peer_go_away().filter(|it| it.code != ErrorCode::NO_ERROR)?;
        let debug = String::from_utf8_lossy(&go_away.debug).into();
        Some(Self::GoneAway { code: go_away.code, debug })
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was closed"),
            Self::GoneAway { code, debug } if debug.is_empty() => {
                write!(f, "the peer closed the connection ({code})")
            }
            Self::GoneAway { code, debug } => {
                write!(f, "the peer closed the connection ({code}): {debug}")
            }
            Self::Io(error) => write!(f, "the connection failed: {error}"),
            Self::Http2(error) => write!(f, "the connection failed: {error}"),
            Self::NotHttp2(error) => write!(f, "no HTTP/2: {error}"),
        }
    }
}

impl std::error::Error for CloseReason {}

/// Why a stream ended before its message did.
#[derive(Clone, Debug)]
pub(crate) enum StreamError {
    Reset(Reset),
    /// It ended with the connection. `unprocessed` means that the socket had taken nothing of the
    /// request, or that the peer has said so.
    ConnectionEnded {
        close_reason: CloseReason,
        unprocessed: bool,
    },
    /// The body to be sent failed.
    Body(tonic::Status),
}

impl StreamError {
    /// Returns the error for a failure of a stream whose connection has this reason to end.
    pub(crate) fn new(failure: Failure, close_reason: Option<&CloseReason>) -> Self {
        match (failure, close_reason) {
            // The GOAWAY says why, which the reset does not.
            (Failure::Reset(reset), Some(close_reason @ CloseReason::GoneAway { .. }))
                if reset.never_processed =>
            {
                Self::ConnectionEnded { close_reason: close_reason.clone(), unprocessed: true }
            }
            (Failure::Reset(reset), _) => Self::Reset(reset),
            (Failure::ConnectionEnded { unprocessed }, close_reason) => {
                let close_reason = close_reason.cloned().unwrap_or(CloseReason::Closed);
                Self::ConnectionEnded { close_reason, unprocessed }
            }
        }
    }

    /// Returns whether the server has not processed the request, so that it may be sent again (RFC
    /// 9113 §8.7).
    pub(crate) fn may_be_sent_again(&self) -> bool {
        match self {
            Self::Reset(reset) => reset.never_processed,
            Self::ConnectionEnded { unprocessed, .. } => *unprocessed,
            Self::Body(_) => false,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(Reset { why, limit: Some(limit), .. }) => {
                write!(f, "{why}: the limit is {limit} bytes")
            }
            Self::Reset(Reset { code, why, .. }) => write!(f, "{why} ({code})"),
            Self::ConnectionEnded { close_reason, .. } => close_reason.fmt(f),
            Self::Body(status) => status.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {}
