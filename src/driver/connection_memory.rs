//! [`ConnectionMemory`]: a connection's part of a server's [`Memory`](super::memory::Memory), and how much may be
//! read of the connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::memory::User;
use super::timer::now;

/// Bytes are counted in steps of this size. Fewer bytes than one step are not counted.
const STEP: usize = 16 * 1024;

/// A connection that holds no more than this needs no permit: it is read a little at a time.
/// That much for all connections that one user may have is no more than the margin.
const LITTLE: usize = 4 * STEP;

/// How often a connection that is not read checks whether it may be read again.
const PRESSED_CHECK: Duration = Duration::from_millis(20);

/// How often a sleeping connection that holds something checks whether there is still room for it.
const CHECK: Duration = Duration::from_secs(1);

/// Calls that take fewer bytes than this do not make a connection check.
const MANY_CALLS: usize = 4 << 20;

/// How long a connection of a pressed user may be read without coming to hold less, while its peer has
/// to act.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same while only handlers can free what it holds, and no other connection is read.
const PATIENCE_WITH_HANDLERS: Duration = Duration::from_secs(60);

/// How long the connection with the permit may bring nothing before another one gets it.
const SILENCE: Duration = Duration::from_millis(20);

/// How long a connection keeps the permit while another one waits for it.
const SLICE: Duration = Duration::from_millis(100);

/// How much may be read of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As much as there is.
    Free,
    /// As much as there is, because the connection has the permit.
    Permitted,
    /// Little at a time, because the connection holds little.
    Little,
    /// Nothing for now.
    Not,
}

/// A connection's part of the memory. Dropping it gives the part back.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    user: Option<Arc<User>>,
    /// The number of this connection among the user's.
    id: u64,
    /// The counted bytes, in whole steps.
    counted: usize,
    /// Whether it checks from time to time that there is still room.
    checks: bool,
    /// Whether it is in a line: it waits for a permit, or has it.
    lined_up: bool,
    /// Whether it waits, although it holds little.
    waits_with_little: bool,
    /// Whether users share the turns of their tasks.
    shares_turns: bool,
    /// Whether it waits for such a turn.
    awaits_turn: bool,
    /// Since when this connection of a pressed user has not come to hold less. It counts only while
    /// the connection is read or has sent nothing.
    since: Option<Box<Instant>>,
    /// How much data was ever sent when `since` was last set back.
    sent: u64,
    permit: Option<Box<ReadPermit>>,
    /// Connections that may take the permit now. They are woken at the end of this task's turn, when
    /// no lock is held.
    called: Vec<Waker>,
}

/// The permit to be read, as long as a connection has it.
#[derive(Debug)]
struct ReadPermit {
    began: Instant,
    /// When something came last.
    last: Instant,
    /// How much the connection held when it got the permit.
    held: usize,
}

impl ConnectionMemory {
    /// Returns the memory of a connection. With `None` nothing is counted.
    pub(super) fn new(user: Option<Arc<User>>) -> Self {
        let id = user.as_ref().map_or(0, |user| user.memory.next.fetch_add(1, Ordering::Relaxed));
        Self {
            user,
            id,
            counted: 0,
            checks: false,
            lined_up: false,
            waits_with_little: false,
            shares_turns: false,
            awaits_turn: false,
            since: None,
            sent: 0,
            permit: None,
            called: Vec::new(),
        }
    }

    /// Sets how many bytes of data the connection holds at the end of a turn, and how many more its
    /// calls and tables take.
    #[inline]
    pub(super) fn set(&mut self, data: usize, calls: usize) {
        let bytes = data + calls;
        let steps = bytes - bytes % STEP;
        // Many connections with a few calls each need not all wake up to check.
        self.checks = data >= STEP || calls >= MANY_CALLS;
        if steps != self.counted {
            self.change(steps);
        }
    }

    #[cold]
    fn change(&mut self, steps: usize) {
        let Some(user) = &self.user else { return };
        if steps < self.counted {
            user.subtract(self.counted - steps);
            self.since = None;
        } else {
            user.add(steps - self.counted);
        }
        self.counted = steps;
        if steps <= LITTLE {
            self.leave();
        }
    }

