//! [`Observer`]: is told what happens on connections. What it is told is made by `server` and
//! `grpc`; what is done with it is somebody else's.

mod call;
mod connection;
mod names;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use call::CallObservation;
#[cfg(feature = "metrics")]
pub(crate) use call::code_name;
pub use call::{CallEnd, CallInfo};
pub use connection::ConnectionInfo;
pub(crate) use connection::{CallObserver, ConnectionObservation};
pub(crate) use names::{peer_address, server_address};

use crate::address::Address;
use crate::socket::Peer;

/// Is told what happens on the connections of a [`Server`](crate::Server):
/// [`Server::observer`](crate::Server::observer).
///
/// ```
/// use samehost::{Event, Observer, Server};
///
/// struct Failures;
///
/// impl Observer for Failures {
///     fn observe(&self, event: &Event<'_>) {
///         if let Event::CallEnded { call, end, .. } = event
///             && end.code() != tonic::Code::Ok
///         {
///             eprintln!("{}: {:?} after {:?}", call.method(), end.code(), end.duration());
///         }
///     }
/// }
///
/// let server = Server::new().observer(Failures);
/// ```
///
/// # Order
///
/// [`Event::ConnectionOpened`] is a connection's first event and comes before the events of its calls;
/// [`Event::ConnectionClosed`] is told once. [`Event::CallBegan`] comes before the call's layers and
/// handler run, [`Event::CallEnded`] once for each, when the last of its response was given to the
/// connection or the call was given up. A call that ends with its connection may be told after it, since
/// handlers are dropped by tasks of their own. Between connections there is no order.
///
/// # Threads and panics
///
/// It is called where the event happens: by the task of the connection, or of the call. No lock is held,
/// and so it may use the channel or the server's handles. While it runs, that connection, or that call,
/// waits: it must not block. Its panic is caught, logged and harms nothing.
pub trait Observer: Send + Sync + 'static {
    /// Is told one event.
    fn observe(&self, event: &Event<'_>);
}

/// What an [`Observer`] is told.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection is there. On a server it was admitted by the policy and the limits; that the client
    /// speaks HTTP/2 is not known yet.
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
    /// This end has told the other one to make no further calls on the connection (GOAWAY, RFC 9113
    /// §6.8). Calls in flight may finish.
    #[non_exhaustive]
    GoAwaySent {
        /// Which.
        connection: &'a ConnectionInfo,
        /// Why.
        reason: GoAwayReason,
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
    /// A call has begun: on a server, its request's head has come.
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

/// Why this end sent GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GoAwayReason {
    /// The server shuts down.
    Shutdown,
    /// The connection is older than [`Server::max_connection_age`](crate::Server::max_connection_age).
    MaxAge,
}

/// The observers of a server or a channel.
#[derive(Clone)]
pub(crate) struct Observers(Arc<All>);

struct All {
    observers: Vec<Arc<dyn Observer>>,
    traces_calls: bool,
    /// Of the next connection.
    next: AtomicU64,
}

impl Observers {
    /// `None` where nobody observes, and calls have no spans.
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>, traces_calls: bool) -> Option<Self> {
        let some = traces_calls || !observers.is_empty();
        some.then(|| Self(Arc::new(All { observers, traces_calls, next: AtomicU64::new(1) })))
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        for observer in &self.0.observers {
            if catch_unwind(AssertUnwindSafe(|| observer.observe(event))).is_err() {
                tracing::error!("an observer panicked");
            }
        }
    }

    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.observers.len())
    }
}
