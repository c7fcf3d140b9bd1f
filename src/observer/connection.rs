//! [`ConnectionInfo`]: a connection as an observer sees it.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::call::{CallInfo, CallObservation, Known, Side};
use super::{Event, GoAwayReason, Observers};
use crate::address::Address;
use crate::socket::Peer;

/// A connection that is observed.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    side: Side,
    number: u64,
    address: Option<Address>,
    peer: Peer,
}

impl ConnectionInfo {
    pub(crate) fn new(
        side: Side,
        observers: &Observers,
        address: Option<&Address>,
        peer: &Peer,
    ) -> Arc<Self> {
        let (number, address) = (observers.number(), address.cloned());
        Arc::new(Self { side, number, address, peer: peer.clone() })
    }

    /// Returns which end is observed.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Returns its number, counted from 1 for each server or channel. A channel's numbers have gaps
    /// where an attempt to connect failed.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the server's address: the one that the listener listens on, or that the channel is
    /// connected to. It is `None` for streams that other code accepted or opened.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Returns the other end: the client of a server, or the server of a channel.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// Tells the observers of one connection: that it was opened when this value is made, and that it
/// was closed when this value is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionObservation {
    observers: Observers,
    connection: Arc<ConnectionInfo>,
    opened: Instant,
    error: Option<String>,
}

/// Tells the observers of a connection's calls.
#[derive(Clone, Debug)]
pub(crate) struct CallObserver {
    pub(super) observers: Observers,
    pub(super) connection: Arc<ConnectionInfo>,
}

impl ConnectionObservation {
    /// Returns the observation of a server's connection.
    pub(crate) fn opened(observers: &Observers, address: Option<&Address>, peer: &Peer) -> Self {
        Self::opened_as(observers, ConnectionInfo::new(Side::Server, observers, address, peer))
    }

    pub(crate) fn opened_as(observers: &Observers, connection: Arc<ConnectionInfo>) -> Self {
        observers.tell(&Event::ConnectionOpened { connection: &connection });
        Self { observers: observers.clone(), connection, opened: Instant::now(), error: None }
    }

    pub(crate) fn calls(&self) -> CallObserver {
        CallObserver { observers: self.observers.clone(), connection: Arc::clone(&self.connection) }
    }

    /// Tells that the client was told to make no further calls.
    pub(crate) fn go_away_sent(&self, reason: GoAwayReason) {
        self.calls().go_away_sent(reason);
    }

    /// Tells that the server takes no further calls.
    pub(crate) fn go_away_received(&self, code: &str) {
        self.observers.tell(&Event::GoAwayReceived { connection: &self.connection, code });
    }

    /// Notes the error that ended the connection.
    pub(crate) fn failed(&mut self, error: &impl ToString) {
        self.error = Some(error.to_string());
    }
}

impl CallObserver {
    /// Tells that a call has begun.
    pub(crate) fn began(&self, path: &PathAndQuery, known: Known) -> CallObservation {
        let connection = Some(Arc::clone(&self.connection));
        let call = CallInfo::new(Side::Server, connection, path.clone(), known);
        CallObservation::began(self.observers.clone(), call)
    }

    pub(crate) fn go_away_sent(&self, reason: GoAwayReason) {
        self.observers.tell(&Event::GoAwaySent { connection: &self.connection, reason });
    }
}

impl Drop for ConnectionObservation {
    fn drop(&mut self) {
        let duration: Duration = self.opened.elapsed();
        let (connection, error) = (&*self.connection, self.error.as_deref());
        self.observers.tell(&Event::ConnectionClosed { connection, duration, error });
    }
}