    /// Notes how much data was ever sent. A large response is held whole until its peer has taken all of
    /// it, and a peer that takes it is not stuck.
    #[inline]
    pub(super) fn note_sent(&mut self, sent: u64) {
        if self.since.is_some() && sent >= self.sent + STEP as u64 {
            self.since = None;
            self.sent = sent;
        }
    }

    /// Returns whether the connection may have a turn of its task now. Otherwise it is woken for it.
    #[inline]
    pub(super) fn enter(&mut self, now: Instant, cx: &Context<'_>) -> bool {
        let Some(user) = &self.user else { return true };
        self.shares_turns = user.memory.rounds.note_turn(user.number, now);
        if self.shares_turns {
            self.awaits_turn = !user.memory.rounds.enter(&user.line, self.id, cx.waker());
            return !self.awaits_turn;
        }
        self.stop_waiting();
        true
    }

    /// Stops waiting for a turn of its task.
    #[inline]
    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.awaits_turn)
            && let Some(user) = &self.user
        {
            user.memory.rounds.forget(&user.line, self.id);
        }
    }

    /// Ends a turn of the task that began at `began`.
    #[inline]
    pub(super) fn exit(&mut self, began: Instant) {
        if !self.called.is_empty() {
            self.wake_called();
        }
        if let (true, Some(user)) = (self.shares_turns, &self.user) {
            user.memory.rounds.end_turn(&user.line, now().saturating_duration_since(began));
        }
    }

    #[cold]
    fn wake_called(&mut self) {
        std::mem::take(&mut self.called).into_iter().for_each(Waker::wake);
    }

    #[inline]
    pub(super) fn holds_nothing(&self) -> bool {
        self.counted == 0
    }

    /// Returns whether the connection may be read again, after it was not, because it holds little.
    #[inline]
    pub(super) fn is_readable_again(&self) -> bool {
        self.counted <= LITTLE && !self.waits_with_little
    }

    /// Returns whether the connection holds something and its user has to wait.
    #[inline]
    pub(super) fn is_pressed(&self) -> bool {
        self.counted > 0 && self.user.as_ref().is_some_and(|user| user.is_pressed())
    }

    /// Returns whether its user holds so much that the permit no longer goes round.
    pub(super) fn is_far_beyond(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.is_far_beyond())
    }

    /// Returns how much may be read of the connection. If that is nothing, the task is woken
    /// when it may be read again.
    #[inline]
    pub(super) fn reading(&mut self, now: Instant, cx: &Context<'_>) -> Reading {
        self.waits_with_little = false;
        let Some(user) = &self.user else { return Reading::Free };
        if !user.is_pressed() {
            if self.lined_up {
                self.leave();
            }
            self.since = None;
            return Reading::Free;
        }
        if self.counted > LITTLE {
            return self.reading_with_permit(now, cx);
        }
        self.since = None;
        self.waits_with_little = user.memory.is_beyond_margin();
        if self.waits_with_little { Reading::Not } else { Reading::Little }
    }

    #[cold]
    fn reading_with_permit(&mut self, now: Instant, cx: &Context<'_>) -> Reading {
        let Some(user) = &self.user else { return Reading::Free };
        if let Some(permit) = &self.permit {
            // If the user holds a quarter more than its share, the connection keeps the permit until
            // it holds less. The next connection would add more.
            let may_end = permit.held >= self.counted || !user.is_beyond();
            if permit.began + SLICE <= now && may_end && user.read_permits.is_wanted() {
                self.leave();
            }
        }
        let Some(user) = &self.user else { return Reading::Free };
        self.lined_up = true;
        if !user.read_permits.take(self.id, cx.waker()) {
            return Reading::Not;
        }
        if user.memory.is_beyond() && !user.memory.read_permits.take(self.id, cx.waker()) {
            return Reading::Not;
        }
        self.since.get_or_insert_with(|| Box::new(now));
        if self.permit.is_none() {
            self.permit = Some(Box::new(ReadPermit { began: now, last: now, held: self.counted }));
        }
        Reading::Permitted
    }

    /// Notes that something came while this connection has the permit.
    pub(super) fn found_something(&mut self, now: Instant) {
        if let Some(permit) = &mut self.permit {
            permit.last = now;
        }
    }

    /// Notes that there was nothing to read. Returns whether that has lasted so long that another
    /// request should get window, and then [`stalls`](Self::stalls) follows.
    pub(super) fn found_nothing(&mut self, now: Instant) -> bool {
        let Some(permit) = &mut self.permit else { return false };
        if now < permit.last + SILENCE {
            return false;
        }
        permit.last = now;
        true
    }

    /// Leaves the permit to another connection, unless the user holds a quarter more than it may and the
    /// peer of this one can still free memory (`waits_for_peer`): another connection could add much. If
    /// the user is far beyond, the permit always stays.
    pub(super) fn stalls(&mut self, waits_for_peer: impl FnOnce() -> bool) {
        let stays = |user: &User| user.is_beyond() && (user.is_far_beyond() || waits_for_peer());
        if !self.user.as_deref().is_some_and(stays) {
            self.leave();
        }
    }

    /// Notes that the connection is not read. `sent` means that the peer has sent something, so
    /// that nothing waits for the peer.
    pub(super) fn was_not_read(&mut self, now: Instant, sent: bool) {
        if sent {
            self.since = None;
        } else {
            self.since.get_or_insert_with(|| Box::new(now));
        }
    }

    /// Notes that so much time is not the peer's.
    pub(super) fn pass_over(&mut self, time: Duration) {
        if let Some(since) = &mut self.since {
            **since += time;
        }
    }

    /// Leaves the line, because nothing more is read, or because another connection may be read.
    #[inline]
    pub(super) fn leave(&mut self) {
        if self.lined_up {
            self.leave_lines();
        }
    }

    #[cold]
    fn leave_lines(&mut self) {
        self.lined_up = false;
        self.permit = None;
        if let Some(user) = &self.user {
            self.called.extend(user.memory.read_permits.leave(self.id));
            self.called.extend(user.read_permits.leave(self.id));
        }
    }

    /// Returns whether the connection has to be closed: there is no room, and it has held as much
    /// for too long. `waits_for_peer` tells whether the peer has to act. If only handlers can free what
    /// it holds, it is closed much later, and only because no other connection is read.
    pub(super) fn is_exhausted(
        &mut self,
        now: Instant,
        waits_for_peer: impl FnOnce() -> bool,
    ) -> bool {
        let Some(user) = &self.user else { return false };
        let Some(since) = self.since.as_deref().copied() else { return false };
        if !self.has_waited(now) || !self.is_pressed() {
            return false;
        }
        let is_read = self.permit.is_some();
        let (patience, exhausted) = match waits_for_peer() {
            true => (PATIENCE, user.memory.is_full() || is_read && user.is_beyond()),
            false => (PATIENCE_WITH_HANDLERS, is_read && user.is_far_beyond()),
        };
        if now < since + patience {
            return false;
        }
        if !exhausted {
            self.since = Some(Box::new(now));
        }
        exhausted
    }

    /// Returns whether it has held as much for so long that it may have to be closed.
    pub(super) fn has_waited(&self, now: Instant) -> bool {
        self.since.as_deref().is_some_and(|since| now >= *since + PATIENCE)
    }

    /// Returns when to check again.
    pub(super) fn next_check(&self, now: Instant) -> Option<Instant> {
        // The one that has the permit gives it back when it is woken: others wait for it.
        let pressed = self.waits_with_little || self.lined_up || self.is_pressed();
        (pressed || (self.counted > 0 && self.checks))
            .then(|| now + if pressed { PRESSED_CHECK } else { CHECK })
    }
}

