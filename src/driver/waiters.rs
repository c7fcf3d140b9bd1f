//! [`Waiters`]: which tasks wait for which stream. `http2` has what has arrived on a stream and
//! what waits to be sent.

use std::task::Waker;

use tokio::task::AbortHandle;

use super::spare::FEW;
use crate::http2::StreamKey;

/// The tasks of all streams, in a table beside `http2`'s.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<StreamTasks>);

/// The tasks of one stream.
#[derive(Debug, Default)]
struct StreamTasks {
    /// The stream of these tasks. Indexes are used again.
    key: Option<StreamKey>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The task of a server's handler that was not ready in place, or of a client's request body.
    task: Option<AbortHandle>,
}

impl Waiters {
    /// Wakes `waker` when there is something to read.
    pub(super) fn wait_to_read(&mut self, key: StreamKey, waker: &Waker) {
        remember(&mut self.entry(key).reader, waker);
    }

    /// Wakes `waker` when more can be sent.
    pub(super) fn wait_to_write(&mut self, key: StreamKey, waker: &Waker) {
        remember(&mut self.entry(key).writer, waker);
    }

    /// Makes the task end with the stream.
    pub(super) fn set_task(&mut self, key: StreamKey, task: AbortHandle) {
        self.entry(key).task = Some(task);
    }

    pub(super) fn take_reader(&mut self, key: StreamKey) -> Option<Waker> {
        self.find(key)?.reader.take()
    }

    pub(super) fn take_writer(&mut self, key: StreamKey) -> Option<Waker> {
        self.find(key)?.writer.take()
    }

    /// Wakes the tasks of a stream that ended early, so that they see why. Its own task has nothing
    /// more to do.
    pub(super) fn fail(&mut self, key: StreamKey, wakes: &mut Vec<Waker>) {
        if let Some(waiter) = self.find(key) {
            waiter.fail(wakes);
        }
    }

    /// Wakes the tasks of all streams, which have ended.
    pub(super) fn fail_all(&mut self, wakes: &mut Vec<Waker>) {
        self.0.iter_mut().for_each(|waiter| waiter.fail(wakes));
    }

    /// Forgets a stream. A task that still waits learns that from `http2`. Returns the stream's own
    /// task.
    #[inline]
    pub(super) fn forget(&mut self, key: StreamKey, wakes: &mut Vec<Waker>) -> Option<AbortHandle> {
        let waiter = std::mem::take(self.find(key)?);
        wakes.extend(waiter.reader);
        wakes.extend(waiter.writer);
        waiter.task
    }

    #[inline]
    fn find(&mut self, key: StreamKey) -> Option<&mut StreamTasks> {
        self.0.get_mut(key.index()).filter(|waiter| waiter.key == Some(key))
    }

    fn entry(&mut self, key: StreamKey) -> &mut StreamTasks {
        let index = key.index();
        if self.0.len() <= index {
            self.0.resize_with(index + 1, StreamTasks::default);
        }
        let waiter = &mut self.0[index];
        if waiter.key != Some(key) {
            *waiter = StreamTasks { key: Some(key), ..StreamTasks::default() };
        }
        waiter
    }

    /// Gives back the memory of a large table. It is only called while there are no streams.
    pub(super) fn trim(&mut self) {
        if self.0.capacity() > FEW {
            self.0 = Vec::new();
        }
    }
}

impl StreamTasks {
    fn fail(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.reader.take());
        wakes.extend(self.writer.take());
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Keeps `waker`, unless the same one is kept already.
fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) if known.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}
