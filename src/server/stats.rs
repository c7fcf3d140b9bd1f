//! [`ServerStats`]: shows what a server is doing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::driver::Memory;
use crate::observer::{ConnectionInfo, Event, Observer, RefusalReason};
use crate::socket::PeerIdentity;

/// Shows what a server is doing: see [`Server::stats`](crate::Server::stats). A clone shows the
/// same server.
#[derive(Clone, Debug, Default)]
pub struct ServerStats(Arc<ServerCounters>);

#[derive(Debug, Default)]
struct ServerCounters {
    /// The number of connections of each user. The key is `None` if the user is unknown.
    connections: Mutex<BTreeMap<Option<u32>, usize>>,
    calls: AtomicUsize,
    calls_ended: AtomicU64,
    refused_by_policy: AtomicU64,
    refused_by_limit: AtomicU64,
    memory: OnceLock<Arc<Memory>>,
}

/// The state of a server at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSnapshot {
    /// Open connections, by user id. The key is `None` over TCP, and on streams whose peer is
    /// unknown.
    pub connections_by_uid: BTreeMap<Option<u32>, usize>,
    /// Calls that have begun and not ended.
    pub calls_in_flight: usize,
    /// Calls that have ended.
    pub calls_ended: u64,
    /// Bytes that are buffered for connections with 16 KiB or more:
    /// [`Server::max_buffered_bytes`](crate::Server::max_buffered_bytes) limits them.
    pub buffered_bytes: usize,
    /// Connections that the policy refused.
    pub refused_by_policy: u64,
    /// Connections that were refused because a limit was reached.
    pub refused_by_limit: u64,
}

impl ServerSnapshot {
    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.connections_by_uid.values().sum()
    }
}

impl ServerStats {
    /// Returns the state of the server now. Each number is exact, but the server goes on between
    /// reading one and the next.
    pub fn snapshot(&self) -> ServerSnapshot {
        let counters = &*self.0;
        let connections = counters.connections.lock().unwrap_or_else(PoisonError::into_inner);
        ServerSnapshot {
            connections_by_uid: connections.clone(),
            calls_in_flight: counters.calls.load(Ordering::Relaxed),
            calls_ended: counters.calls_ended.load(Ordering::Relaxed),
            buffered_bytes: counters.memory.get().map_or(0, |memory| memory.held()),
            refused_by_policy: counters.refused_by_policy.load(Ordering::Relaxed),
            refused_by_limit: counters.refused_by_limit.load(Ordering::Relaxed),
        }
    }

    /// Shows the `memory` of a server that begins to serve.
    pub(super) fn serves_with(&self, memory: &Arc<Memory>) {
        // The statistics stay with the first server if a clone of it serves, too.
        let _ = self.0.memory.set(Arc::clone(memory));
    }

    fn count(&self, connection: &ConnectionInfo, opened: bool) {
        let uid = connection.peer().identity().map(PeerIdentity::uid);
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(uid).or_default();
        *count = if opened { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            connections.remove(&uid);
        }
    }
}

impl Observer for ServerStats {
    fn observe(&self, event: &Event<'_>) {
        let ServerCounters { calls, calls_ended, refused_by_policy, refused_by_limit, .. } =
            &*self.0;
        match event {
            Event::ConnectionOpened { connection } => self.count(connection, true),
            Event::ConnectionClosed { connection, .. } => self.count(connection, false),
            Event::ConnectionRefused { reason: RefusalReason::Policy, .. } => {
                refused_by_policy.fetch_add(1, Ordering::Relaxed);
            }
            Event::ConnectionRefused { .. } => {
                refused_by_limit.fetch_add(1, Ordering::Relaxed);
            }
            Event::CallBegan { .. } => {
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Event::CallEnded { .. } => {
                calls.fetch_sub(1, Ordering::Relaxed);
                calls_ended.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
