//! [`Rounds`]: the order of turns while connections of several users have work.
//!
//! The runtime polls tasks in the order in which they became ready. So a user with many connections
//! would get as many turns before another user gets one. Therefore, while several users are active,
//! their turns come in rounds. Each round adds [`SHARE`] to a user's balance, up to [`CREDIT`], and the
//! user's turns take their time from it. While the balance is used up, the user's connections wait in
//! a line, and are woken one by one: a long turn delays its user's next turns, and connections that wait
//! cost nothing. A round ends when every ready task was polled. If only one user is active, nothing
//! waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::timer::now;

/// How long the turns of one user may take in a round.
const SHARE: Duration = Duration::from_micros(100);

/// How long they may take at once if the user had no turns for a while.
const CREDIT: Duration = Duration::from_millis(2);

/// The longest overdraft that a user has to make up for.
const DEBT: Duration = Duration::from_millis(20);

/// Several users are active if turns of two users were within this time of each other.
const RECENT: Duration = Duration::from_secs(10);

/// After this many rounds a connection that was called loses its turn to the next one, because its
/// task may never be polled again.
const GRACE: u64 = 64;

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
    waiting: Mutex<WaitingLines>,
}

#[derive(Debug, Default)]
struct WaitingLines {
    /// The lines in which connections wait.
    lines: Vec<Arc<Line>>,
    /// Whether a task begins the next round.
    goes_on: bool,
}

/// The connections of one user that wait for a turn.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<LineState>);

#[derive(Debug)]
struct LineState {
    /// The round of `balance`.
    round: u64,
    /// How long turns may still take, in nanoseconds.
    balance: i64,
    /// The connection whose turn it is, and the round since when it is.
    called: Option<(u64, u64)>,
    /// The connections behind it, in the order in which they came.
    behind: VecDeque<(u64, Waker)>,
    /// Whether it is among the lines of [`WaitingLines`].
    is_listed: bool,
}

