//! [`Cell`]: what one row of the comparison measures.

use std::fmt;

use clap::ValueEnum;
use samehost::Address;
use serde::{Deserialize, Serialize};

/// One combination of everything that is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) stack: Stack,
    pub(super) transport: Transport,
    pub(super) wait: Wait,
    pub(super) kind: Kind,
    /// In bytes: in each direction, for [`Kind::Bulk`] in one.
    pub(super) payload: usize,
    /// Calls in flight; for [`Kind::Stream`] and [`Kind::Bulk`] streams.
    pub(super) concurrency: usize,
    /// How many connections these are spread over.
    pub(super) connections: usize,
}

impl Cell {
    /// Whether the two differ in nothing but the transport.
    pub(super) fn is_counterpart(&self, other: &Self) -> bool {
        Self { transport: other.transport, ..*self } == *other && self.transport != other.transport
    }

    pub(super) fn series(&self) -> Series {
        Series { stack: self.stack, wait: self.wait, transport: self.transport }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, payload, concurrency, .. } = self;
        write!(f, "{} {kind}, {payload} B × {concurrency}", self.series())
    }
}

/// By which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) stack: Stack,
    pub(super) wait: Wait,
    pub(super) transport: Transport,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stack, wait, transport } = self;
        match wait {
            Wait::Block => write!(f, "{stack} {transport}"),
            Wait::Spin => write!(f, "{stack} spin {transport}"),
        }
    }
}

/// Whose RPC it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stack {
    Samehost,
    /// tonic on its own transport.
    Tonic,
    /// No RPC: a socket, read and written.
    Raw,
}

impl Stack {
    /// A bare socket has no calls at once, no streams on one connection and no empty messages.
    pub(super) fn measures(self, cell: &Cell) -> bool {
        self != Self::Raw
            || matches!(cell.kind, Kind::Unary | Kind::Bulk)
                && cell.concurrency == 1
                && cell.payload > 0
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Samehost => "samehost",
            Self::Tonic => "tonic",
            Self::Raw => "raw",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
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

/// What either end does while there is nothing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wait {
    /// It sleeps until the kernel wakes it.
    Block,
    /// It looks again and again, for a time.
    Spin,
}

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// One `Ping` and its reply.
    Unary,
    /// One message on a `Converse` stream and its echo.
    Stream,
    /// One message that `Watch` sends, which sends one after the other.
    Bulk,
    /// A new connection, one `Ping` on it and its reply.
    Connect,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unary => "unary",
            Self::Stream => "stream",
            Self::Bulk => "bulk",
            Self::Connect => "connect",
        })
    }
}
