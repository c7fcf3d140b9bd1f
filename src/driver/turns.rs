//! [`ReadTurns`]: a line of connections, of which the first one has the turn.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A line of connections, each with a number. One at a time has the turn.
#[derive(Debug, Default)]
pub(super) struct ReadTurns(Mutex<TurnQueue>);

#[derive(Debug, Default)]
struct TurnQueue {
    holder: Option<u64>,
    /// The waiting connections, in the order in which they came.
    waiting: VecDeque<(u64, Waker)>,
}

impl ReadTurns {
    /// Returns whether it is the turn of `id`. Otherwise it waits in the line, and is woken for its
    /// turn.
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

    /// Leaves the line. If nobody has the turn then, returns the waker of the next one, which may take it.
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

    /// Returns whether another connection waits for the turn.
    pub(super) fn is_wanted(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, TurnQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_the_order_in_which_they_came() {
        let turns = ReadTurns::default();
        let take = |id| turns.take(id, Waker::noop());
        assert_eq!([1, 2, 3, 1].map(take), [true, false, false, true]);
        assert!(turns.leave(1).is_some());
        assert_eq!([1, 3, 2].map(take), [false, false, true]);
        // A connection that leaves the line gets no turn.
        assert!(turns.leave(3).is_none(), "2 has the turn");
        assert!(turns.leave(2).is_some());
        assert_eq!([1, 2].map(take), [true, false]);
        assert!(turns.leave(2).is_none());
        assert!(!turns.is_wanted());
        assert!(turns.leave(1).is_none());
        assert!(take(4));
    }
}