impl Default for LineState {
    fn default() -> Self {
        let balance = nanos(CREDIT);
        Self { round: 0, balance, called: None, behind: VecDeque::new(), is_listed: false }
    }
}

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
    pub(super) fn note_turn(&self, number: u64, now: Instant) -> bool {
        let same = self.last.load(Ordering::Relaxed) == number;
        if same && self.shared_until.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.note(number, now)
    }

    #[cold]
    fn note(&self, number: u64, now: Instant) -> bool {
        let now = self.millis(now);
        let last = self.last.swap(number, Ordering::Relaxed);
        if last != 0 && last != number {
            let recent = u64::try_from(RECENT.as_millis()).unwrap_or(u64::MAX);
            self.shared_until.store(now + recent, Ordering::Relaxed);
            return true;
        }
        let is_shared = self.shared_until.load(Ordering::Relaxed) > now;
        if !is_shared {
            self.shared_until.store(0, Ordering::Relaxed);
        }
        is_shared
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns whether the user's connection `id` may have a turn now. Otherwise it stands in the line,
    /// and `waker` is woken for its turn.
    pub(super) fn enter(self: &Arc<Self>, line: &Arc<Line>, id: u64, waker: &Waker) -> bool {
        let mut state = line.in_round(self.round.load(Ordering::Relaxed));
        if state.called.is_some_and(|(called, _)| called == id) {
            state.called = None;
            return true;
        }
        if state.balance > 0 && state.called.is_none() && state.behind.is_empty() {
            return true;
        }
        match state.behind.iter_mut().find(|(other, _)| *other == id) {
            Some((_, known)) => known.clone_from(waker),
            None => state.behind.push_back((id, waker.clone())),
        }
        if std::mem::replace(&mut state.is_listed, true) {
            return false;
        }
        drop(state);
        if self.list(line) {
            // No lock is held: a runtime that shuts down drops the task at once.
            let mut task = RoundsTask { rounds: Arc::clone(self), goes_on: true };
            tokio::spawn(async move {
                while task.goes_on {
                    // This runs after all tasks that are ready, and those that the sockets make
                    // ready.
                    tokio::task::yield_now().await;
                    task.goes_on = task.rounds.begin_next(now());
                }
            });
        }
        false
    }

    /// Notes that connections wait in a line. Returns whether nothing begins rounds yet.
    fn list(&self, line: &Arc<Line>) -> bool {
        let mut waiting = self.lock();
        waiting.lines.push(Arc::clone(line));
        !std::mem::replace(&mut waiting.goes_on, true)
    }

    /// Notes how long a turn took. The next connection in the line gets its turn if there is time
    /// left.
    pub(super) fn end_turn(&self, line: &Line, time: Duration) {
        let mut state = line.in_round(self.round.load(Ordering::Relaxed));
        state.balance = state.balance.saturating_sub(nanos(time)).max(-nanos(DEBT));
        let called = state.call();
        drop(state);
        if let Some(waker) = called {
            waker.wake();
        }
    }

    /// Removes the connection `id` from the line.
    pub(super) fn forget(&self, line: &Line, id: u64) {
        let mut state = line.in_round(self.round.load(Ordering::Relaxed));
        state.behind.retain(|(other, _)| *other != id);
        if state.called.is_some_and(|(called, _)| called == id) {
            state.called = None;
        }
    }

    /// Begins the next round. Returns whether any connection still waits.
    fn begin_next(&self, now: Instant) -> bool {
        let round = self.round.fetch_add(1, Ordering::Relaxed) + 1;
        let is_shared = self.shared_until.load(Ordering::Relaxed) > self.millis(now);
        let mut wakers = Vec::new();
        let mut waiting = self.lock();
        waiting.lines.retain(|line| {
            let mut state = line.in_round(round);
            if is_shared {
                wakers.extend(state.call());
            } else {
                wakers.extend(state.call_all());
            }
            state.is_listed = !state.behind.is_empty();
            state.is_listed
        });
        waiting.goes_on = !waiting.lines.is_empty();
        let goes_on = waiting.goes_on;
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
        goes_on
    }

    /// Calls all that wait, because nothing begins rounds any more. One of them may start that again.
    fn stop(&self) {
        let lines = std::mem::take(&mut *self.lock()).lines;
        for line in lines {
            let mut state = line.in_round(self.round.load(Ordering::Relaxed));
            state.is_listed = false;
            let wakers: Vec<_> = state.call_all().collect();
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that begins rounds. Its runtime may drop it while connections wait, those of other runtimes
/// among them.
struct RoundsTask {
    rounds: Arc<Rounds>,
    goes_on: bool,
}

impl Drop for RoundsTask {
    fn drop(&mut self) {
        if self.goes_on {
            self.rounds.stop();
        }
    }
}

impl Line {
    fn in_round(&self, round: u64) -> MutexGuard<'_, LineState> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.round < round {
            let passed = i64::try_from(round - state.round).unwrap_or(i64::MAX);
            let more = passed.saturating_mul(nanos(SHARE));
            state.balance = state.balance.saturating_add(more).min(nanos(CREDIT));
            state.round = round;
        }
        state
    }
}

impl LineState {
    /// Calls the next connection if it may have a turn. Returns its waker.
    fn call(&mut self) -> Option<Waker> {
        let is_under_way = self.called.is_some_and(|(_, since)| since + GRACE > self.round);
        if self.balance <= 0 || is_under_way {
            return None;
        }
        let (id, waker) = self.behind.pop_front()?;
        self.called = Some((id, self.round));
        Some(waker)
    }

    /// Calls all connections. Returns their wakers.
    fn call_all(&mut self) -> impl Iterator<Item = Waker> {
        self.called = None;
        self.behind.drain(..).map(|(_, waker)| waker)
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use samehost_test_support::Wakes;

    use super::*;

    #[test]
    fn turns_are_shared_while_several_users_are_active() {
        let start = Instant::now();
        let rounds = Rounds::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!rounds.note_turn(1, at(0)));
        assert!(!rounds.note_turn(1, at(1)));
        assert!(rounds.note_turn(2, at(2)));
        assert!(rounds.note_turn(2, at(10_001)));
        assert!(!rounds.note_turn(2, at(10_002)), "it has been alone for long enough");
        assert!(rounds.note_turn(1, at(10_003)));
    }

    /// Returns the rounds of two active users, one of which has used up its time.
    fn shared() -> (Arc<Rounds>, Arc<Line>) {
        let start = now();
        let rounds = Arc::new(Rounds::new(start));
        assert!(!rounds.note_turn(1, start));
        assert!(rounds.note_turn(2, start));
        let line = Arc::<Line>::default();
        assert!(rounds.enter(&line, 1, Waker::noop()));
        rounds.end_turn(&line, CREDIT + SHARE);
        (rounds, line)
    }

    #[tokio::test]
    async fn a_user_that_has_taken_its_share_waits_for_the_next_round() {
        let (rounds, heavy) = shared();
        let light = Arc::<Line>::default();
        let enter = |line: &Arc<Line>, id| rounds.enter(line, id, Waker::noop());
        assert_eq!((enter(&heavy, 1), enter(&light, 9)), (false, true));
        // A long turn has to be made up for.
        let round = rounds.round.load(Ordering::Relaxed);
        rounds.end_turn(&heavy, SHARE * 3);
        while !enter(&heavy, 1) {
            tokio::task::yield_now().await;
        }
        assert!(rounds.round.load(Ordering::Relaxed) >= round + 4);
        // Time that it does not use is not kept for ever.
        while rounds.begin_next(now()) {}
        for _ in 0..1_000 {
            rounds.begin_next(now());
        }
        rounds.end_turn(&heavy, CREDIT);
        assert!(!enter(&heavy, 1));
    }

    #[tokio::test]
    async fn those_in_line_are_called_one_by_one_in_the_order_in_which_they_came() {
        let (rounds, line) = shared();
        let enter = |id| rounds.enter(&line, id, Waker::noop());
        assert_eq!([1, 2, 3, 4].map(enter), [false; 4]);
        for _ in 0..2 {
            rounds.begin_next(now());
        }
        assert_eq!([2, 3, 4].map(enter), [false; 3]);
        assert!(enter(1));
        // There is time left, so the next connection need not wait for another round.
        rounds.end_turn(&line, SHARE / 2);
        assert_eq!([3, 4, 2].map(enter), [false, false, true]);
        // A connection that has left is skipped. One that was called and is not polled does not
        // delay the others.
        rounds.forget(&line, 3);
        rounds.end_turn(&line, SHARE / 4);
        assert!(!enter(5));
        for _ in 0..GRACE {
            rounds.begin_next(now());
        }
        assert_eq!([4, 5].map(enter), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_any_more_when_one_user_alone_is_active() {
        let (rounds, line) = shared();
        assert_eq!([1, 2, 3].map(|id| rounds.enter(&line, id, Waker::noop())), [false; 3]);
        tokio::time::advance(RECENT).await;
        assert!(!rounds.begin_next(now()), "all are woken at once");
    }

    #[test]
    fn rounds_go_on_when_the_runtime_that_began_them_has_shut_down() {
        let (rounds, line) = shared();
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let wakes = Arc::new(Wakes::default());
            runtime.block_on(async {
                rounds.end_turn(&line, CREDIT);
                assert!(!rounds.enter(&line, 1, &wakes.waker()));
            });
            assert!(rounds.lock().goes_on);
            drop(runtime);
            assert_eq!((wakes.count(), rounds.lock().goes_on), (1, false));
        }
    }

    /// Asks for a turn when it is dropped.
    struct Late(Arc<Rounds>, Arc<Line>);

    impl Drop for Late {
        fn drop(&mut self) {
            assert!(!self.0.enter(&self.1, 1, Waker::noop()));
        }
    }

    #[test]
    fn a_runtime_that_shuts_down_begins_no_rounds_and_does_not_hang() {
        let (rounds, line) = shared();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let late = Late(Arc::clone(&rounds), line);
        runtime.spawn(async move {
            let _late = late;
            std::future::pending::<()>().await;
        });
        drop(runtime);
        assert!(!rounds.lock().goes_on);
    }
}
