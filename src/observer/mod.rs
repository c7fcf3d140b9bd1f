//! [`Observer`]: is told what happens on connections. What it is told is made by `server`,
//! `client` and `grpc`; what is done with it is somebody else's.

mod call;
mod connection;
mod event;
mod names;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

pub(crate) use call::CallObservation;
#[cfg(feature = "metrics")]
pub(crate) use call::code_name;
pub use call::{CallEnd, CallInfo, Side};
pub use connection::ConnectionInfo;
pub(crate) use connection::{CallObserver, ConnectionObservation};
pub use event::{Event, GoAwayReason, RefusalReason};
pub(crate) use names::{peer_address, server_address};

/// Is told what happens on the connections of a server ([`Server::observer`](crate::Server::observer)) or
/// of a channel ([`ChannelBuilder::observer`](crate::ChannelBuilder::observer)).
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
/// [`Event::ConnectionOpened`] is a connection's first event; a GOAWAY comes after it, and
/// [`Event::ConnectionClosed`], once, is the last. [`Event::CallBegan`] and [`Event::CallEnded`] come once for
/// each call, in that order. Between connections, and between calls, there is no order.
///
/// On a server a call begins after its connection was opened and before its layers and its handler run. It
/// ends when the last of its response was given to the connection, or when it was given up. A call that ends
/// with its connection may be told after it, since handlers are dropped by tasks of their own.
/// [`Event::DrainBegan`] comes before the GOAWAYs of its connections, [`Event::DrainEnded`] after they were
/// closed.
///
/// On a channel [`Event::ConnectBegan`] comes before the [`Event::ConnectionOpened`] or
/// [`Event::ConnectFailed`] of that attempt, and [`Event::BackoffBegan`] after an attempt that failed, where
/// calls wait for a server. A call begins when it is made, before there is a connection perhaps, and ends
/// when the end of its response was read, or when it was given up. All its attempts are one call.
///
/// # Threads, panics and time
///
/// It is called where the event happens: by the task of the connection, or of the call. No lock is held,
/// and so it may use the channel or the server's handles. Its panic is caught, logged and harms nothing.
/// While it runs, that connection or that call waits, and it must not block: what takes long belongs into a
/// queue that another task empties. On a multi-thread runtime one that does take long (over 1 ms) holds up
/// no call but the one that it is told of, once it has done so twice.
pub trait Observer: Send + Sync + 'static {
    /// Is told one event.
    fn observe(&self, event: &Event<'_>);
}

/// The observers of a server or a channel.
#[derive(Clone)]
pub(crate) struct Observers(Arc<All>);

struct All {
    observers: Vec<Arc<dyn Observer>>,
    traces_calls: bool,
    /// Of the next connection.
    next: AtomicU64,
    /// How often telling an event took longer than [`SLOW`].
    slow: AtomicU32,
}

/// An observer that takes longer has its events told where it holds up nobody else.
const SLOW: Duration = Duration::from_millis(1);

/// Once may be chance.
const SLOW_TIMES: u32 = 2;

impl Observers {
    /// `None` where nobody observes, and calls have no spans.
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>, traces_calls: bool) -> Option<Self> {
        let some = traces_calls || !observers.is_empty();
        let (next, slow) = (AtomicU64::new(1), AtomicU32::new(0));
        some.then(|| Self(Arc::new(All { observers, traces_calls, next, slow })))
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        let slow = &self.0.slow;
        if slow.load(Ordering::Relaxed) >= SLOW_TIMES {
            return beside_the_runtime(|| self.tell_here(event));
        }
        let began = Instant::now();
        self.tell_here(event);
        if began.elapsed() > SLOW {
            slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell_here(&self, event: &Event<'_>) {
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

/// Runs what takes long, and gives the other tasks of a multi-thread runtime's thread to another one
/// meanwhile. That thread may be the only one that waits for the runtime's sockets.
fn beside_the_runtime(run: impl FnOnce()) {
    let is_multi_thread = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !is_multi_thread {
        return run();
    }
    let mut run = Some(run);
    let mut take = || run.take().map(|run| run());
    // Within a `LocalSet` it panics before it runs anything.
    if catch_unwind(AssertUnwindSafe(|| tokio::task::block_in_place(&mut take))).is_err() {
        take();
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.observers.len())
    }
}
