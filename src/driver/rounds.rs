//! [`Rounds`]: the order of turns while connections of several users have work.
//!
//! The runtime polls tasks in the order in which they became ready. So a user with many connections
//! would get as many turns before another user gets one. Therefore, while several users are active,
//! their turns come in rounds. In each round a user's turns may take [`SHARE`], and its other
//! connections wait for the next round. A round ends when every ready task was polled. If only one
//! user is active, nothing waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// How long a user's turns may take in a round before its last turn begins.
const SHARE: Duration = Duration::from_micros(500);

/// Several users are active if turns of two users were within this time of each other.
const RECENT: Duration = Duration::from_millis(100);

/// The rounds of a server.
#[derive(Debug)]
pub(super) struct Rounds {
    began: Instant,
    /// The number of the user that had the last turn, or 0.
    last: AtomicU64,
    /// Until when several users count as active, in milliseconds since the beginning, or 0 if only
    /// one is.
    shared_until: AtomicU64,
    /// The number of the round.
    round: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    connections: Vec<Waker>,
    /// Whether a task begins the next round.
    goes_on: bool,
}

/// How long a user's turns have taken in a round.
#[derive(Debug, Default)]
pub(super) struct Taken(Mutex<(u64, Duration)>);

impl Rounds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            last: AtomicU64::new(0),
            shared_until: AtomicU64::new(0),
            round: AtomicU64::new(1),
            waiting: Mutex::default(),
        }
    }

    /// Notes that a connection of user `number` is about to have a turn. Returns whether turns are
    /// shared now.
    #[inline]
    pub(super) fn are_shared(&self, number: u64, now: Instant) -> bool {
        let same = self.last.load(Ordering::Relaxed) == number;
        if same && self.shared_until.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.note(number, now)
    }

    #[cold]
    fn note(&self, number: u64, now: Instant) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.began));
        let last = self.last.swap(number, Ordering::Relaxed);
        if last != 0 && last != number {
            self.shared_until.store(now + millis(RECENT), Ordering::Relaxed);
            return true;
        }
        let is_shared = self.shared_until.load(Ordering::Relaxed) > now;
        if !is_shared {
            self.shared_until.store(0, Ordering::Relaxed);
        }
        is_shared
    }

    /// Returns whether a user may have one more turn in this round. Otherwise `waker` is woken in
    /// the next round.
    pub(super) fn enter(self: &Arc<Self>, taken: &Taken, waker: &Waker) -> bool {
        let round = self.round.load(Ordering::Relaxed);
        if taken.in_round(round).1 < SHARE {
            return true;
        }
        let mut waiting = self.lock();
        if self.round.load(Ordering::Relaxed) != round {
            return true;
        }
        waiting.connections.push(waker.clone());
        if !std::mem::replace(&mut waiting.goes_on, true) {
            let rounds = Arc::clone(self);
            tokio::spawn(async move {
                loop {
                    // This runs after all tasks that are ready, and those that the sockets make
                    // ready.
                    tokio::task::yield_now().await;
                    if !rounds.begin_next() {
                        break;
                    }
                }
            });
        }
        false
    }

    /// Notes how long a turn of a user took.
    pub(super) fn leave(&self, taken: &Taken, time: Duration) {
        taken.in_round(self.round.load(Ordering::Relaxed)).1 += time;
    }

    /// Begins the next round. Returns whether any task waited for it.
    fn begin_next(&self) -> bool {
        let mut waiting = self.lock();
        self.round.fetch_add(1, Ordering::Relaxed);
        let connections = std::mem::take(&mut waiting.connections);
        waiting.goes_on = !connections.is_empty();
        drop(waiting);
        let goes_on = !connections.is_empty();
        connections.into_iter().for_each(Waker::wake);
        goes_on
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn in_round(&self, round: u64) -> MutexGuard<'_, (u64, Duration)> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.0 != round {
            *taken = (round, Duration::ZERO);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_shared_while_several_users_are_active() {
        let start = Instant::now();
        let rounds = Rounds::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!rounds.are_shared(1, at(0)));
        assert!(!rounds.are_shared(1, at(1)));
        assert!(rounds.are_shared(2, at(2)));
        assert!(rounds.are_shared(2, at(101)));
        assert!(!rounds.are_shared(2, at(102)), "it has been alone for long enough");
        assert!(rounds.are_shared(1, at(103)));
    }

    #[tokio::test]
    async fn a_user_that_has_taken_its_share_waits_for_the_next_round() {
        let rounds = Arc::new(Rounds::new(Instant::now()));
        let (heavy, light) = (Taken::default(), Taken::default());
        let enter = |taken: &Taken| rounds.enter(taken, Waker::noop());
        assert!(enter(&heavy));
        rounds.leave(&heavy, SHARE / 2);
        assert!(enter(&heavy), "not all of it");
        rounds.leave(&heavy, SHARE);
        assert_eq!((enter(&heavy), enter(&light)), (false, true));
        // All have had a turn.
        while !enter(&heavy) {
            tokio::task::yield_now().await;
        }
        rounds.leave(&heavy, SHARE);
        assert!(!enter(&heavy));
    }
}
