//! [`Shared`]: a connection's state under its lock. The driver, callers and handlers share it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tonic::Status;

use super::client::Phase;
use super::error::{CloseReason, StreamError};
use super::sleeper::Sleeper;
use super::spare::trim;
use super::waiters::Waiters;
use super::writing::write_locked;
use crate::descriptors::{Descriptors, ResponseQuotas};
use crate::http2::{Connection, ErrorCode, Failure, ProtocolEvent, Reset, StreamKey};
use crate::socket::SocketSender;

/// The maximum number of calls in one turn, so that one connection does not starve the others.
const MOST_CALLS: u8 = 64;

/// A caller leaves more bytes than this to the driver.
const MOST_DIRECT: usize = 16 * 1024;

/// How long calls wait for one that was called and does not try. A task may hold a call and await
/// something else.
const LINE_STANDS: Duration = Duration::from_millis(1);

/// The lock is held while frames are encoded or decoded and, if no other thread may want it, while
/// they are written. It is never held while a service, a body or a waker runs, or while a service or
/// a body is dropped: that may need the lock.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// How many bytes handlers keep of messages that are still arriving:
    /// [`CallMemory`](super::call_memory::CallMemory).
    pub(super) arriving: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(super) h2: Connection,
    pub(super) waiters: Waiters,
    /// Client: why request bodies failed. The entries stay until the calls' ends are read.
    pub(super) failed_bodies: Vec<(StreamKey, Status)>,
    /// Server: descriptors that handlers got. They are closed when their calls end.
    descriptors: Vec<(StreamKey, Descriptors)>,
    /// Server: what descriptors of responses count against. `None`: none can be sent.
    pub(super) response_quotas: Option<ResponseQuotas>,
    pub(super) driver: Sleeper,
    /// Whether a call has ended while the driver was asleep, so that less is held than it knows.
    pub(super) less_held: bool,
    /// Client: how a caller sends what it has encoded, if that is better than waking the driver.
    pub(super) socket_sender: Option<SocketSender>,
    /// Client: calls that wait for the server to take another one.
    pub(super) waiting: BTreeMap<u64, Waker>,
    /// Client: calls that may try now, because they were called out of that line or have given way once.
    pub(super) called: Vec<u64>,
    /// Client: when the line goes on without those. Their tasks may not poll them.
    pub(super) line_goes_on: Option<Instant>,
    pub(super) next_ticket: u64,
    /// Client: tasks that wait until the connection is ready, or takes no more calls.
    pub(super) watchers: BTreeMap<u64, Waker>,
    /// Client: no more calls can start, because all senders were dropped.
    pub(super) abandoned: bool,
    /// The peer's SETTINGS have come: it speaks HTTP/2.
    pub(super) ready: bool,
    /// Why the connection has ended, if it has.
    pub(super) close_reason: Option<CloseReason>,
    /// Wakers to be woken once the lock is free.
    pub(super) wakes: Vec<Waker>,
}

impl Shared {
    pub(super) fn new(h2: Connection) -> Arc<Self> {
        let state = Mutex::new(State {
            h2,
            waiters: Waiters::default(),
            failed_bodies: Vec::new(),
            descriptors: Vec::new(),
            response_quotas: None,
            driver: Sleeper::default(),
            less_held: false,
            socket_sender: None,
            waiting: BTreeMap::new(),
            called: Vec::new(),
            line_goes_on: None,
            next_ticket: 0,
            watchers: BTreeMap::new(),
            abandoned: false,
            ready: false,
            close_reason: None,
            wakes: Vec::new(),
        });
        Arc::new(Self { state, arriving: AtomicUsize::new(0) })
    }

    /// Locks the state for the driver, which wakes tasks by itself.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock. A panic there is a bug, and does not make the state
        // worse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` under the lock, for everything but the driver. It wakes the driver if there is
    /// now something to do.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let driver = if state.has_work() { state.driver.wake() } else { None };
        // Usually the driver has taken the wakers, and has left room that need not be given back
        // each time.
        let wakes = match state.wakes.is_empty() {
            true => Vec::new(),
            false => std::mem::take(&mut state.wakes),
        };
        drop(state);
        for waker in wakes {
            waker.wake();
        }
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Spawns a task that ends with its stream. The lock is free meanwhile: a runtime that shuts down drops
    /// the task at once. So the stream may have ended before its task is known.
    pub(super) fn spawn(&self, key: StreamKey, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task).abort_handle();
        let mut state = self.lock();
        if state.h2.is_known(key) {
            state.waiters.set_task(key, task);
        } else {
            task.abort();
        }
    }

    /// Tells every stream that the connection has ended.
    pub(super) fn disconnect(&self, close_reason: CloseReason) {
        self.with(|state| state.disconnect(close_reason));
    }
}

