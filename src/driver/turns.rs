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

    /// Leaves the line. If `id` had the turn, the next one gets it.
    pub(super) fn leave(&self, id: u64) {
        let mut line = self.lock();
        if line.holder == Some(id) {
            line.holder = None;
        } else {
            line.waiting.retain(|(other, _)| *other != id);
        }
        let next = if line.holder.is_none() { line.waiting.front() } else { None };
        let next = next.map(|(_, waker)| waker.clone());
        drop(line);
        if let Some(waker) = next {
            waker.wake();
        }
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
        turns.leave(1);
        assert_eq!([1, 3, 2].map(take), [false, false, true]);
        // A connection that leaves the line gets no turn.
        turns.leave(3);
        turns.leave(2);
        assert_eq!([1, 2].map(take), [true, false]);
        turns.leave(2);
        assert!(!turns.is_wanted());
        turns.leave(1);
        assert!(take(4));
    }
}
