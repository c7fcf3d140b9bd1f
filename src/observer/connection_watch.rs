//! [`ConnectionWatch`]: tells what happens on one connection of a channel.

use std::sync::Arc;

use tracing::{Level, Span};

use super::connection::{ConnectionInfo, ConnectionObservation};
use super::connection_span::connection_span;
use super::{Observers, Side};
use crate::address::Address;
use crate::driver::CloseReason;
use crate::http2::ErrorCode;
use crate::socket::Peer;

/// Tells observers about one connection of a channel, and has its span. If it is dropped while the
/// connection is open, it tells observers that the connection was closed.
pub(crate) struct ConnectionWatch {
    observers: Option<Observers>,
    /// The connection as observers see it.
    connection: Option<Arc<ConnectionInfo>>,
    address: Option<Arc<Address>>,
    peer: Peer,
    open: Option<ConnectionObservation>,
    span: Span,
}

impl ConnectionWatch {
    /// Returns the watch over a connection that is being opened. Returns `None` if there are no
    /// observers, and nothing reads spans.
    pub(crate) fn opening(
        observers: Option<&Observers>,
        address: Option<&Arc<Address>>,
        peer: &Peer,
    ) -> Option<Self> {
        if observers.is_none() && !tracing::enabled!(Level::INFO) {
            return None;
        }
        let at = address.map(AsRef::as_ref);
        let info = |observers| ConnectionInfo::new(Side::Client, observers, at, peer);
        Some(Self {
            observers: observers.cloned(),
            connection: observers.map(info),
            address: address.cloned(),
            peer: peer.clone(),
            open: None,
            span: Span::none(),
        })
    }

    /// Returns the connection as observers see it.
    pub(crate) fn connection(&self) -> Option<Arc<ConnectionInfo>> {
        self.connection.clone()
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Tells that the server has begun to speak. The span begins then.
    pub(crate) fn opened(&mut self) {
        self.span = connection_span(Side::Client, self.address.as_deref(), &self.peer);
        if let (Some(observers), Some(connection)) = (&self.observers, &self.connection) {
            let connection = Arc::clone(connection);
            self.open = Some(ConnectionObservation::opened_as(observers, connection));
        }
    }

    /// Tells that the server has sent GOAWAY.
    pub(crate) fn going_away(&self, code: ErrorCode) {
        if let Some(open) = &self.open {
            open.go_away_received(&code.to_string());
        }
    }

    /// Tells that the connection has ended. The span ends with it.
    pub(crate) fn ended(&mut self, why: &CloseReason) {
        self.span = Span::none();
        if let Some(mut open) = self.open.take()
            && !matches!(why, CloseReason::Closed)
        {
            open.failed(why);
        }
    }
}
