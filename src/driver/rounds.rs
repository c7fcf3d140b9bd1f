//! [`Rounds`]: the order of turns while connections of several users have work.
//!
//! The runtime polls tasks in the order in which they became ready. So a user with many connections
//! would get as many turns before another user gets one. Therefore, while several users are active,
//! their turns come in rounds. Each round adds [`SHARE`] to a user's balance, up to [`CREDIT`], and the
//! user's turns take their time from it. While the balance is used up, the user's connections wait in
//! a line, and are woken one by one: a long turn delays its user's next turns, and connections that wait
//! cost nothing. A round ends when every ready task was polled. If only one user is active, nothing
//! waits.
//!
//! A call of another user needs several turns, and its client works between them. A turn that cannot be cut
//! short, as one that decompresses a message, would begin in each of these gaps. So after a turn of more than
//! [`LONG`] its user rests as long as the turn took, while another user has had a turn just before.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::timer::now;

/// How long the turns of one user may take in a round.
const SHARE: Duration = Duration::from_micros(100);

/// How long they may take at once if the user had no turns for a while.
const CREDIT: Duration = Duration::from_millis(2);

/// The longest overdraft that a user has to make up for.
const DEBT: Duration = Duration::from_millis(20);

/// A user rests after a turn that takes longer than this, and than it had left.
const LONG: Duration = Duration::from_millis(1);

/// A user rests only while another user had a turn within this time.
const GAP: Duration = Duration::from_millis(20);

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
    /// When that was, in microseconds since the beginning.
    last_at: AtomicU64,
    /// When a user before that one had its last turn, likewise.
    before_at: AtomicU64,
    /// Until when several users count as active, in milliseconds since the beginning, or 0 if only
    /// one is.
    shared_until: AtomicU64,
    /// The number of the round.
    round: AtomicU64,
    waiting: Mutex<WaitingLines>,
    /// Wakes the task that begins the rounds, when a line waits that need not rest.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct WaitingLines {
    /// The lines in which connections wait.
    lines: Vec<Arc<Line>>,
    /// Whether a task begins the next round.
    goes_on: bool,
}

/// What follows a round.
#[derive(Debug, PartialEq, Eq)]
enum AfterRound {
    Round,
    /// All lines that wait belong to users that rest. The first of them rests until then.
    Rest(Instant),
    /// No line waits.
    End,
}

/// The connections of one user that wait for a turn.
#[derive(Debug)]
pub(super) struct Line {
    /// The number of the user.
    user: u64,
    waiters: Mutex<LineState>,
}

#[derive(Debug)]
struct LineState {
    /// The round of `balance`.
    round: u64,
    /// How long turns may still take, in nanoseconds.
    balance: i64,
    /// Until when the user rests while others are active.
    rests_until: Option<Instant>,
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
        let (called, behind, rests_until) = (None, VecDeque::new(), None);
        Self { round: 0, balance, rests_until, called, behind, is_listed: false }
    }
}

