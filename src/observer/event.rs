//! [`Event`]: what an observer is told.

use std::time::Duration;

use super::call::{CallEnd, CallInfo};
use super::connection::ConnectionInfo;
use crate::address::Address;
use crate::socket::{ConnectError, Peer};

/// What an [`Observer`](super::Observer) is told.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Channel: an attempt to open a connection begins. It ends with
    /// [`ConnectionOpened`](Self::ConnectionOpened), with [`ConnectFailed`](Self::ConnectFailed),
    /// or, if no call waits for it any more, without an event.
    #[non_exhaustive]
    ConnectBegan {
        /// The server's address, if the channel has one.
        address: Option<&'a Address>,
    },
    /// Channel: an attempt to open a connection has failed.
    #[non_exhaustive]
    ConnectFailed {
        /// The server's address, if the channel has one.
        address: Option<&'a Address>,
        /// Why it failed.
        error: &'a ConnectError,
        /// How long it took.
        duration: Duration,
    },
    /// Channel: calls that wait for a server now wait for the next attempt to connect.
    #[non_exhaustive]
    BackoffBegan {
        /// How long they wait, unless a call that does not wait for a server comes before.
        wait: Duration,
    },
    /// A connection is open. On a server the policy and the limits have admitted it; it is not
    /// known yet whether the client speaks HTTP/2. On a channel the server's SETTINGS have come.
    #[non_exhaustive]
    ConnectionOpened {
        /// The connection.
        connection: &'a ConnectionInfo,
    },
    /// Server: a connection was refused. Its calls get the reason as their status. They are not
    /// events.
    #[non_exhaustive]
    ConnectionRefused {
        /// The listener's address, if a listener accepted it.
        address: Option<&'a Address>,
        /// The other end.
        peer: &'a Peer,
        /// Why it was refused.
        reason: RefusalReason,
    },
    /// Server: the client was told to make no further calls on the connection (GOAWAY, RFC 9113
    /// §6.8). Calls in flight may finish, unless the connection has failed.
    #[non_exhaustive]
    GoAwaySent {
        /// The connection.
        connection: &'a ConnectionInfo,
        /// Why the client was told so.
        reason: GoAwayReason,
    },
    /// Channel: the server takes no further calls on the connection (GOAWAY, RFC 9113 §6.8). Calls in flight
    /// may finish.
    #[non_exhaustive]
    GoAwayReceived {
        /// The connection.
        connection: &'a ConnectionInfo,
        /// The error code's name, such as `NO_ERROR` or `ENHANCE_YOUR_CALM`.
        code: &'a str,
    },
    /// A connection was closed.
    #[non_exhaustive]
    ConnectionClosed {
        /// The connection.
        connection: &'a ConnectionInfo,
        /// How long it was open.
        duration: Duration,
        /// What went wrong. A close by either end is not an error.
        error: Option<&'a str>,
    },
    /// A call has begun. On a server, its request's head has come. On a channel, it was made, and
    /// there may be no connection yet.
    #[non_exhaustive]
    CallBegan {
        /// The call.
        call: &'a CallInfo,
    },
    /// A call has ended.
    #[non_exhaustive]
    CallEnded {
        /// The call.
        call: &'a CallInfo,
        /// How it went.
        end: &'a CallEnd,
    },
    /// Server: a listener accepts no more, and its connections have time to finish.
    #[non_exhaustive]
    DrainBegan {
        /// The listener's address.
        address: Option<&'a Address>,
        /// How many connections there are.
        connections: usize,
    },
    /// Server: the drain of a listener has ended.
    #[non_exhaustive]
    DrainEnded {
        /// The listener's address.
        address: Option<&'a Address>,
        /// How long it took.
        duration: Duration,
        /// How many connections had not finished in time and were closed.
        cut_off: usize,
    },
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// [`Server::peer_policy`](crate::Server::peer_policy) does not accept the peer.
    Policy,
    /// There are [`Server::max_connections`](crate::Server::max_connections).
    MaxConnections,
    /// The user has [`Server::max_connections_per_uid`](crate::Server::max_connections_per_uid).
    MaxConnectionsPerUid,
}

impl RefusalReason {
    /// Returns the text that the client gets.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Policy => "refused by the server's policy",
            Self::MaxConnections => "too many connections",
            Self::MaxConnectionsPerUid => "too many connections of this user",
        }
    }

    /// Returns the function that sets what the client met, for the log.
    pub(crate) fn setter(self) -> &'static str {
        match self {
            Self::Policy => "Server::peer_policy",
            Self::MaxConnections => "Server::max_connections",
            Self::MaxConnectionsPerUid => "Server::max_connections_per_uid",
        }
    }
}

/// Why a server sent GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GoAwayReason {
    /// The server shuts down.
    Shutdown,
    /// The connection is older than
    /// [`Server::max_connection_age`](crate::Server::max_connection_age).
    MaxAge,
    /// The connection had no call for [`Server::idle_timeout`](crate::Server::idle_timeout).
    Idle,
    /// The client broke a rule of HTTP/2.
    Violation,
    /// The client met a limit.
    Limit,
    /// The client was silent or did not read for too long.
    Timeout,
}
