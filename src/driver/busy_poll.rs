//! [`BusyPoll`]: reading again and again before sleeping.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Busy polling: for a while after its last activity, a connection asks its socket again and again
/// for something to read before it sleeps until the kernel says so.
///
/// It buys latency with CPU time. A message that arrives during that while is seen within about a
/// microsecond, where waking a sleeping process, and often a sleeping CPU, takes tens; and whoever
/// sends to an end that is awake is spared the system's work of waking it. In return each
/// connection keeps a CPU busy, at 100 %, as long as calls follow each other within the time given,
/// and for that time after the last one. Give it the pause between two calls of a busy client, tens
/// to hundreds of microseconds. Other tasks of the runtime have their turn every few reads.
///
/// The two ends choose each for itself; most is gained where both do. A connection without calls
/// sleeps and uses no CPU. Only connections of listeners and of channels with an address can do it:
/// [`Server::serve_connection`](crate::Server::serve_connection) and
/// [`Channel::from_stream`](crate::Channel::from_stream) take streams that need not be sockets, and
/// ignore it.
///
/// Where the process may use only one CPU, busy polling would keep that from the very process that
/// it waits for: there it is off, and a warning in the log says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    time: Duration,
}

impl BusyPoll {
    /// For so long after the last activity. Zero: not at all.
    pub const fn new(time: Duration) -> Self {
        Self { time }
    }

    /// What it comes to here: nothing, where there is nothing to gain.
    pub(crate) fn where_it_helps(self) -> Option<Self> {
        if self.time.is_zero() {
            return None;
        }
        // By sched_getaffinity(2) and the control group's quota. Unknown is not one.
        if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
            tracing::warn!("busy polling is off: the process may use only one CPU");
            return None;
        }
        Some(self)
    }
}

/// One connection's busy polling.
#[derive(Debug)]
pub(super) struct Spin {
    time: Duration,
    /// When to sleep at last.
    until: Instant,
    /// How many bytes had been sent by the last look.
    sent: u64,
    /// Reads of one turn.
    reads: u32,
}

/// Reads of a turn, on a runtime of one thread: a turn is about a microsecond then, and half of it is
/// reading.
const READS: u32 = 4;

/// On a runtime of several threads each turn of a task costs more, as another thread is told that
/// there is something to do: there a turn is about ten microseconds.
const READS_OF_SEVERAL: u32 = 16;

impl Spin {
    pub(super) fn new(busy_poll: BusyPoll, now: Instant) -> Self {
        let single = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        Self {
            time: busy_poll.time,
            until: now,
            sent: 0,
            reads: if single { READS } else { READS_OF_SEVERAL },
        }
    }

    pub(super) fn is_on(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Something was read.
    pub(super) fn extend(&mut self, now: Instant) {
        self.until = now + self.time;
    }

    /// Notes how many bytes the connection has sent since it began. More than before is activity.
    pub(super) fn note(&mut self, sent: u64, now: Instant) {
        if std::mem::replace(&mut self.sent, sent) != sent {
            self.extend(now);
        }
    }

    pub(super) fn reads(&self) -> u32 {
        self.reads
    }
}
