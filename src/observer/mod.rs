//! [`Observer`]: is told what happens on connections. `server`, `client` and `grpc` make the
//! events. The observer decides what to do with them.

mod call;
mod connection;
mod connection_span;
mod connection_watch;
mod event;
mod names;
mod peer_name;
mod slow_events;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};

pub use call::{CallEnd, CallInfo, Side};
pub(crate) use call::{CallObservation, Known, code_name};
pub use connection::ConnectionInfo;
pub(crate) use connection::{CallObserver, ConnectionObservation};
pub(crate) use connection_span::connection_span;
pub(crate) use connection_watch::ConnectionWatch;
pub use event::{Event, GoAwayReason, RefusalReason};
#[cfg(feature = "metrics")]
pub(crate) use names::server_address;
pub(crate) use peer_name::PeerName;
use slow_events::SlowEvents;

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
/// A connection's first event is [`Event::ConnectionOpened`], and its last, once, is
/// [`Event::ConnectionClosed`]. A GOAWAY comes in between. [`Event::CallBegan`] and
/// [`Event::CallEnded`] come once for each call, in that order. There is no order between
/// connections, or between calls.
///
/// On a server, a call begins after its connection was opened, and before its layers and its
/// handler run. It ends when the last part of its response was given to the connection, or when it
/// was given up. If a call ends together with its connection, its event may come after the
/// connection's, since handlers are dropped by their own tasks. [`Event::DrainBegan`] comes before
/// the GOAWAYs of its connections, [`Event::DrainEnded`] after they were closed.
///
/// On a channel, [`Event::ConnectBegan`] comes before the [`Event::ConnectionOpened`] or
/// [`Event::ConnectFailed`] of that attempt. [`Event::BackoffBegan`] comes after an attempt that
/// failed, if calls wait for a server. A call begins when it is made, which may be before there is
/// a connection. It ends when the end of its response was read, or when it was given up. All
/// attempts of a call are one call.
///
/// # Threads, panics and time
///
/// The task of the connection or of the call calls it where the event happens. No lock is held, so
/// it may use the channel or the server's handles. If it panics, that is caught and logged, and
/// nothing else happens. While it runs, that connection or call waits, so it must not block. Work
/// that takes long belongs in a queue that another task empties. On a multi-thread runtime, after
/// an observer has twice taken long (over 1 ms), it holds up only the call that it is told of, until eight
/// events in a row took no longer. That is not so where panics abort the process, nor any more once a
/// `LocalSet` has run such an observer.
pub trait Observer: Send + Sync + 'static {
    /// Is told one event.
    fn observe(&self, event: &Event<'_>);
}

/// The options of a server or a channel that concern observers.
#[derive(Clone, Default)]
pub(crate) struct ObserverOptions {
    observers: Vec<Arc<dyn Observer>>,
    traces_calls: bool,
}

impl ObserverOptions {
    pub(crate) fn add(&mut self, observer: impl Observer) {
        self.observers.push(Arc::new(observer));
    }

    /// Sets whether calls have spans.
    pub(crate) fn trace_calls(&mut self, traces: bool) {
        self.traces_calls = traces;
    }

    /// Returns `None` if there are no observers, and calls have no spans.
    pub(crate) fn observers(&self) -> Option<Observers> {
        let Self { observers, traces_calls } = self.clone();
        let some = traces_calls || !observers.is_empty();
        let (next, slow) = (AtomicU64::new(1), SlowEvents::default());
        let refused = AtomicBool::new(false);
        some.then(|| Observers(Arc::new(All { observers, traces_calls, next, slow, refused })))
    }
}

/// The observers of a server or a channel.
#[derive(Clone)]
pub(crate) struct Observers(Arc<All>);

struct All {
    observers: Vec<Arc<dyn Observer>>,
    traces_calls: bool,
    /// The number of the next connection.
    next: AtomicU64,
    slow: SlowEvents,
    /// Whether the runtime has refused that an event is told beside it.
    refused: AtomicBool,
}

impl Observers {
    pub(crate) fn tell(&self, event: &Event<'_>) {
        match self.0.slow.are_likely() {
            true => self.tell_beside_the_runtime(event),
            false => self.tell_here(event),
        }
    }

    /// Tells an event that takes long. Meanwhile another thread of a multi-thread runtime takes over
    /// this thread's other tasks. This thread may be the only one that waits for the runtime's sockets.
    fn tell_beside_the_runtime(&self, event: &Event<'_>) {
        let is_multi_thread = Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        let refused = &self.0.refused;
        // A refusal is a panic, which the panic hook prints, and which may abort the process.
        if !is_multi_thread || cfg!(panic = "abort") || refused.load(Ordering::Relaxed) {
            return self.tell_here(event);
        }
        let mut told = false;
        let tell = || {
            told = true;
            self.tell_here(event);
        };
        // Within a `LocalSet` this panics before it runs anything.
        let _ = catch_unwind(AssertUnwindSafe(|| tokio::task::block_in_place(tell)));
        if !told {
            refused.store(true, Ordering::Relaxed);
            self.tell_here(event);
        }
    }

    fn tell_here(&self, event: &Event<'_>) {
        let began = Instant::now();
        for observer in &self.0.observers {
            if catch_unwind(AssertUnwindSafe(|| observer.observe(event))).is_err() {
                tracing::error!("an observer panicked");
            }
        }
        self.0.slow.note(began.elapsed());
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

#[cfg(test)]
mod tests {
    use std::panic;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::slow_events::SLOW;
    use super::*;

    struct Slow(Arc<AtomicU32>);

    impl Observer for Slow {
        fn observe(&self, _: &Event<'_>) {
            thread::sleep(SLOW * 2);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_slow_observer_within_a_local_set_panics_once_at_most() {
        let told = Arc::new(AtomicU32::new(0));
        let mut options = ObserverOptions::default();
        options.add(Slow(Arc::clone(&told)));
        let observers = options.observers().unwrap();
        // Other tests may panic at the same time.
        let (panics, here) = (Arc::new(AtomicU32::new(0)), thread::current().id());
        let (counted, others) = (Arc::clone(&panics), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == here {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            others(info);
        }));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            for _ in 0..6 {
                observers.tell(&Event::DrainBegan { address: None, connections: 0 });
            }
        });
        let (panics, told) = (panics.load(Ordering::Relaxed), told.load(Ordering::Relaxed));
        assert_eq!((panics, told), (1, 6));
    }
}