impl State {
    /// Returns the phase of a client's connection.
    pub(super) fn phase(&self) -> Phase {
        if self.close_reason.is_some() || !self.h2.takes_requests() {
            Phase::Ended
        } else if self.ready {
            Phase::Ready
        } else {
            Phase::Handshake
        }
    }

    /// Returns whether the server has spoken and then announced, without an error, that it takes no
    /// more calls.
    pub(super) fn was_dismissed(&self) -> bool {
        let go_away = self.h2.peer_go_away();
        self.ready && go_away.is_some_and(|go_away| go_away.code == ErrorCode::NO_ERROR)
    }

    /// Returns whether there is something for the driver to do.
    pub(super) fn has_work(&self) -> bool {
        self.h2.has_outgoing()
            || self.h2.has_events()
            || self.abandoned
            || self.less_held
            || self.h2.is_done()
            || (self.line_stands() && self.line_goes_on.is_none())
    }

    /// Lets the caller send a call itself, after it was encoded into an empty buffer, if it is the
    /// only call. That saves a turn of the driver, which may be on another thread. With several
    /// calls, the driver sends all in one write. It also sends what the socket does not take.
    pub(super) fn send_directly(&mut self) {
        let Some(sender) = &self.socket_sender else { return };
        if self.h2.is_writing()
            || self.h2.active_streams() > 1
            || self.h2.outgoing_len() > MOST_DIRECT
        {
            return;
        }
        // The driver will meet the same failure.
        let _ = write_locked(&mut self.h2, MOST_DIRECT, |bytes, descriptors| {
            match sender.send(bytes, descriptors) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                sent => Poll::Ready(sent),
            }
        });
    }

    /// Returns how many calls a turn takes before it writes, if it takes one of so many in flight.
    pub(super) fn batch(&self, calls_per_taken: u8) -> u8 {
        let taken = self.h2.active_streams() / usize::from(calls_per_taken);
        u8::try_from(taken).unwrap_or(MOST_CALLS).clamp(1, MOST_CALLS)
    }

    /// Forgets a stream, whatever state it is in. A task that still reads or writes it is woken.
    pub(super) fn forget(&mut self, key: StreamKey) {
        if let Some(task) = self.waiters.forget(key, &mut self.wakes)
            && self.h2.is_client()
        {
            // The task sends a request's body. A server's task calls this function itself.
            task.abort();
        }
        if !self.failed_bodies.is_empty() {
            self.failed_bodies.retain(|(failed, _)| *failed != key);
        }
        if !self.descriptors.is_empty() {
            let of_this_call = self.descriptors.extract_if(.., |(call, _)| *call == key);
            of_this_call.for_each(|(_, descriptors)| descriptors.close());
        }
        self.h2.forget(key);
        if self.driver.is_asleep() {
            let is_last = self.h2.active_streams() == 0;
            if is_last {
                // The driver gave back its memory before.
                self.trim();
            }
            // It has counted what a server's calls hold, and it set no timer while there was a call.
            self.less_held |= !self.h2.is_client() || (is_last && self.h2.has_idle_timeout());
        }
    }

    /// Closes those of `descriptors` that the handler has not taken, when its call ends.
    pub(super) fn close_at_the_end(&mut self, key: StreamKey, descriptors: Descriptors) {
        self.descriptors.push((key, descriptors));
    }

    /// Client: ends a call whose request body failed, with that as the reason.
    pub(super) fn fail_request(&mut self, key: StreamKey, status: Status) {
        // The call may have been dropped while its body was polled.
        if !self.h2.is_known(key) {
            return;
        }
        self.failed_bodies.push((key, status));
        self.h2.abort(key, Reset::new(ErrorCode::CANCEL, "the request's body failed"));
        self.waiters.fail(key, &mut self.wakes);
    }

    /// Returns why a stream ended before its message did, as far as this end knows.
    pub(super) fn stream_error(&self, key: StreamKey, failure: Failure) -> StreamError {
        if let Some((_, status)) = self.failed_bodies.iter().find(|(failed, _)| *failed == key) {
            return StreamError::Body(status.clone());
        }
        StreamError::new(failure, self.close_reason.as_ref())
    }

    /// Wakes the tasks that an event concerns.
    #[inline]
    pub(super) fn deliver(&mut self, event: ProtocolEvent) {
        match event {
            ProtocolEvent::Readable(key) => self.wakes.extend(self.waiters.take_reader(key)),
            ProtocolEvent::Writable(key) => self.wakes.extend(self.waiters.take_writer(key)),
            ProtocolEvent::Reset(key) => self.waiters.fail(key, &mut self.wakes),
            ProtocolEvent::SlotsAvailable => self.wake_waiter(),
            ProtocolEvent::Ready => {
                self.ready = true;
                self.wake_watchers();
            }
            ProtocolEvent::GoAway => self.peer_went_away(),
            // The server's own code deals with this event.
            ProtocolEvent::Opened(_) => {}
        }
    }

    fn peer_went_away(&mut self) {
        if let Some(go_away) = self.h2.peer_go_away() {
            let (last_stream, code) = (go_away.last_stream, go_away.code);
            tracing::debug!(last_stream, %code, "the peer is going away");
        }
        if self.close_reason.is_none() {
            self.close_reason = CloseReason::of_go_away(&self.h2);
        }
        self.wake_watchers();
        // These calls go to another connection.
        self.wake_waiters();
    }

    /// Wakes the tasks that wait for a change of the connection's phase.
    fn wake_watchers(&mut self) {
        self.wakes.extend(std::mem::take(&mut self.watchers).into_values());
    }

    /// Returns a number that no other task has which waits.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Wakes the first call in the line for a slot if there is one for it. The call tries again.
    pub(super) fn wake_waiter(&mut self) {
        if self.waiting.is_empty() || !self.h2.offers_slot() {
            return;
        }
        if let Some((ticket, waker)) = self.waiting.pop_first() {
            self.called.push(ticket);
            self.wakes.push(waker);
        }
    }

    /// Notes that a call which was called tries now, or never will. Returns whether it was still awaited.
    pub(super) fn note_try(&mut self, ticket: u64) -> bool {
        let place = self.called.iter().position(|called| *called == ticket);
        if let Some(place) = place {
            self.called.swap_remove(place);
            self.line_goes_on = None;
        }
        place.is_some()
    }

    /// Returns whether calls wait for others to try.
    #[inline]
    fn line_stands(&self) -> bool {
        !self.called.is_empty() && !self.waiting.is_empty()
    }

    /// Returns when the line goes on without those that do not try.
    #[inline]
    pub(super) fn line_timeout(&mut self, now: Instant) -> Option<Instant> {
        if !self.line_stands() {
            self.line_goes_on = None;
            return None;
        }
        Some(*self.line_goes_on.get_or_insert(now + LINE_STANDS))
    }

    /// Lets the line go on if it has stood for long enough. Each turn calls this: a driver that does not sleep
    /// sets no timer.
    pub(super) fn on_line_timeout(&mut self, now: Instant) {
        if self.line_timeout(now).is_some_and(|at| at <= now) {
            self.line_goes_on = None;
            self.called.clear();
            self.wake_waiter();
        }
    }

    /// Notes that a call has left that line because its caller has given it up.
    pub(super) fn waiter_left(&mut self) {
        if self.waiting.is_empty() {
            self.h2.wants_no_slot();
            // While a call waited the driver set no timer.
            self.less_held |= self.driver.is_asleep() && self.h2.has_idle_timeout();
        }
    }

    /// Wakes all calls in that line, because the connection takes no more calls.
    fn wake_waiters(&mut self) {
        self.wakes.extend(std::mem::take(&mut self.waiting).into_values());
    }

    /// Returns whether a call that has not waited has to let others go first. A call that is woken for
    /// a slot would otherwise find it taken each time, by a task that calls without end.
    pub(super) fn gives_way(&mut self) -> bool {
        if self.called.is_empty() {
            self.wake_waiter();
        }
        !self.called.is_empty()
    }

    /// Ends the connection, and all of its streams.
    pub(super) fn disconnect(&mut self, close_reason: CloseReason) {
        self.close_reason.get_or_insert(close_reason);
        self.socket_sender = None;
        self.h2.disconnect();
        self.waiters.fail_all(&mut self.wakes);
        self.wake_watchers();
        self.wake_waiters();
    }

    /// Gives back memory that an idle connection does not need. It costs little if there is none.
    pub(super) fn trim(&mut self) {
        self.h2.trim();
        if self.h2.active_streams() == 0 {
            self.waiters.trim();
        }
        trim(&mut self.wakes);
        trim(&mut self.called);
    }
}
