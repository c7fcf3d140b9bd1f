//! [`WaitingThreads`]: the threads that wait while another one reads, and what each waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar};

use crate::http2::StreamKey;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The stream of its call: only its own thread waits for that.
    Stream(StreamKey),
    /// The server's SETTINGS, or a slot for a call.
    Slot,
}

/// The threads that wait while another one reads. A thread that is woken is no longer among them. While
/// there is one, either a thread reads or a woken one is about to look for itself.
#[derive(Default)]
pub(super) struct WaitingThreads {
    streams: Vec<(StreamKey, Arc<Condvar>)>,
    slots: VecDeque<Arc<Condvar>>,
    /// How many were woken and do not run yet.
    woken: usize,
}

impl WaitingThreads {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.slots.is_empty()
    }

    /// Adds a thread, and returns what will be notified. One that was woken for a slot that another call
    /// then took goes before the others.
    pub(super) fn add(&mut self, waits_for: WaitsFor, was_woken: bool) -> Arc<Condvar> {
        let wake = Arc::new(Condvar::new());
        let waker = Arc::clone(&wake);
        match waits_for {
            WaitsFor::Stream(key) => self.streams.push((key, waker)),
            WaitsFor::Slot if was_woken => self.slots.push_front(waker),
            WaitsFor::Slot => self.slots.push_back(waker),
        }
        wake
    }

    /// Notes that a thread runs again. Returns whether it was woken, or else runs for another reason.
    pub(super) fn resume(&mut self, wake: &Arc<Condvar>) -> bool {
        let before = self.streams.len() + self.slots.len();
        self.streams.retain(|(_, other)| !Arc::ptr_eq(other, wake));
        self.slots.retain(|other| !Arc::ptr_eq(other, wake));
        let was_woken = self.streams.len() + self.slots.len() == before;
        self.woken -= usize::from(was_woken);
        was_woken
    }

    /// Wakes the thread of a stream, if it waits.
    pub(super) fn wake(&mut self, key: StreamKey) {
        if let Some(index) = self.streams.iter().position(|(other, _)| *other == key) {
            let (_, wake) = self.streams.swap_remove(index);
            self.notify(&wake);
        }
    }

    /// Wakes the first thread that waits for a slot. It wakes the next one when it leaves.
    pub(super) fn wake_for_slot(&mut self) {
        if let Some(wake) = self.slots.pop_front() {
            self.notify(&wake);
        }
    }

    /// Wakes a thread that is to read for the others, unless one that was woken will see to that.
    pub(super) fn wake_reader(&mut self) {
        if self.woken > 0 {
            return;
        }
        match self.streams.pop() {
            Some((_, wake)) => self.notify(&wake),
            None => self.wake_for_slot(),
        }
    }

    /// Wakes all threads, since something has happened that concerns each.
    pub(super) fn wake_all(&mut self) {
        while let Some((_, wake)) = self.streams.pop() {
            self.notify(&wake);
        }
        while !self.slots.is_empty() {
            self.wake_for_slot();
        }
    }

    fn notify(&mut self, wake: &Condvar) {
        self.woken += 1;
        wake.notify_one();
    }
}
