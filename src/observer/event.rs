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
    /// [`ConnectionOpened`](Self::ConnectionOpened), with [`ConnectFailed`](Self::ConnectFailed), or without
    /// an event where no call waits for it any more.
    #[non_exhaustive]
    ConnectBegan {
        /// The server's address, where the channel has one.
        address: Option<&'a Address>,
    },
    /// Channel: an attempt to open a connection has failed.
    #[non_exhaustive]
    ConnectFailed {
        /// The server's address, where the channel has one.
        address: Option<&'a Address>,
        /// Why.
        error: &'a ConnectError,
        /// How long it took.
        duration: Duration,
    },
    /// Channel: the calls that wait for a server wait for the next attempt to connect.
    #[non_exhaustive]
    BackoffBegan {
        /// How long, unless a call that does not wait for a server comes before.
        wait: Duration,
    },
    /// A connection is there. On a server it was admitted by the policy and the limits; that the client
    /// speaks HTTP/2 is not known yet. On a channel the server's SETTINGS have come.
    #[non_exhaustive]
    ConnectionOpened {
        /// Which.
        connection: &'a ConnectionInfo,
    },
    /// Server: a connection may not come in. Its calls, which are told so, are no events.
    #[non_exhaustive]
    ConnectionRefused {
        /// The listener's address, where a listener accepted it.
        address: Option<&'a Address>,
        /// The other end.
        peer: &'a Peer,
        /// Why not.
        reason: RefusalReason,
    },
    /// Server: the client was told to make no further calls on the connection (GOAWAY, RFC 9113 §6.8).
    /// Calls in flight may finish, but for a connection that has failed.
    #[non_exhaustive]
    GoAwaySent {
        /// Which.
        connection: &'a ConnectionInfo,
        /// Why.
        reason: GoAwayReason,
    },
    /// Channel: the server takes no further calls on the connection (GOAWAY, RFC 9113 §6.8). Calls in flight
    /// may finish.
    #[non_exhaustive]
    GoAwayReceived {
        /// Which.
        connection: &'a ConnectionInfo,
        /// The error code's name, such as `NO_ERROR` or `ENHANCE_YOUR_CALM`.
        code: &'a str,
    },
    /// A connection is over.
    #[non_exhaustive]
    ConnectionClosed {
        /// Which.
        connection: &'a ConnectionInfo,
        /// How long it was open.
        duration: Duration,
        /// What went wrong: that the other end closed it, or this one did, is no error.
        error: Option<&'a str>,
    },
    /// A call has begun: on a server, its request's head has come; on a channel, it was made, and there may
    /// be no connection yet.
    #[non_exhaustive]
    CallBegan {
        /// Which.
        call: &'a CallInfo,
    },
    /// A call is over.
    #[non_exhaustive]
    CallEnded {
        /// Which.
        call: &'a CallInfo,
        /// How it went.
        end: &'a CallEnd,
    },
    /// Server: a listener accepts no more and its connections are given time to finish.
    #[non_exhaustive]
    DrainBegan {
        /// The listener's address.
        address: Option<&'a Address>,
        /// How many connections there are.
        connections: usize,
    },
    /// Server: the drain of a listener is over.
    #[non_exhaustive]
    DrainEnded {
        /// The listener's address.
        address: Option<&'a Address>,
        /// How long it took.
        duration: Duration,
        /// How many connections had not finished in time and were cut off.
        cut_off: usize,
    },
}

/// Why a connection may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// [`Server::peer_policy`](crate::Server::peer_policy).
    Policy,
    /// [`Server::max_connections`](crate::Server::max_connections).
    MaxConnections,
    /// [`Server::max_connections_per_uid`](crate::Server::max_connections_per_uid).
    MaxConnectionsPerUid,
}

impl RefusalReason {
    /// What the client is told.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Policy => "refused by the server's policy",
            Self::MaxConnections => "too many connections",
            Self::MaxConnectionsPerUid => "too many connections of this user",
        }
    }
}

/// Why a server sent GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GoAwayReason {
    /// The server shuts down.
    Shutdown,
    /// The connection is older than [`Server::max_connection_age`](crate::Server::max_connection_age).
    MaxAge,
    /// The connection had no call for [`Server::idle_timeout`](crate::Server::idle_timeout).
    Idle,
    /// The client broke a rule of HTTP/2.
    Violation,
    /// The client met a limit.
    Limit,
    /// The client was silent, or did not read, for too long.
    Timeout,
}
