//! [`Cell`]: what one row of the comparison measures.

use std::fmt;

use clap::ValueEnum;
use samehost::Address;
use serde::Serialize;

/// One combination of everything that is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) stack: Stack,
    pub(super) transport: Transport,
    pub(super) kind: Kind,
    /// In bytes, in each direction.
    pub(super) payload: usize,
    /// Calls in flight for [`Kind::Unary`], streams for [`Kind::Stream`].
    pub(super) concurrency: usize,
}

impl Cell {
    /// Whether the two differ in nothing but the transport.
    pub(super) fn is_counterpart(&self, other: &Self) -> bool {
        Self { transport: other.transport, ..*self } == *other && self.transport != other.transport
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stack: _, transport, kind, payload, concurrency } = self;
        write!(f, "{transport} {kind}, {payload} B × {concurrency}")
    }
}

/// Whose RPC it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stack {
    Samehost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    Uds,
    Tcp,
}

impl Transport {
    pub(super) const ALL: [Self; 2] = [Self::Uds, Self::Tcp];

    pub(super) fn of(address: &Address) -> Self {
        if address.is_unix() { Self::Uds } else { Self::Tcp }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uds => "UDS",
            Self::Tcp => "TCP",
        })
    }
}

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// One `Ping` and its reply.
    Unary,
    /// One message on a `Converse` stream and its echo.
    Stream,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unary => "unary",
            Self::Stream => "stream",
        })
    }
}
