//! [`ServerStats`]: what a server is doing right now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::driver::Memory;
use crate::observer::{ConnectionInfo, Event, Observer, RefusalReason};
use crate::socket::PeerIdentity;

/// Tells what a server is doing: see [`Server::stats`](crate::Server::stats). A clone is a reference.
#[derive(Clone, Debug, Default)]
pub struct ServerStats(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Of each user; those whose user is not known have none.
    connections: Mutex<BTreeMap<Option<u32>, usize>>,
    calls: AtomicUsize,
    calls_ended: AtomicU64,
    refused_by_policy: AtomicU64,
    refused_by_limit: AtomicU64,
    memory: OnceLock<Arc<Memory>>,
}

/// What a server was doing at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSnapshot {
    /// Open connections, by user id. `None`: over TCP, or on a stream whose peer is not known.
    pub connections_by_uid: BTreeMap<Option<u32>, usize>,
    /// Calls that have begun and not ended.
    pub calls_in_flight: usize,
    /// Calls that have ended.
    pub calls_ended: u64,
    /// Bytes that connections hold, of those with 16 KiB or more: what
    /// [`Server::max_buffered_bytes`](crate::Server::max_buffered_bytes) limits.
    pub buffered_bytes: usize,
    /// Connections that the policy refused.
    pub refused_by_policy: u64,
    /// Connections beyond a limit.
    pub refused_by_limit: u64,
}

impl ServerSnapshot {
    /// Open connections in all.
    pub fn connections(&self) -> usize {
        self.connections_by_uid.values().sum()
    }
}

impl ServerStats {
    /// What the server is doing now. Each number is right by itself; between reading one and the next
    /// the server goes on.
    pub fn snapshot(&self) -> ServerSnapshot {
        let inner = &*self.0;
        let connections = inner.connections.lock().unwrap_or_else(PoisonError::into_inner);
        ServerSnapshot {
            connections_by_uid: connections.clone(),
            calls_in_flight: inner.calls.load(Ordering::Relaxed),
            calls_ended: inner.calls_ended.load(Ordering::Relaxed),
            buffered_bytes: inner.memory.get().map_or(0, |memory| memory.held()),
            refused_by_policy: inner.refused_by_policy.load(Ordering::Relaxed),
            refused_by_limit: inner.refused_by_limit.load(Ordering::Relaxed),
        }
    }

    /// The server has begun to serve.
    pub(super) fn serves_with(&self, memory: &Arc<Memory>) {
        // A second server of the same settings has no part in it.
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
        let Inner { calls, calls_ended, refused_by_policy, refused_by_limit, .. } = &*self.0;
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
