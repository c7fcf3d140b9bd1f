//! [`Cell`]: what one row of the comparison measures.

use std::fmt;

use clap::ValueEnum;
use samehost::Address;
use serde::{Deserialize, Serialize};

/// One combination of everything that is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) stack: Stack,
    /// `None` for a bare socket.
    pub(super) stubs: Option<Stubs>,
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
        let Self { stack, stubs, wait, transport, .. } = *self;
        Series { stack, stubs, wait, transport }
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
    pub(super) stubs: Option<Stubs>,
    pub(super) wait: Wait,
    pub(super) transport: Transport,
}

impl Series {
    /// The stack and, where they are not its own, the stubs.
    pub(super) fn stack(&self) -> &'static str {
        match (self.stack, self.stubs) {
            (Stack::Samehost, Some(Stubs::Tonic)) => "samehost/tonic",
            (Stack::Samehost, _) => "samehost",
            (Stack::Tonic, _) => "tonic",
            (Stack::Raw, _) => "raw",
        }
    }

    /// As [`Self::stack`], and whether it spins.
    pub(super) fn stack_and_wait(&self) -> String {
        match self.wait {
            Wait::Block => self.stack().to_owned(),
            Wait::Spin => format!("{} spin", self.stack()),
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stack_and_wait(), self.transport)
    }
}

/// Whose generated code a call goes through, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stubs {
    /// `samehost-build`'s.
    Samehost,
    /// `tonic-prost-build`'s.
    Tonic,
}

/// Whose RPC it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stack {
    Samehost,
    /// tonic on its own transport, with the stubs that it generates.
    Tonic,
    /// No RPC: a socket, read and written.
    Raw,
}

impl Stack {
    /// The stubs that it is usually called through.
    pub(super) fn own_stubs(self) -> Option<Stubs> {
        match self {
            Self::Samehost => Some(Stubs::Samehost),
            Self::Tonic => Some(Stubs::Tonic),
            Self::Raw => None,
        }
    }

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