impl Drop for ConnectionMemory {
    fn drop(&mut self) {
        self.stop_waiting();
        self.leave();
        self.wake_called();
        if let Some(user) = &self.user {
            user.subtract(self.counted);
            user.note_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use samehost_test_support::Wakes;

    use super::Reading::{Free, Little, Not, Permitted};
    use super::*;
    use crate::driver::memory::{MARGIN, Memory, Owner};

    const HEAVY: u32 = 4_200_000_001;
    const LIGHT: u32 = 4_200_000_002;

    fn connections<const N: usize>(memory: &Arc<Memory>, owner: Owner) -> [ConnectionMemory; N] {
        [(); N].map(|()| ConnectionMemory::new(Some(memory.user(owner))))
    }

    fn reading(connection: &mut ConnectionMemory, now: Instant) -> Reading {
        connection.reading(now, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_user_who_holds_more_than_its_share_waits_and_nobody_else() {
        let now = Instant::now();
        let memory = Memory::new(100 * STEP, 25 * STEP);
        let mut heavy = connections::<3>(&memory, Owner::Uid(HEAVY));
        let [mut light] = connections::<1>(&memory, Owner::Uid(LIGHT));
        heavy[0].set(20 * STEP, 0);
        heavy[1].set(10 * STEP, 0);
        let of_heavy =
            |heavy: &mut [ConnectionMemory; 3]| heavy.each_mut().map(|it| reading(it, now));
        assert_eq!(of_heavy(&mut heavy), [Free; 3], "nobody else holds anything");
        light.set(2 * STEP - 1, 0);
        assert_eq!(of_heavy(&mut heavy), [Permitted, Not, Little]);
        assert_eq!(reading(&mut light, now), Free);
        assert_eq!(heavy[1].next_check(now), Some(now + PRESSED_CHECK));
        heavy[0].set(15 * STEP, 0);
        assert_eq!(of_heavy(&mut heavy), [Free; 3], "exactly its share");
        // The server's own user has no limit of its own.
        let [mut own] = connections::<1>(&memory, Owner::Server);
        own.set(70 * STEP, 0);
        assert_eq!(reading(&mut own, now), Free);
        drop((heavy, light, own));
        assert_eq!(memory.held(), 0);
        assert_eq!(memory.holders.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn beyond_the_margin_those_that_hold_little_wait_too() {
        let now = Instant::now();
        let memory = Memory::new(4 * MARGIN, MARGIN);
        let mut heavy = connections::<2>(&memory, Owner::Uid(HEAVY));
        let [mut light] = connections::<1>(&memory, Owner::Uid(LIGHT));
        let mut read = |held| {
            heavy[0].set(held, 0);
            let [_, empty] = &mut heavy;
            let reading = (reading(empty, now), reading(&mut light, now));
            (reading, empty.next_check(now), empty.is_readable_again())
        };
        assert_eq!(read(6 * MARGIN), ((Little, Free), None, true));
        let check = Some(now + PRESSED_CHECK);
        assert_eq!(read(6 * MARGIN + STEP), ((Not, Free), check, false));
        assert_eq!(read(6 * MARGIN), ((Little, Free), None, true));
        drop((heavy, light));

        // While it waits, its peer is not late.
        let mut own = connections::<2>(&memory, Owner::Server);
        own[0].set(6 * MARGIN, 0);
        let [full, empty] = &mut own;
        full.set(5 * MARGIN + STEP, 0);
        assert_eq!(reading(empty, now), Little);
        full.set(6 * MARGIN + STEP, 0);
        assert_eq!(reading(empty, now), Not);
        empty.was_not_read(now, false);
        full.set(5 * MARGIN + STEP, 0);
        let later = now + PATIENCE;
        assert_eq!(reading(empty, later), Little);
        empty.set(STEP, 0);
        assert!(!empty.is_exhausted(later, || true));
    }

    #[test]
    fn one_that_holds_little_needs_no_permit() {
        let now = Instant::now();
        let memory = Memory::new(40 * STEP, 40 * STEP);
        let [mut heavy, mut light] = connections::<2>(&memory, Owner::Server);
        heavy.set(60 * STEP, 0);
        light.set(LITTLE + STEP, 0);
        assert_eq!((reading(&mut heavy, now), reading(&mut light, now)), (Permitted, Not));
        light.set(LITTLE, 0);
        assert!(light.is_readable_again());
        assert_eq!(reading(&mut light, now), Little);
        assert_eq!(light.next_check(now), Some(now + PRESSED_CHECK));
        assert!(!memory.read_permits.is_wanted(), "it has left the line");
    }

    #[test]
    fn the_next_one_is_woken_only_at_the_end_of_the_turn() {
        let now = Instant::now();
        let memory = Memory::new(40 * STEP, 40 * STEP);
        let [mut first, mut next] = connections::<2>(&memory, Owner::Server);
        first.set(60 * STEP, 0);
        next.set(LITTLE + STEP, 0);
        assert_eq!(reading(&mut first, now), Permitted);
        let wakes = Arc::new(Wakes::default());
        assert_eq!(next.reading(now, &Context::from_waker(&wakes.waker())), Not);
        // The connection's lock is held now.
        first.set(0, 0);
        assert_eq!(wakes.count(), 0);
        first.exit(now);
        assert_eq!(wakes.count(), 1);
    }

    #[test]
    fn one_that_has_the_permit_is_woken_to_give_it_back() {
        let now = Instant::now();
        let memory = Memory::new(40 * STEP, 40 * STEP);
        let [mut first, mut other] = connections::<2>(&memory, Owner::Server);
        first.set(LITTLE + STEP, 0);
        other.set(60 * STEP, 0);
        assert_eq!(reading(&mut first, now), Permitted);
        // Nothing is short any more. The connection has no data that it would check for.
        other.set(10 * STEP, 0);
        first.set(0, LITTLE + STEP);
        assert_eq!(first.next_check(now), Some(now + PRESSED_CHECK));
        other.set(60 * STEP, 0);
        assert_eq!(reading(&mut other, now), Not);
        other.set(10 * STEP, 0);
        assert_eq!(reading(&mut first, now), Free);
        other.set(60 * STEP, 0);
        assert_eq!(reading(&mut other, now), Permitted);
    }

    #[test]
    fn when_all_is_taken_those_wait_who_have_more_than_their_part() {
        let now = Instant::now();
        let memory = Memory::new(100 * STEP, 100 * STEP);
        let [mut own, mut other] = connections::<2>(&memory, Owner::Server);
        let [mut light] = connections::<1>(&memory, Owner::Uid(LIGHT));
        own.set(86 * STEP, 0);
        other.set(LITTLE + STEP, 0);
        light.set(10 * STEP, 0);
        assert_eq!(reading(&mut own, now), Permitted);
        assert_eq!((reading(&mut other, now), reading(&mut light, now)), (Not, Free));
        // The only user of a server waits too.
        light.set(0, 0);
        own.set(101 * STEP, 0);
        assert_eq!((reading(&mut own, now), reading(&mut other, now)), (Permitted, Not));
    }

    #[test]
    fn the_permit_goes_round_when_nothing_comes_or_after_a_while() {
        let start = Instant::now();
        let memory = Memory::new(40 * STEP, 40 * STEP);
        let mut connections = connections::<3>(&memory, Owner::Server);
        connections.iter_mut().for_each(|connection| connection.set(14 * STEP, 0));
        let read = |connections: &mut [ConnectionMemory; 3], now| {
            connections.each_mut().map(|it| reading(it, now))
        };
        assert_eq!(read(&mut connections, start), [Permitted, Not, Not]);
        assert!(!connections[0].found_nothing(start + SILENCE / 2));
        assert!(connections[0].found_nothing(start + SILENCE), "for so long");
        connections[0].stalls(|| true);
        assert_eq!(read(&mut connections, start + SILENCE), [Not, Permitted, Not]);
        // It stays longer if something comes, but only for a limited time.
        let soon = start + SILENCE + SILENCE / 2;
        connections[1].found_something(soon);
        assert!(!connections[1].found_nothing(start + 2 * SILENCE));
        assert_eq!(read(&mut connections, start + SILENCE + SLICE), [Not, Not, Permitted]);
        // A connection that holds nothing any more leaves the permit to the next one.
        connections[2].set(0, 0);
        connections[0].set(30 * STEP, 0);
        let now = start + SILENCE + SLICE;
        assert_eq!(reading(&mut connections[2], now), Little);
        connections[2].leave();
        assert_eq!(reading(&mut connections[0], now), Permitted);
    }

    #[test]
    fn beyond_one_that_waits_for_its_peer_stays_the_only_one_until_it_holds_less() {
        let start = Instant::now();
        let memory = Memory::new(40 * STEP, 40 * STEP);
        let mut connections = connections::<2>(&memory, Owner::Server);
        connections.iter_mut().for_each(|connection| connection.set(26 * STEP, 0));
        assert_eq!(reading(&mut connections[0], start), Permitted);
        connections[0].set(27 * STEP, 0);
        assert!(connections[0].found_nothing(start + SILENCE));
        connections[0].stalls(|| true);
        let later = start + 2 * SLICE;
        assert_eq!(connections.each_mut().map(|it| reading(it, later)), [Permitted, Not]);
        connections[0].set(26 * STEP, 0);
        assert_eq!(connections.each_mut().map(|it| reading(it, later)), [Not, Permitted]);
    }

    #[test]
    fn one_that_waits_only_for_handlers_leaves_its_permit_until_the_user_is_far_beyond() {
        let start = Instant::now();
        let memory = Memory::new(4 * MARGIN, 4 * MARGIN);
        let mut connections = connections::<2>(&memory, Owner::Server);
        let [waits, other] = &mut connections;
        // Exactly as far as the permit goes round.
        waits.set(5 * MARGIN, 0);
        other.set(MARGIN / 2, 0);
        assert_eq!((reading(waits, start), reading(other, start)), (Permitted, Not));
        waits.stalls(|| false);
        assert_eq!((reading(waits, start), reading(other, start)), (Not, Permitted));
        other.stalls(|| false);
        waits.set(5 * MARGIN + STEP, 0);
        assert_eq!((reading(waits, start), reading(other, start)), (Permitted, Not));
        waits.stalls(|| false);
        assert_eq!((reading(waits, start), reading(other, start)), (Permitted, Not));

        // Far beyond, it holds up all others, and is closed in the end.
        let later = start + PATIENCE_WITH_HANDLERS;
        assert!(!waits.is_exhausted(start + PATIENCE, || false), "its peer has done its part");
        assert!(!waits.is_exhausted(later - SILENCE, || false));
        assert!(waits.is_exhausted(later, || false));
        waits.set(5 * MARGIN, 0);
        assert_eq!(reading(waits, start), Permitted);
        assert!(!waits.is_exhausted(later, || false), "others are read");
    }

    #[test]
    fn only_one_that_is_read_and_holds_on_to_all_is_closed() {
        let start = Instant::now();
        let memory = Memory::new(40 * STEP, 40 * STEP);
        let [mut stuck, mut unread, mut silent] = connections::<3>(&memory, Owner::Server);
        for connection in [&mut stuck, &mut unread, &mut silent] {
            connection.set(20 * STEP, 0);
        }
        let later = start + PATIENCE;
        assert_eq!(reading(&mut stuck, start), Permitted);
        for now in [start, later] {
            assert_eq!(reading(&mut unread, now), Not);
            unread.was_not_read(now, true);
            assert_eq!(reading(&mut silent, now), Not);
            silent.was_not_read(now, false);
        }
        assert!(!stuck.is_exhausted(later - SILENCE, || true), "it has time");
        assert!(!unread.is_exhausted(later, || true), "it was not read");
        assert!(!silent.is_exhausted(later, || false), "the peer has done its part");
        silent.was_not_read(start, false);
        assert!(silent.is_exhausted(later + PATIENCE, || true), "there was nothing to read");
        // Holding more is not progress. Holding less is.
        stuck.set(30 * STEP, 0);
        assert!(stuck.is_exhausted(later, || true));
        stuck.note_sent(STEP as u64 - 1);
        assert!(stuck.is_exhausted(later, || true));
        stuck.note_sent(STEP as u64);
        assert!(!stuck.is_exhausted(later, || true), "it takes what is sent");
        assert_eq!(reading(&mut stuck, start), Permitted);
        assert!(stuck.is_exhausted(later, || true));
        stuck.set(20 * STEP, 0);
        assert!(!stuck.is_exhausted(later, || true));
        // With room for all, no connection is closed.
        stuck.set(0, 0);
        assert!(!silent.is_exhausted(later + 2 * PATIENCE, || true));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let now = Instant::now();
        let mut connection = ConnectionMemory::new(None);
        connection.set(usize::MAX, 0);
        assert_eq!(reading(&mut connection, now), Free);
        assert_eq!((connection.next_check(now), connection.is_pressed()), (None, false));
    }
}
