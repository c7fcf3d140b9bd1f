//! [`ChannelStats`]: what a channel is doing right now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::observer::{Event, Observer};

/// Tells what a channel is doing. See [`ChannelBuilder::stats`](crate::ChannelBuilder::stats).
/// Clones share the same statistics.
#[derive(Clone, Debug, Default)]
pub struct ChannelStats(Arc<ChannelCounters>);

#[derive(Debug, Default)]
struct ChannelCounters {
    connections: AtomicUsize,
    connections_opened: AtomicU64,
    connect_failures: AtomicU64,
    calls: AtomicUsize,
    calls_ended: AtomicU64,
    retries: AtomicU64,
    resends: AtomicU64,
}

/// What a channel was doing at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelSnapshot {
    /// Open connections. At most one takes new calls; the others stay until their calls have ended.
    pub connections: usize,
    /// Connections that were opened.
    pub connections_opened: u64,
    /// Attempts to open a connection that have failed.
    pub connect_failures: u64,
    /// Calls that were made and have not ended, including those that wait for a connection or a
    /// slot.
    pub calls_in_flight: usize,
    /// Calls that have ended.
    pub calls_ended: u64,
    /// How often calls that have ended were made again by the channel's
    /// [`RetryPolicy`](crate::RetryPolicy).
    pub retries: u64,
    /// How often calls that have ended were sent again because no server had processed them.
    pub resends: u64,
}

impl ChannelStats {
    /// Returns what the channel is doing now. Each number is right by itself, but the channel goes
    /// on between two of them.
    pub fn snapshot(&self) -> ChannelSnapshot {
        let inner = &*self.0;
        ChannelSnapshot {
            connections: inner.connections.load(Ordering::Relaxed),
            connections_opened: inner.connections_opened.load(Ordering::Relaxed),
            connect_failures: inner.connect_failures.load(Ordering::Relaxed),
            calls_in_flight: inner.calls.load(Ordering::Relaxed),
            calls_ended: inner.calls_ended.load(Ordering::Relaxed),
            retries: inner.retries.load(Ordering::Relaxed),
            resends: inner.resends.load(Ordering::Relaxed),
        }
    }
}

impl Observer for ChannelStats {
    fn observe(&self, event: &Event<'_>) {
        let inner = &*self.0;
        match event {
            Event::ConnectFailed { .. } => {
                inner.connect_failures.fetch_add(1, Ordering::Relaxed);
            }
            Event::ConnectionOpened { .. } => {
                inner.connections_opened.fetch_add(1, Ordering::Relaxed);
                inner.connections.fetch_add(1, Ordering::Relaxed);
            }
            Event::ConnectionClosed { .. } => {
                inner.connections.fetch_sub(1, Ordering::Relaxed);
            }
            Event::CallBegan { .. } => {
                inner.calls.fetch_add(1, Ordering::Relaxed);
            }
            Event::CallEnded { end, .. } => {
                inner.calls.fetch_sub(1, Ordering::Relaxed);
                inner.calls_ended.fetch_add(1, Ordering::Relaxed);
                inner.retries.fetch_add(end.retries().into(), Ordering::Relaxed);
                inner.resends.fetch_add(end.resends().into(), Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
