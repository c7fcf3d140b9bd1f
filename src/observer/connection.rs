//! [`ConnectionInfo`]: a connection as an observer sees it.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::call::{CallInfo, CallObservation};
use super::{Event, GoAwayReason, Observers};
use crate::address::Address;
use crate::socket::Peer;

/// A connection that is observed.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    number: u64,
    address: Option<Address>,
    peer: Peer,
}

impl ConnectionInfo {
    /// Its number, counted from 1 for each server.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The server's address: what the listener listens on. `None` for streams that somebody else
    /// accepted.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// Tells of one connection: that it was opened when this is made, and that it was closed when it is
/// dropped.
#[derive(Debug)]
pub(crate) struct ConnectionObservation {
    observers: Observers,
    connection: Arc<ConnectionInfo>,
    opened: Instant,
    error: Option<String>,
}

/// What tells of a connection's calls.
#[derive(Clone, Debug)]
pub(crate) struct CallObserver {
    pub(super) observers: Observers,
    pub(super) connection: Arc<ConnectionInfo>,
}

impl ConnectionObservation {
    pub(crate) fn opened(observers: &Observers, address: Option<&Address>, peer: &Peer) -> Self {
        let connection = Arc::new(ConnectionInfo {
            number: observers.number(),
            address: address.cloned(),
            peer: peer.clone(),
        });
        observers.tell(&Event::ConnectionOpened { connection: &connection });
        Self { observers: observers.clone(), connection, opened: Instant::now(), error: None }
    }

    pub(crate) fn calls(&self) -> CallObserver {
        CallObserver { observers: self.observers.clone(), connection: Arc::clone(&self.connection) }
    }

    /// It ended by this.
    pub(crate) fn failed(&mut self, error: &impl ToString) {
        self.error = Some(error.to_string());
    }
}

impl CallObserver {
    /// A call has begun.
    pub(crate) fn began(&self, path: &PathAndQuery, known: bool) -> CallObservation {
        let call = CallInfo::new(Some(Arc::clone(&self.connection)), path.clone(), known);
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