impl Rounds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            last: AtomicU64::new(0),
            last_at: AtomicU64::new(0),
            before_at: AtomicU64::new(0),
            shared_until: AtomicU64::new(0),
            round: AtomicU64::new(1),
            waiting: Mutex::default(),
            wanted: Notify::new(),
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
        let micros = self.micros(now);
        let last = self.last.swap(number, Ordering::Relaxed);
        let last_at = self.last_at.swap(micros, Ordering::Relaxed);
        if last != number {
            self.before_at.store(last_at, Ordering::Relaxed);
        }
        let now = micros / 1_000;
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

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns whether another user than `number` had a turn just before.
    fn is_another_active(&self, number: u64, now: Instant) -> bool {
        let is_last = self.last.load(Ordering::Relaxed) == number;
        let at = if is_last { &self.before_at } else { &self.last_at };
        let gap = u64::try_from(GAP.as_micros()).unwrap_or(u64::MAX);
        self.micros(now).saturating_sub(at.load(Ordering::Relaxed)) < gap
    }

    /// Returns until when the user of a line rests, if it does.
    fn rest(&self, line: &Line, waiters: &mut LineState, now: Instant) -> Option<Instant> {
        let until = waiters.rests_until?;
        if until <= now || !self.is_another_active(line.user, now) {
            waiters.rests_until = None;
        }
        waiters.rests_until
    }

    /// Returns whether the user's connection `id` may have a turn now. Otherwise it stands in the line,
    /// and `waker` is woken for its turn.
    pub(super) fn enter(
        self: &Arc<Self>,
        line: &Arc<Line>,
        id: u64,
        now: Instant,
        waker: &Waker,
    ) -> bool {
        let mut waiters = line.in_round(self.round.load(Ordering::Relaxed));
        if waiters.called.is_some_and(|(called, _)| called == id) {
            waiters.called = None;
            return true;
        }
        let rests = self.rest(line, &mut waiters, now).is_some();
        if !rests && waiters.may_begin() && waiters.behind.is_empty() {
            return true;
        }
        match waiters.behind.iter_mut().find(|(other, _)| *other == id) {
            Some((_, known)) => known.clone_from(waker),
            None => waiters.behind.push_back((id, waker.clone())),
        }
        if std::mem::replace(&mut waiters.is_listed, true) {
            return false;
        }
        drop(waiters);
        let mut waiting = self.lock();
        waiting.lines.push(Arc::clone(line));
        if std::mem::replace(&mut waiting.goes_on, true) {
            self.wanted.notify_one();
        } else {
            tokio::spawn(Arc::clone(self).go_on());
        }
        false
    }

    /// Begins rounds until no connection waits.
    async fn go_on(self: Arc<Self>) {
        loop {
            // This runs after all tasks that are ready, and those that the sockets make ready.
            tokio::task::yield_now().await;
            match self.begin_next(now()) {
                AfterRound::Round => {}
                AfterRound::Rest(until) => {
                    // It fails when the time is over.
                    let _ = timeout_at(until.into(), self.wanted.notified()).await;
                }
                AfterRound::End => break,
            }
        }
    }

    /// Notes how long a turn took that ends now. The next connection in the line gets its turn if there
    /// is time left.
    pub(super) fn leave(&self, line: &Line, now: Instant, time: Duration) {
        let mut waiters = line.in_round(self.round.load(Ordering::Relaxed));
        waiters.balance = waiters.balance.saturating_sub(nanos(time)).max(-nanos(DEBT));
        if time > LONG && waiters.balance <= 0 {
            waiters.rests_until = Some(now + time.min(DEBT));
        }
        let called = match self.rest(line, &mut waiters, now) {
            None => waiters.call(),
            Some(_) => None,
        };
        drop(waiters);
        if let Some(waker) = called {
            waker.wake();
        }
    }

    /// Removes the connection `id` from the line.
    pub(super) fn forget(&self, line: &Line, id: u64) {
        let mut waiters = line.in_round(self.round.load(Ordering::Relaxed));
        waiters.behind.retain(|(other, _)| *other != id);
        if waiters.called.is_some_and(|(called, _)| called == id) {
            waiters.called = None;
        }
    }

    /// Begins the next round.
    fn begin_next(&self, now: Instant) -> AfterRound {
        let round = self.round.fetch_add(1, Ordering::Relaxed) + 1;
        let is_shared = self.shared_until.load(Ordering::Relaxed) > self.micros(now) / 1_000;
        let mut wakers = Vec::new();
        let mut rest = None;
        let mut waiting = self.lock();
        waiting.lines.retain(|line| {
            let mut waiters = line.in_round(round);
            if !is_shared {
                waiters.called = None;
                wakers.extend(waiters.behind.drain(..).map(|(_, waker)| waker));
            }
            let rests = self.rest(line, &mut waiters, now);
            if rests.is_none() {
                wakers.extend(waiters.call());
            }
            waiters.is_listed = !waiters.behind.is_empty();
            if waiters.is_listed {
                // A line that need not rest is due at once.
                rest = Some(rest.unwrap_or(now + DEBT).min(rests.unwrap_or(now)));
            }
            waiters.is_listed
        });
        waiting.goes_on = !waiting.lines.is_empty();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
        match rest {
            None => AfterRound::End,
            Some(until) if until > now => AfterRound::Rest(until),
            Some(_) => AfterRound::Round,
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Returns the line of the user with this number.
    pub(super) fn new(user: u64) -> Self {
        Self { user, waiters: Mutex::default() }
    }

    fn in_round(&self, round: u64) -> MutexGuard<'_, LineState> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if waiters.round < round {
            let passed = i64::try_from(round - waiters.round).unwrap_or(i64::MAX);
            let more = passed.saturating_mul(nanos(SHARE));
            waiters.balance = waiters.balance.saturating_add(more).min(nanos(CREDIT));
            waiters.round = round;
        }
        waiters
    }
}

impl LineState {
    /// Returns whether there is time left, and no connection is about to have its turn.
    fn may_begin(&self) -> bool {
        self.balance > 0 && self.called.is_none()
    }

