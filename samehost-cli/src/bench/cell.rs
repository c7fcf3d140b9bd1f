//! [`Cell`]: what one row of the comparison measures.

use std::fmt;

use clap::ValueEnum;
use samehost::Address;
use serde::{Deserialize, Serialize};

/// One combination of everything that the benchmark varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) stack: Stack,
    /// `None` for a bare socket.
    pub(super) stubs: Option<Stubs>,
    pub(super) transport: Transport,
    pub(super) wait: Wait,
    pub(super) kind: Kind,
    /// For [`Kind::Bulk`] with `--memory`: how a payload gets to the server.
    pub(super) delivery: Option<Delivery>,
    /// The payload in bytes, in each direction. For [`Kind::Bulk`] it goes in one direction.
    pub(super) payload: usize,
    /// The number of calls in flight. For [`Kind::Stream`] and [`Kind::Bulk`] it is the number of
    /// streams.
    pub(super) concurrency: usize,
    /// The number of connections that they are spread over.
    pub(super) connections: usize,
}

impl Cell {
    /// Returns whether the two differ only in their transport.
    pub(super) fn is_counterpart(&self, other: &Self) -> bool {
        Self { transport: other.transport, ..*self } == *other && self.transport != other.transport
    }

    pub(super) fn series(&self) -> Series {
        let Self { stack, stubs, wait, transport, delivery, .. } = *self;
        Series { stack, stubs, carrier: delivery.map(|delivery| delivery.by), wait, transport }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, payload, concurrency, .. } = self;
        write!(f, "{} {kind}, {payload} B × {concurrency}", self.series())?;
        match self.delivery {
            Some(Delivery { read: true, .. }) => f.write_str(", read"),
            _ => Ok(()),
        }
    }
}

/// The way that a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) stack: Stack,
    pub(super) stubs: Option<Stubs>,
    pub(super) carrier: Option<Carrier>,
    pub(super) wait: Wait,
    pub(super) transport: Transport,
}

impl Series {
    /// Returns the stack, the stubs if they are not its own, how the payload travels if that is
    /// varied, and whether it spins.
    pub(super) fn stack_and_wait(&self) -> String {
        let stack = match (self.stack, self.stubs) {
            (Stack::Samehost, Some(Stubs::Tonic)) => "samehost/tonic",
            (Stack::Samehost, _) => "samehost",
            (Stack::Blocking, _) => "samehost/blocking",
            (Stack::Tonic, _) => "tonic",
            (Stack::Raw, _) => "raw",
        };
        let mut text = stack.to_owned();
        if let Some(carrier @ (Carrier::SealedOnce | Carrier::SealedAnew)) = self.carrier {
            text += &format!(" {carrier}");
        }
        if self.wait == Wait::Spin {
            text += " spin";
        }
        text
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stack_and_wait(), self.transport)
    }
}

/// The generated code that a call goes through, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stubs {
    /// `samehost-build`'s.
    Samehost,
    /// `tonic-prost-build`'s.
    Tonic,
}

/// How a payload gets to its receiver, and what the receiver does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) by: Carrier,
    /// Whether the receiver reads every byte, instead of only having them.
    pub(super) read: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Carrier {
    /// It is in the message of a call.
    Message,
    /// It is in memory that was sealed before the first call, and is mapped in each call.
    SealedOnce,
    /// It is in memory that is made and sealed for each call.
    SealedAnew,
    /// It is copied through a bare socket.
    Socket,
}

impl Carrier {
    /// Returns the ways that a stack has.
    pub(super) fn of(stack: Stack) -> &'static [Self] {
        match stack {
            Stack::Samehost => &[Self::SealedOnce, Self::SealedAnew, Self::Message],
            Stack::Blocking => &[],
            Stack::Tonic => &[Self::Message],
            Stack::Raw => &[Self::Socket],
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "message",
            Self::SealedOnce => "sealed once",
            Self::SealedAnew => "sealed anew",
            Self::Socket => "socket",
        })
    }
}

/// The RPC implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stack {
    Samehost,
    /// samehost's client without a runtime, on a thread of its own, with a usual server of samehost.
    Blocking,
    /// tonic on its own transport, with the stubs that it generates.
    Tonic,
    /// No RPC: a socket that is read and written.
    Raw,
}

impl Stack {
    /// Returns the stubs that it is usually called through.
    pub(super) fn own_stubs(self) -> Option<Stubs> {
        match self {
            Self::Samehost | Self::Blocking => Some(Stubs::Samehost),
            Self::Tonic => Some(Stubs::Tonic),
            Self::Raw => None,
        }
    }

    /// Returns whether it can measure a cell. A bare socket has no concurrent calls, no streams on
    /// one connection and no empty messages. A client that blocks makes one call at a
    /// time.
    pub(super) fn measures(self, cell: &Cell) -> bool {
        let one = cell.concurrency == 1;
        match self {
            Self::Samehost | Self::Tonic => true,
            Self::Blocking => one && cell.kind == Kind::Unary,
            Self::Raw => one && matches!(cell.kind, Kind::Unary | Kind::Bulk) && cell.payload > 0,
        }
    }

    /// Whose server it calls.
    pub(super) fn server(self) -> Self {
        match self {
            Self::Blocking => Self::Samehost,
            other => other,
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Samehost => "samehost",
            Self::Blocking => "blocking",
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

/// What each end does while there is nothing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wait {
    /// It sleeps until the kernel wakes it.
    Block,
    /// It asks again and again, for some time.
    Spin,
}

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// One `Ping` and its response.
    Unary,
    /// One message on a `Converse` stream and its echo.
    Stream,
    /// One message of `Watch`, which sends one message after the other.
    Bulk,
    /// A new connection, one `Ping` on it and its response.
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
