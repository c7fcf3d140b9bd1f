//! [`ConnectionTask`]: the task that drives one connection. Each turn reads what is there, hands out the
//! events, lets a server's handlers run and writes what has gathered, and then decides: another turn,
//! sleep, or the end.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::busy_poll::{BusyPoll, Spin};
use super::closing::Linger;
use super::connection_memory::{ConnectionMemory, Reading};
use super::duties::Duties;
use super::error::CloseReason;
use super::output;
use super::output_limit::OutputLimit;
use super::reader::{ReadOutcome, Reader};
use super::shared::{Shared, State};
use super::socket::{Socket, Unread};
use super::spare::trim;
use super::timer::{Timer, now};
use super::turn::{AfterTurn, DriverPhase, Turn};
use super::waking::SelfWaker;
use super::writing::{self, Written};
use crate::http2::{ErrorCode, Notice, ReceiveOutcome};
use crate::runtime::has_several_threads;

/// The largest number of bytes that one turn writes.
const WRITE: usize = 1024 * 1024;

pub(super) struct ConnectionTask<T, R> {
    pub(super) io: T,
    pub(super) duties: R,
    memory: ConnectionMemory,
    pub(super) reader: Reader,
    pub(super) timer: Timer,
    pub(super) phase: DriverPhase,
    /// How long the socket stays open if this end has ended the connection.
    pub(super) linger: Option<Linger>,
    /// Whether events are left from the last turn.
    events_left: bool,
    /// A turn takes the number of calls in flight divided by this, see [`Duties::CALLS_PER_TAKEN`].
    calls_per_taken: u8,
    /// How many calls a turn takes, see [`State::batch`]. It stays the same until no events are left:
    /// half of the calls that are left would be fewer with each turn.
    batch: u8,
    /// Whether whole frames may be left from the last turn in the read buffer.
    pub(super) unparsed: bool,
    /// Whether the last turn did not write, so that other tasks could add to the outgoing bytes.
    lingered: bool,
    /// Whether callers and handlers may run on other threads of the runtime.
    parallel: bool,
    waker: SelfWaker,
    pub(super) wakes: Vec<Waker>,
}

