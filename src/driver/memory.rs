//! [`Memory`]: what the connections of a server may hold together, so that many that each keep to
//! their own limits can't exhaust the process. A handler has no use for a message before it is
//! complete: until then it counts too ([`Kept`]).
//!
//! Counted is what outlives a pass, by whole steps, so that an ordinary connection, which holds
//! nothing while it sleeps, never touches the common counter. While the sum is over the limit, who
//! holds something is read from no more, but for one at a time: where all have sent half of a message,
//! somebody has to get to its end. Who gets rid of nothing for a while is closed. Who holds nothing
//! goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::shared::Shared;

/// Bytes are counted by so many. Fewer are not counted at all.
const STEP: usize = 16 * 1024;

/// While it is not read from, a connection looks after this time whether it may be again.
const PAUSE: Duration = Duration::from_millis(10);

/// One that sleeps and holds something looks after this time whether there is still room for it.
const LOOK: Duration = Duration::from_secs(1);

/// How long a connection may hold something without any of it going while there is no room.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the one that is read from may bring nothing before another one has its turn.
const TURN: Duration = Duration::from_millis(20);

/// What a server's connections hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    /// Whose turn it is may fill it up to here.
    overdraft: usize,
    held: AtomicUsize,
    /// It is somebody's turn.
    turn: AtomicBool,
}

impl Memory {
    /// At most `limit` bytes and a quarter more, plus what connections read before they notice.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            overdraft: limit.saturating_add(limit / 4),
            held: AtomicUsize::new(0),
            turn: AtomicBool::new(false),
        })
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.held() > self.limit
    }
}

/// A connection's part. Gives it back when dropped.
#[derive(Debug)]
pub(super) struct Account {
    memory: Option<Arc<Memory>>,
    /// Whole steps, in bytes.
    counted: usize,
    /// When it last became less, if it is not nothing.
    since: Option<Instant>,
    /// Until when it is this one's turn, if it is.
    turn: Option<Instant>,
}

impl Account {
    /// `None`: nobody counts.
    pub(super) fn new(memory: Option<Arc<Memory>>) -> Self {
        Self { memory, counted: 0, since: None, turn: None }
    }

    /// The connection holds so many bytes at the end of a pass.
    #[inline]
    pub(super) fn set(&mut self, bytes: usize, now: Instant) {
        let steps = bytes - bytes % STEP;
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
            self.end_turn();
        } else {
            memory.held.fetch_add(steps - self.counted, Ordering::Relaxed);
            self.since.get_or_insert(now);
            self.turn = self.turn.map(|_| now + TURN);
        }
        self.counted = steps;
    }

    #[inline]
    pub(super) fn holds_nothing(&self) -> bool {
        self.counted == 0
    }

    /// Whether the connection may be read from.
    #[inline]
    pub(super) fn may_read(&mut self, now: Instant) -> bool {
        self.holds_nothing() || self.may_add(now)
    }

    #[cold]
    fn may_add(&mut self, now: Instant) -> bool {
        let Some(memory) = &self.memory else { return true };
        let held = memory.held.load(Ordering::Relaxed);
        if held > memory.limit && held <= memory.overdraft {
            if self.turn.is_none() && !memory.turn.swap(true, Ordering::Relaxed) {
                self.turn = Some(now + TURN);
            }
            if self.turn.is_some_and(|until| now < until) {
                return true;
            }
        }
        let fits = held <= memory.limit;
        self.end_turn();
        fits
    }

    /// There was nothing to read: it may be somebody else's turn at once, unless something came in
    /// this one's.
    pub(super) fn found_nothing(&mut self, now: Instant) {
        if self.turn == Some(now + TURN) {
            self.end_turn();
        }
    }

    /// Nothing more is read.
    pub(super) fn end_turn(&mut self) {
        if let (Some(memory), Some(_)) = (&self.memory, self.turn.take()) {
            memory.turn.store(false, Ordering::Relaxed);
        }
    }

    fn is_full(&self) -> bool {
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
        self.end_turn();
        if let Some(memory) = &self.memory {
            memory.held.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

/// What a call keeps of a message that is still arriving, as part of what its connection holds. It
/// ends with the call.
#[derive(Debug)]
pub(crate) struct Kept {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Kept {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0 }
    }

    /// So many bytes now. The connection's next pass takes account of them.
    pub(crate) fn set(&mut self, bytes: usize) {
        let earlier = std::mem::replace(&mut self.bytes, bytes);
        if bytes > earlier {
            self.shared.kept.fetch_add(bytes - earlier, Ordering::Relaxed);
        } else if bytes < earlier {
            self.shared.kept.fetch_sub(earlier - bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts<const N: usize>(memory: &Arc<Memory>) -> [Account; N] {
        [(); N].map(|()| Account::new(Some(Arc::clone(memory))))
    }

    #[test]
    fn only_who_holds_something_waits_and_only_while_there_is_no_room() {
        let now = Instant::now();
        let memory = Memory::new(4 * STEP);
        let mut accounts = accounts::<3>(&memory);
        let mut may_read = |held: [usize; 3]| {
            for (account, held) in accounts.iter_mut().zip(held) {
                account.set(held, now);
            }
            let may_read = accounts.each_mut().map(|account| account.may_read(now));
            (may_read, accounts.each_ref().map(|account| account.next_look(now)))
        };
        let (look, pause) = (Some(now + LOOK), Some(now + PAUSE));
        let fits = [3 * STEP, 2 * STEP - 1, STEP - 1];
        assert_eq!(may_read(fits), ([true; 3], [look, look, None]), "exactly the limit");
        // Beyond any overdraft.
        let full = [3 * STEP, 4 * STEP, STEP - 1];
        assert_eq!(may_read(full), ([false, false, true], [pause, pause, None]));
        assert_eq!(may_read(fits).0, [true; 3]);
        assert_eq!(may_read([0, 0, 8 * STEP]), ([true, true, false], [None, None, pause]));
        drop(accounts);
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_may_go_on_until_it_is_through_or_nothing_comes() {
        let start = Instant::now();
        let memory = Memory::new(29 * STEP);
        let mut accounts = accounts::<3>(&memory);
        accounts.iter_mut().for_each(|account| account.set(10 * STEP, start));
        let readers = |accounts: &mut [Account; 3], now| {
            accounts.each_mut().map(|account| account.may_read(now))
        };
        assert_eq!(readers(&mut accounts, start), [true, false, false]);
        accounts[0].found_nothing(start);
        accounts[1].set(11 * STEP, start);
        assert!(accounts[1].may_read(start));
        assert_eq!(readers(&mut accounts, start), [false, true, false]);

        // It brings more, and is not hurried then.
        let soon = start + TURN / 2;
        accounts[1].set(12 * STEP, soon);
        accounts[1].found_nothing(soon + TURN / 4);
        assert_eq!(readers(&mut accounts, start + TURN), [false, true, false]);
        assert_eq!(readers(&mut accounts, soon + TURN), [false, false, true]);

        // Who is through lets the next one.
        accounts[2].set(9 * STEP, soon + TURN);
        assert_eq!(readers(&mut accounts, soon + TURN), [true, false, false]);
        // Nobody may go on beyond the overdraft.
        accounts[0].set(30 * STEP, soon + TURN);
        assert_eq!(readers(&mut accounts, soon + TURN), [false; 3]);
        drop(accounts);
        assert!(!memory.turn.load(Ordering::Relaxed));
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
        assert!(account.may_read(now));
        assert_eq!(account.next_look(now), None);
    }
}
