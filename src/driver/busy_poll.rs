//! [`BusyPoll`]: reading repeatedly before sleeping.

use std::time::{Duration, Instant};

use crate::far;
use crate::runtime::has_several_threads;

/// Busy polling: for some time after its last activity, a connection asks its socket repeatedly for
/// something to read. Only then it sleeps until the kernel wakes it.
///
/// It buys latency with CPU time. A message that arrives during that time is noticed within about a
/// microsecond. Waking a sleeping process, and often a sleeping CPU, takes tens of microseconds. A peer
/// that sends to an end that is awake is also spared the system's work of waking it. In return each
/// connection keeps a CPU busy, at 100 %, as long as calls follow each other within the given time, and
/// for that time after the last one. Set it to the pause between two calls of a busy client, which is
/// tens to hundreds of microseconds. Other tasks of the runtime get a turn every few reads.
///
/// Each end chooses busy polling for itself. It gains most if both ends do. A connection without
/// calls sleeps and uses no CPU. Only connections of listeners and of channels with an address can
/// do it. [`Server::serve_connection`](crate::Server::serve_connection) and
/// [`Channel::from_stream`](crate::Channel::from_stream) take streams that need not be sockets, and
/// ignore it.
///
/// If the process may use only one CPU, busy polling would take that CPU from the process that it
/// waits for. In that case it is off, and a warning in the log says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    time: Duration,
}

impl BusyPoll {
    /// Returns busy polling for this long after the last activity. Zero means none. `Duration::MAX`
    /// means that a connection polls as long as it is open.
    pub const fn new(time: Duration) -> Self {
        Self { time }
    }

    /// Returns the busy polling to use here, or `None` if it would gain nothing.
    pub(crate) fn where_it_helps(self) -> Option<Self> {
        if self.time.is_zero() {
            return None;
        }
        // This depends on sched_getaffinity(2) and the control group's quota. An unknown number
        // does not count as one.
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
    /// When busy polling ends.
    until: Instant,
    /// How many bytes had been sent by the last check.
    sent: u64,
    /// The number of reads in one turn.
    reads: u32,
}

/// The number of reads in a turn on a runtime of one thread. There a turn takes about a
/// microsecond, and half of it is reading.
const READS: u32 = 4;

/// On a runtime of several threads each turn costs more, because another thread is told that there
/// is work. There a turn takes about ten microseconds.
const READS_OF_SEVERAL: u32 = 16;

impl Spin {
    pub(super) fn new(busy_poll: BusyPoll, now: Instant) -> Self {
        Self {
            time: busy_poll.time,
            until: now,
            sent: 0,
            reads: if has_several_threads() { READS_OF_SEVERAL } else { READS },
        }
    }

    pub(super) fn is_on(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Extends the time because something was read.
    pub(super) fn extend(&mut self, now: Instant) {
        self.until = far::after(now, self.time);
    }

    /// Notes how many bytes the connection has sent since its beginning. If it is more than before,
    /// that is activity.
    pub(super) fn note(&mut self, sent: u64, now: Instant) {
        if std::mem::replace(&mut self.sent, sent) != sent {
            self.extend(now);
        }
    }

    pub(super) fn reads(&self) -> u32 {
        self.reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_without_end_goes_on() {
        let now = Instant::now();
        let mut spin = Spin::new(BusyPoll::new(Duration::MAX), now);
        spin.extend(now);
        assert!(spin.is_on(now + Duration::from_secs(24 * 3_600)));
    }
}
