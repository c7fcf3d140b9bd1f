//! Error codes, and the error that ends a connection. An error that ends a single stream is an
//! event.

use std::fmt;

/// An error code of RST_STREAM and GOAWAY (RFC 9113 §7). Any number may arrive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ErrorCode(pub(crate) u32);

impl ErrorCode {
    pub(crate) const NO_ERROR: Self = Self(0x0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(0x1);
    pub(crate) const INTERNAL_ERROR: Self = Self(0x2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub(crate) const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub(crate) const STREAM_CLOSED: Self = Self(0x5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub(crate) const REFUSED_STREAM: Self = Self(0x7);
    pub(crate) const CANCEL: Self = Self(0x8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(0x9);
    pub(crate) const CONNECT_ERROR: Self = Self(0xa);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub(crate) const INADEQUATE_SECURITY: Self = Self(0xc);

    const NAMES: [&'static str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which end caused the connection's end, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The peer broke a rule of HTTP/2.
    Protocol,
    /// The peer kept the rules but exceeded one of our limits.
    Limit,
    /// The peer was silent or did not read for too long.
    Timeout,
    /// This end was told to close. There was no error.
    Local,
}

/// The error that ended the connection. The GOAWAY that tells the peer is already queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionError {
    pub(crate) code: ErrorCode,
    pub(crate) cause: Cause,
    pub(crate) why: &'static str,
}

impl ConnectionError {
    pub(super) const fn peer(code: ErrorCode, why: &'static str) -> Self {
        Self { code, cause: Cause::Protocol, why }
    }

    pub(super) const fn protocol(why: &'static str) -> Self {
        Self::peer(ErrorCode::PROTOCOL_ERROR, why)
    }

    pub(super) const fn frame_size(why: &'static str) -> Self {
        Self::peer(ErrorCode::FRAME_SIZE_ERROR, why)
    }

    pub(super) const fn closed(why: &'static str) -> Self {
        Self::peer(ErrorCode::STREAM_CLOSED, why)
    }

    pub(super) const fn limit(why: &'static str) -> Self {
        Self { code: ErrorCode::ENHANCE_YOUR_CALM, cause: Cause::Limit, why }
    }

    pub(super) const fn timeout(code: ErrorCode, why: &'static str) -> Self {
        Self { code, cause: Cause::Timeout, why }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.cause {
            Cause::Protocol => "the peer broke HTTP/2",
            Cause::Limit => "the peer met a limit",
            Cause::Timeout => "the peer took too long",
            Cause::Local => "closed by this end",
        };
        write!(f, "{who}: {} ({})", self.why, self.code)
    }
}

impl std::error::Error for ConnectionError {}
