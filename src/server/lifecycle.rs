//! [`Lifecycle`]: tells observers and the log when a connection begins and ends.

use tokio::time::Instant;
use tracing::Span;

use crate::address::Address;
use crate::driver::{CloseReason, Ended};
use crate::http2::Cause;
use crate::observer::{
    CallObserver, ConnectionObservation, GoAwayReason, Observers, Side, connection_span,
};
use crate::socket::Peer;

/// A connection that was admitted. Dropping it tells observers and the log that the connection was
/// closed.
#[derive(Debug)]
pub(super) struct Lifecycle {
    observation: Option<ConnectionObservation>,
    opened: Instant,
    span: Span,
    error: Option<String>,
}

impl Lifecycle {
    /// Tells observers and the log that a connection was opened.
    pub(super) fn begin(
        observers: Option<&Observers>,
        address: Option<&Address>,
        peer: &Peer,
    ) -> Self {
        let observation =
            observers.map(|observers| ConnectionObservation::opened(observers, address, peer));
        let span = connection_span(Side::Server, address, peer);
        span.in_scope(|| tracing::info!("a connection was opened"));
        Self { observation, opened: Instant::now(), span, error: None }
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Returns the observer of the connection's calls.
    pub(super) fn calls(&self) -> Option<CallObserver> {
        self.observation.as_ref().map(ConnectionObservation::calls)
    }

    /// Records the result of the connection, and returns it.
    pub(super) fn end(mut self, served: Result<Ended, CloseReason>) -> Result<(), CloseReason> {
        if let (Some(reason), Some(observation)) = (reason(&served), &self.observation) {
            observation.go_away_sent(reason);
        }
        let served = served.map(drop);
        if let Err(error) = &served {
            self.error = Some(error.to_string());
            if let Some(observation) = &mut self.observation {
                observation.failed(error);
            }
        }
        served
    }
}

impl Drop for Lifecycle {
    fn drop(&mut self) {
        let (duration, error) = (self.opened.elapsed(), self.error.as_deref());
        self.span.in_scope(|| tracing::info!(?duration, error, "a connection was closed"));
    }
}

/// Returns why the connection's own task has told the client to go, if it has.
fn reason(served: &Result<Ended, CloseReason>) -> Option<GoAwayReason> {
    match served {
        Ok(Ended::Idle) => Some(GoAwayReason::Idle),
        Ok(Ended::NoRoom) => Some(GoAwayReason::Limit),
        Err(CloseReason::Http2(error)) => match error.cause {
            Cause::Protocol => Some(GoAwayReason::Violation),
            Cause::Limit => Some(GoAwayReason::Limit),
            Cause::Timeout => Some(GoAwayReason::Timeout),
            Cause::Local => None,
        },
        _ => None,
    }
}