    /// Calls the next connection if it may have a turn. Returns its waker.
    fn call(&mut self) -> Option<Waker> {
        if self.called.is_some_and(|(_, since)| since + GRACE <= self.round) {
            self.called = None;
        }
        if !self.may_begin() {
            return None;
        }
        let (id, waker) = self.behind.pop_front()?;
        self.called = Some((id, self.round));
        Some(waker)
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
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
        assert!(rounds.are_shared(2, at(10_001)));
        assert!(!rounds.are_shared(2, at(10_002)), "it has been alone for long enough");
        assert!(rounds.are_shared(1, at(10_003)));
    }

    /// Returns the rounds of two active users, one of which has used up its time.
    fn shared() -> (Arc<Rounds>, Arc<Line>) {
        let start = now();
        let rounds = Arc::new(Rounds::new(start));
        assert!(!rounds.are_shared(1, start));
        assert!(rounds.are_shared(2, start));
        let line = Arc::new(Line::new(1));
        assert!(rounds.enter(&line, 1, start, Waker::noop()));
        // No turn was long.
        for time in [CREDIT / 2, CREDIT / 2, SHARE] {
            rounds.leave(&line, start, time);
        }
        (rounds, line)
    }

    #[tokio::test]
    async fn a_user_that_has_taken_its_share_waits_for_the_next_round() {
        let (rounds, heavy) = shared();
        let light = Arc::new(Line::new(2));
        let enter = |line: &Arc<Line>, id| rounds.enter(line, id, now(), Waker::noop());
        assert_eq!((enter(&heavy, 1), enter(&light, 9)), (false, true));
        // A long turn has to be made up for.
        let round = rounds.round.load(Ordering::Relaxed);
        rounds.leave(&heavy, now(), SHARE * 3);
        while !enter(&heavy, 1) {
            tokio::task::yield_now().await;
        }
        assert!(rounds.round.load(Ordering::Relaxed) >= round + 4);
        // Time that it does not use is not kept for ever.
        while rounds.begin_next(now()) != AfterRound::End {}
        for _ in 0..1_000 {
            rounds.begin_next(now());
        }
        rounds.leave(&heavy, now(), CREDIT);
        assert!(!enter(&heavy, 1));
    }

    #[tokio::test]
    async fn those_in_line_are_called_one_by_one_in_the_order_in_which_they_came() {
        let (rounds, line) = shared();
        let enter = |id| rounds.enter(&line, id, now(), Waker::noop());
        assert_eq!([1, 2, 3, 4].map(enter), [false; 4]);
        for _ in 0..2 {
            rounds.begin_next(now());
        }
        assert_eq!([2, 3, 4].map(enter), [false; 3]);
        assert!(enter(1));
        // There is time left, so the next connection need not wait for another round.
        rounds.leave(&line, now(), SHARE / 2);
        assert_eq!([3, 4, 2].map(enter), [false, false, true]);
        // A connection that has left is skipped. One that was called and is not polled does not
        // delay the others.
        rounds.forget(&line, 3);
        rounds.leave(&line, now(), SHARE / 4);
        assert!(!enter(5));
        for _ in 0..GRACE {
            rounds.begin_next(now());
        }
        assert_eq!([4, 5].map(enter), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_any_more_when_one_user_alone_is_active() {
        let (rounds, line) = shared();
        assert_eq!([1, 2, 3].map(|id| rounds.enter(&line, id, now(), Waker::noop())), [false; 3]);
        tokio::time::advance(RECENT).await;
        assert_eq!(rounds.begin_next(now()), AfterRound::End, "all are woken at once");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_long_turn_a_user_rests_while_another_one_is_active() {
        const TURN: Duration = Duration::from_millis(8);
        let (rounds, heavy) = shared();
        let enter = || rounds.enter(&heavy, 1, now(), Waker::noop());
        let began = now();
        rounds.leave(&heavy, began, TURN);
        while !enter() {
            rounds.are_shared(2, now());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(now() >= began + TURN);
        // The gaps of a user that makes no calls belong to others.
        rounds.leave(&heavy, now(), TURN);
        tokio::time::sleep(GAP).await;
        rounds.leave(&heavy, now(), TURN);
        let began = now();
        while !enter() {
            tokio::task::yield_now().await;
        }
        assert_eq!(now(), began);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_holds_up_no_other_line() {
        let (rounds, heavy) = shared();
        rounds.leave(&heavy, now(), DEBT);
        let began = now();
        assert!(!rounds.enter(&heavy, 1, began, Waker::noop()));
        // Until it sleeps.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let light = Arc::new(Line::new(2));
        rounds.leave(&light, began, CREDIT);
        rounds.are_shared(1, began);
        rounds.are_shared(2, began);
        light.in_round(0).rests_until = None;
        while !rounds.enter(&light, 2, now(), Waker::noop()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(now(), began);
    }
}
