//! [`Memory`]: what the connections of a server may hold together, so that many that each keep to
//! their own limits can't exhaust the process.
//!
//! Counted is what outlives a pass, by whole steps, so that an ordinary connection, which holds
//! nothing while it sleeps, never touches the common counter. While the sum is over the limit, who
//! holds something is read from no more; who then does not get rid of anything for a while is
//! closed, for reading on may be what it takes. Who holds nothing goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Octets are counted by so many. Fewer are not counted at all.
const STEP: usize = 16 * 1024;

/// While it is not read from, a connection looks after this time whether it may be again.
const PAUSE: Duration = Duration::from_millis(10);

/// One that sleeps and holds something looks after this time whether there is still room for it.
const LOOK: Duration = Duration::from_secs(1);

/// How long a connection may hold something without any of it going while there is no room.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server's connections hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    held: AtomicUsize,
}

impl Memory {
    /// At most `limit` octets, plus what connections read before they notice.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.limit
    }
}

/// A connection's part. Gives it back when dropped.
#[derive(Debug)]
pub(super) struct Account {
    memory: Option<Arc<Memory>>,
    /// Whole steps, in octets.
    counted: usize,
    /// When it last became less, if it is not nothing.
    since: Option<Instant>,
}

impl Account {
    /// `None`: nobody counts.
    pub(super) fn new(memory: Option<Arc<Memory>>) -> Self {
        Self { memory, counted: 0, since: None }
    }

    /// The connection holds so many octets at the end of a pass.
    #[inline]
    pub(super) fn set(&mut self, octets: usize, now: Instant) {
        let steps = octets - octets % STEP;
        if steps != self.counted {
            self.change(steps, now);
        }
    }

    #[cold]
    fn change(&mut self, steps: usize, now: Instant) {
        let Some(memory) = &self.memory else { return };
        if steps < self.counted {
            memory.held.fetch_sub(self.counted - steps, Ordering::Relaxed);
            self.since = (steps > 0).then_some(now);
        } else {
            memory.held.fetch_add(steps - self.counted, Ordering::Relaxed);
            self.since.get_or_insert(now);
        }
        self.counted = steps;
    }

    /// Nothing more is to be read for now.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.counted > 0 && self.memory.as_ref().is_some_and(|memory| memory.is_full())
    }

    /// There is no room, and this connection has held on to what it has for too long.
    pub(super) fn is_exhausted(&self, now: Instant) -> bool {
        self.is_full() && self.since.is_some_and(|since| since + PATIENCE <= now)
    }

    /// When to look again.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        (self.counted > 0).then(|| now + if self.is_full() { PAUSE } else { LOOK })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.held.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_holds_something_waits_and_only_while_there_is_no_room() {
        let now = Instant::now();
        let memory = Memory::new(4 * STEP);
        let mut accounts = [(); 3].map(|()| Account::new(Some(Arc::clone(&memory))));
        accounts[0].set(3 * STEP, now);
        accounts[1].set(2 * STEP - 1, now);
        accounts[2].set(STEP - 1, now);
        assert!(accounts.iter().all(|account| !account.is_full()), "exactly the limit");
        assert_eq!(accounts[0].next_look(now), Some(now + LOOK));
        assert_eq!(accounts[2].next_look(now), None);

        accounts[1].set(2 * STEP, now);
        assert_eq!([0, 1, 2].map(|of: usize| accounts[of].is_full()), [true, true, false]);
        assert_eq!(accounts[0].next_look(now), Some(now + PAUSE));

        accounts[1].set(0, now);
        assert!(accounts.iter().all(|account| !account.is_full()));
        accounts[2].set(2 * STEP, now);
        assert!(accounts[0].is_full());
        let [first, second, third] = accounts;
        drop(first);
        assert!(!third.is_full());
        drop((second, third));
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_gets_rid_of_something_has_time() {
        let start = Instant::now();
        let memory = Memory::new(STEP);
        let mut stuck = Account::new(Some(Arc::clone(&memory)));
        let mut moving = Account::new(Some(memory));
        stuck.set(2 * STEP, start);
        moving.set(3 * STEP, start);
        let later = start + PATIENCE;
        moving.set(2 * STEP, later);
        // Growing is no sign of life.
        stuck.set(3 * STEP, later);
        assert!(stuck.is_exhausted(later));
        assert!(!moving.is_exhausted(later));
        drop(moving);
        stuck.set(STEP, later);
        assert!(!stuck.is_exhausted(later + PATIENCE), "there is room");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let now = Instant::now();
        let mut account = Account::new(None);
        account.set(usize::MAX, now);
        assert!(!account.is_full());
        assert_eq!(account.next_look(now), None);
    }
}
