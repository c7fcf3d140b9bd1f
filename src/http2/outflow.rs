//! [`Outflow`]: what all streams together have to send, and the window that they share.

use std::collections::VecDeque;

use super::flow::{DEFAULT_WINDOW, Overflow, SendWindow};
use super::key::StreamKey;
use super::spare::trim;
use super::stream::Streams;

/// The connection's sending side.
#[derive(Debug)]
pub(super) struct Outflow {
    window: SendWindow,
    /// Streams that have something to send and window for it, each once. Streams that were reset
    /// stay here for a while.
    ready: VecDeque<StreamKey>,
    /// How many bytes wait in their streams.
    queued: u64,
    /// How many bytes were sent of chunks whose rest waits in its stream.
    begun: usize,
    /// How many bytes of data were ever sent.
    sent: u64,
}

impl Outflow {
    pub(super) fn new() -> Self {
        Self {
            window: SendWindow::new(DEFAULT_WINDOW),
            ready: VecDeque::new(),
            queued: 0,
            begun: 0,
            sent: 0,
        }
    }

    /// Returns the connection's window.
    #[inline]
    pub(super) fn available(&self) -> usize {
        self.window.available()
    }

    /// Takes `bytes` out of the window.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) {
        self.window.take(bytes);
        self.sent += bytes as u64;
    }

    /// Returns how many bytes of data were ever sent.
    #[inline]
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Widens the window by a WINDOW_UPDATE for the connection.
    pub(super) fn widen(&mut self, by: u32) -> Result<(), Overflow> {
        self.window.adjust(i64::from(by))
    }

    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Returns how many bytes of memory the chunks take that wait in their streams.
    pub(super) fn kept(&self) -> usize {
        self.queued as usize + self.begun
    }

    /// Notes that `bytes` of a chunk were sent, and the rest waits.
    pub(super) fn begin(&mut self, bytes: usize) {
        self.begun += bytes;
    }

    /// Notes that nothing waits any more of a chunk of which `bytes` were sent before.
    pub(super) fn end(&mut self, bytes: usize) {
        self.begun -= bytes;
    }

    /// Counts bytes that a stream keeps until it can send them.
    pub(super) fn enqueue(&mut self, bytes: usize) {
        self.queued += bytes as u64;
    }

    /// Counts bytes that no longer wait, because they were sent or dropped.
    pub(super) fn dequeue(&mut self, bytes: usize) {
        self.queued -= bytes as u64;
    }

    /// Adds a stream whose `ready` was just set. Entries of streams that were reset meanwhile are
    /// dropped before they outnumber the others.
    pub(super) fn push_ready(&mut self, key: StreamKey, streams: &Streams) {
        if self.ready.len() > 2 * streams.len() + 16 {
            self.ready.retain(|key| streams.get(*key).is_some_and(|stream| stream.ready));
        }
        self.ready.push_back(key);
    }

    pub(super) fn pop_ready(&mut self) -> Option<StreamKey> {
        self.ready.pop_front()
    }

    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn clear_ready(&mut self) {
        self.ready.clear();
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.ready);
    }

    #[cfg(test)]
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }
}
