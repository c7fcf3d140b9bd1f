//! [`ReadPermits`]: a line of connections, one of which has the permit to be read.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A line of connections, each with a number. One at a time has the permit.
#[derive(Debug, Default)]
pub(super) struct ReadPermits(Mutex<PermitQueue>);

#[derive(Debug, Default)]
struct PermitQueue {
    holder: Option<u64>,
    /// The waiting connections, in the order in which they came.
    waiting: VecDeque<(u64, Waker)>,
}

impl ReadPermits {
    /// Returns whether `id` has the permit now. Otherwise it waits in the line, and is woken when it may
    /// take it.
    pub(super) fn take(&self, id: u64, waker: &Waker) -> bool {
        let mut line = self.lock();
        if line.holder == Some(id) {
            return true;
        }
        let place = line.waiting.iter().position(|(other, _)| *other == id);
        let is_first = place.unwrap_or(line.waiting.len()) == 0;
        if line.holder.is_none() && is_first {
            line.waiting.pop_front();
            line.holder = Some(id);
            return true;
        }
        match place {
            Some(place) => line.waiting[place].1.clone_from(waker),
            None => line.waiting.push_back((id, waker.clone())),
        }
        false
    }

    /// Leaves the line. If nobody has the permit then, returns the waker of the next one, which may
    /// take it.
    #[must_use]
    pub(super) fn leave(&self, id: u64) -> Option<Waker> {
        let mut line = self.lock();
        if line.holder == Some(id) {
            line.holder = None;
        } else {
            line.waiting.retain(|(other, _)| *other != id);
        }
        let next = if line.holder.is_none() { line.waiting.front() } else { None };
        next.map(|(_, waker)| waker.clone())
    }

    /// Returns whether another connection waits for the permit.
    pub(super) fn is_wanted(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, PermitQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_the_order_in_which_they_came() {
        let permits = ReadPermits::default();
        let take = |id| permits.take(id, Waker::noop());
        assert_eq!([1, 2, 3, 1].map(take), [true, false, false, true]);
        assert!(permits.leave(1).is_some());
        assert_eq!([1, 3, 2].map(take), [false, false, true]);
        // A connection that leaves the line gets no permit.
        assert!(permits.leave(3).is_none(), "2 has the permit");
        assert!(permits.leave(2).is_some());
        assert_eq!([1, 2].map(take), [true, false]);
        assert!(permits.leave(2).is_none());
        assert!(!permits.is_wanted());
        assert!(permits.leave(1).is_none());
        assert!(take(4));
    }
}