impl<T, R> ConnectionTask<T, R>
where
    T: Socket,
    R: Duties,
{
    pub(super) fn new(
        io: T,
        duties: R,
        memory: ConnectionMemory,
        busy_poll: Option<BusyPoll>,
    ) -> Self {
        let busy_poll = busy_poll.filter(|_| T::HAS_DESCRIPTOR);
        let calls_per_taken = match (io.shares_one_cpu(), busy_poll) {
            // The ends never work at the same time.
            (true, _) => 1,
            // An end that does not sleep starts at once when something comes. With fewer calls at a
            // time it would only make more system calls.
            (false, Some(_)) => R::CALLS_PER_TAKEN / 2,
            (false, None) => R::CALLS_PER_TAKEN,
        };
        Self {
            io,
            duties,
            memory,
            reader: Reader::new(busy_poll.map(|busy_poll| Spin::new(busy_poll, now()))),
            timer: Timer::default(),
            phase: DriverPhase::Open,
            linger: None,
            events_left: false,
            calls_per_taken,
            batch: 1,
            unparsed: false,
            lingered: false,
            parallel: has_several_threads(),
            waker: SelfWaker::new(T::HAS_DESCRIPTOR),
            wakes: Vec::new(),
        }
    }

    /// Runs one turn. It is ready when the connection has ended and everything is written.
    pub(super) fn poll(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let began = now();
        if !self.memory.enter(began, cx) {
            return Poll::Pending;
        }
        let polled = self.turn(shared, cx, began);
        self.memory.exit(began);
        polled
    }

    fn turn(
        &mut self,
        shared: &Arc<Shared>,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<CloseReason> {
        let mut turn = self.begin(cx, now);
        let input = self.read(cx, &mut turn);
        let mut state = shared.lock();
        if self.is_idle(&state, &turn, &input) {
            self.reader.note_sent(state.h2.written(), turn.now);
            drop(state);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        state.driver.wakes_up();
        state.less_held = false;
        output::lend(&mut state.h2);
        self.receive(&mut state, input, cx, &mut turn);
        self.expire(&mut state, &turn);
        let held_up = turn.output_limit.is_exceeded(&state);
        self.dispatch(&mut state, held_up);
        self.notice_failure(&mut state);
        if !held_up {
            state = self.run_handlers(state, shared, turn.output_limit);
            self.events_left |= state.h2.whole_requests() > 0;
        }
        let mut state = self.write(cx, state, shared, &mut turn);
        self.count_memory(&mut state, shared, &mut turn);
        match self.decide(&mut state, &turn) {
            AfterTurn::Again => {
                let only_one = state.h2.active_streams() == 1;
                self.unlock_and_wake(state);
                self.waker.wake(cx, self.parallel && only_one);
                Poll::Pending
            }
            AfterTurn::Sleep => {
                state.driver.sleep(cx.waker());
                self.trim(&mut state);
                self.set_timer(&mut state, turn.now);
                self.unlock_and_wake(state);
                if self.memory.holds_nothing() || self.phase != DriverPhase::Open {
                    self.memory.leave();
                }
                self.timer.arm(cx);
                Poll::Pending
            }
            AfterTurn::Done(close_reason) => {
                // `close` wakes them, without the lock.
                self.wakes.append(&mut state.wakes);
                state.driver.ends();
                Poll::Ready(close_reason)
            }
        }
    }

    // ---- The steps of a turn, in their order -------------------------------------------------

    fn begin(&mut self, cx: &Context<'_>, now: Instant) -> Turn {
        let is_open = self.phase == DriverPhase::Open;
        let reading = if is_open { self.memory.reading(now, cx) } else { Reading::Not };
        // A connection that is not open is not read for another reason than memory.
        let limit = OutputLimit::new(is_open && reading != Reading::Free);
        Turn::new(now, reading, limit, reading != Reading::Not && self.reader.spins(now))
    }

    #[inline]
    fn read(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> ReadOutcome {
        if self.events_left {
            // The events of the last turn come before anything that is read now, such as the end of the stream.
            turn.more = true;
            turn.continues = true;
            return ReadOutcome::Nothing;
        }
        if self.is_postponed(turn) {
            return self.leave_unread(cx, turn);
        }
        if self.unparsed {
            // The read that brought these may have left more, and then nothing wakes the task.
            turn.more = true;
            return ReadOutcome::Bytes;
        }
        if self.phase == DriverPhase::HalfClosed {
            return match self.io.poll_hang_up(cx) {
                Poll::Ready(()) => ReadOutcome::End,
                Poll::Pending => ReadOutcome::Nothing,
            };
        }
        if !turn.may_read() {
            return ReadOutcome::Nothing;
        }
        let input = self.reader.read(&mut self.io, cx, turn.spins, turn.reading);
        turn.more = self.reader.has_more();
        match input {
            ReadOutcome::Nothing => turn.stalls = self.memory.found_nothing(turn.now),
            _ => self.memory.found_something(turn.now),
        }
        input
    }

    /// Returns whether memory is short, and it is not this connection's turn: then nothing is read or parsed.
    #[inline]
    fn is_postponed(&self, turn: &Turn) -> bool {
        !turn.may_read() && self.phase == DriverPhase::Open
    }

    /// Only checks whether there is something to read or to parse. If there is, the peer is not late:
    /// this end does not read.
    #[cold]
    fn leave_unread(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> ReadOutcome {
        // A read would flush what a stream keeps of the responses.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.io).poll_flush(cx) {
            return ReadOutcome::Failed(error);
        }
        turn.unread = self.unparsed;
        match self.io.unread() {
            // A client that has only closed its writing side gets responses to what is not parsed yet.
            Unread::End if self.unparsed && self.io.poll_hang_up(cx).is_pending() => {}
            Unread::End => return ReadOutcome::End,
            Unread::Bytes => turn.unread = true,
            Unread::Nothing => {}
        }
        self.memory.was_not_read(turn.now, turn.unread);
        ReadOutcome::Nothing
    }

    /// Returns whether busy polling has found nothing, and there is nothing else to do.
    fn is_idle(&self, state: &State, turn: &Turn, input: &ReadOutcome) -> bool {
        turn.spins
            && !turn.more
            && matches!(input, ReadOutcome::Nothing)
            && !self.timer.is_due(turn.now)
            && !state.has_work()
            && !self.duties.has_requests(state)
    }

    fn receive(
        &mut self,
        state: &mut State,
        input: ReadOutcome,
        cx: &mut Context<'_>,
        turn: &mut Turn,
    ) {
        match input {
            ReadOutcome::Bytes => {
                self.receive_sets(state);
                // `notice_failure` deals with an error.
                let received = state.h2.receive(self.reader.buffer(), turn.now);
                self.unparsed = received == Ok(ReceiveOutcome::Some);
                self.reader.note_load(state.h2.active_streams(), state.h2.receives_bulk());
                turn.progress = true;
            }
            ReadOutcome::Nothing => {}
            ReadOutcome::End => {
                let half_closed = self.phase == DriverPhase::Open
                    && !state.h2.is_client()
                    && self.io.poll_hang_up(cx).is_pending();
                if half_closed {
                    self.phase = DriverPhase::HalfClosed;
                    state.h2.end_of_input();
                } else {
                    self.end(state, CloseReason::Closed);
                }
            }
            ReadOutcome::Failed(error) => self.end(state, CloseReason::Io(Arc::new(error))),
        }
    }

    /// Does what is due by the time.
    fn expire(&mut self, state: &mut State, turn: &Turn) {
        if turn.unread {
            state.h2.stand_still(turn.now);
        } else {
            state.h2.go_on();
        }
        if self.timer.is_due(turn.now) {
            let is_late = state.h2.late(turn.now).is_some() || self.memory.has_waited(turn.now);
            if is_late && let Some(time) = self.timer.extension(turn.now) {
                state.h2.pass_over(time);
                self.memory.pass_over(time);
            }
            if state.h2.on_timeout(turn.now).is_err() && self.phase == DriverPhase::Closing {
                self.phase = DriverPhase::Over;
            }
        }
        self.timer.fired(turn.now);
        state.on_line_timeout(turn.now);
        if turn.stalls {
            state.h2.give_to_another();
            self.memory.stalls(|| state.h2.waits_for_peer());
        }
        if self.memory.is_exhausted(turn.now, || state.h2.waits_for_peer()) {
            let why = "the server has no room for what this connection makes it hold";
            state.h2.close(ErrorCode::ENHANCE_YOUR_CALM, why);
        }
        if std::mem::take(&mut state.abandoned) {
            state.h2.go_away(Notice::Short);
        }
    }

    /// Takes the events of as many calls as one turn starts. While no handlers are called it takes
    /// all: those of running calls may be behind those of new ones, which are no more than streams.
    fn dispatch(&mut self, state: &mut State, held_up: bool) {
        if !self.events_left {
            self.batch = state.batch(self.calls_per_taken);
        }
        while state.h2.has_events()
            && let Some(event) = state.h2.poll_event()
        {
            self.duties.event(state, event);
            if !held_up && self.duties.is_full(state, self.batch.into()) {
                break;
            }
        }
        self.events_left = state.h2.has_events();
    }

    /// Deals with an error of the connection. From then on nothing is read, and only outgoing bytes
    /// are written.
    #[inline]
    fn notice_failure(&mut self, state: &mut State) {
        if let Some(error) = state.h2.failure() {
            self.close_after(error, state);
        }
    }

    fn run_handlers<'a>(
        &mut self,
        mut state: MutexGuard<'a, State>,
        shared: &'a Arc<Shared>,
        limit: OutputLimit,
    ) -> MutexGuard<'a, State> {
        if !self.duties.has_requests(&state) {
            return state;
        }
        if !state.wakes.is_empty() {
            // These tasks need not wait for the handlers.
            self.unlock_and_wake(state);
            state = shared.lock();
        }
        self.duties.run(state, shared, self.batch.into(), limit)
    }

    /// Writes what has gathered. If callers may run meanwhile, it does so without the lock.
    fn write<'a>(
        &mut self,
        cx: &mut Context<'_>,
        state: MutexGuard<'a, State>,
        shared: &'a Shared,
        turn: &mut Turn,
    ) -> MutexGuard<'a, State> {
        if self.phase == DriverPhase::Over {
            return state;
        }
        let others = state.h2.active_streams() > 1;
        let had_a_turn = turn.progress || turn.continues || self.lingered;
        if others && !had_a_turn && state.h2.has_outgoing() {
            // Other callers that are ready may add their frames, and then everything leaves in one
            // write. The callers that the last turn woke have added theirs already: the peer can start
            // while this end continues.
            turn.lingers = true;
            self.lingered = true;
            return state;
        }
        self.lingered = false;
        let (mut state, written) =
            writing::write(&mut self.io, cx, state, self.parallel.then_some(shared), WRITE);
        match written {
            Ok(written) => turn.has_more_to_write = written == Written::Limit,
            Err(error) => {
                self.hear_out(cx, &mut state, turn.now);
                // The peer's last bytes may have broken the protocol, which says more than the error.
                self.notice_failure(&mut state);
                self.end(&mut state, CloseReason::Io(Arc::new(error)));
            }
        }
        state
    }

    /// Counts what the connection holds now, and limits what its peer may add.
    #[inline]
    fn count_memory(&mut self, state: &mut State, shared: &Shared, turn: &mut Turn) {
        self.memory.note_sent(state.h2.data_sent());
        let arriving = shared.arriving.load(Ordering::Relaxed);
        let data = state.h2.buffered() + self.reader.kept() + arriving;
        self.memory.set(data, state.h2.call_bytes() + state.h2.table_bytes());
        let is_pressed = self.memory.is_pressed();
        if state.h2.set_pressed(is_pressed, is_pressed && self.memory.is_far_beyond()) {
            // The window that it gave is written in the next turn.
            turn.has_more_to_write = true;
        }
    }

    /// Decides what follows. This is the only place that does.
    fn decide(&mut self, state: &mut State, turn: &Turn) -> AfterTurn {
        // The last events may say why the peer has ended the connection.
        let is_done = state.h2.is_done() && !state.h2.has_events();
        if self.phase == DriverPhase::Over || is_done {
            if self.phase == DriverPhase::Open && !state.h2.is_client() {
                self.linger = Some(Linger::AFTER_CALLS);
            }
            state.disconnect(CloseReason::Closed);
            return AfterTurn::Done(state.close_reason.clone().unwrap_or(CloseReason::Closed));
        }
        let postponed = self.is_postponed(turn);
        let unparsed = self.unparsed && !postponed;
        if turn.lingers || turn.more || turn.has_more_to_write || unparsed || state.h2.has_events()
        {
            return AfterTurn::Again;
        }
        // The last sender was dropped while the lock was free.
        if state.abandoned {
            return AfterTurn::Again;
        }
        let resumes = self.duties.has_requests(state) && !turn.output_limit.is_exceeded(state);
        // The connection was not read because of what it held, and has given that back during this
        // turn. Neither the socket nor a timer would wake it.
        let readable = postponed && self.memory.is_readable_again();
        if resumes || readable {
            return AfterTurn::Again;
        }
        if turn.progress {
            self.reader.note_received(turn.now);
        }
        self.reader.note_sent(state.h2.written(), turn.now);
        if self.reader.spins(turn.now) {
            // Turns follow each other until the time of busy polling is over. The last one leaves
            // its waker with the socket.
            self.set_timer(state, turn.now);
            return AfterTurn::Again;
        }
        AfterTurn::Sleep
    }

    // ---- What the steps are made of ----------------------------------------------------------

    /// Hands over the descriptors that came with the bytes that were read.
    #[inline]
    pub(super) fn receive_sets(&mut self, state: &mut State) {
        while let Some(set) = self.io.next_set() {
            state.h2.receive_set(set);
        }
    }

    /// Ends the connection and all of its streams.
    fn end(&mut self, state: &mut State, close_reason: CloseReason) {
        self.phase = DriverPhase::Over;
        state.disconnect(close_reason);
    }

    /// Wakes the tasks that have something to do, without the lock.
    fn unlock_and_wake(&mut self, mut state: MutexGuard<'_, State>) {
        std::mem::swap(&mut self.wakes, &mut state.wakes);
        drop(state);
        if !self.wakes.is_empty() {
            self.wakes.drain(..).for_each(Waker::wake);
        }
    }

    /// Gives back what a connection without calls does not need. This is done at each sleep, not after some
    /// time without calls, because a timer that is set makes each sleep of the runtime slower.
    fn trim(&mut self, state: &mut State) {
        self.reader.trim();
        self.waker.sleep(state.h2.active_streams());
        output::give_back(&mut state.h2, R::KEPT_OUTPUT);
        state.trim();
        self.duties.trim();
        trim(&mut self.wakes);
    }

    fn set_timer(&mut self, state: &mut State, now: Instant) {
        state.h2.note_time(now);
        let check = self.memory.next_check(now).filter(|_| self.phase != DriverPhase::Closing);
        let mut due = state.h2.next_timeout().into_iter().chain(check).min();
        if let Some(line) = state.line_timeout(now) {
            due = Some(due.map_or(line, |due| due.min(line)));
        }
        self.timer.set(due, state.h2.active_streams() > 0);
    }
}
