//! [`Pass`]: the task that drives one connection. A pass reads what is there, hands out the events,
//! lets a server's handlers run, and writes what has gathered.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::{Sleep, sleep_until};

use super::busy_poll::{BusyPoll, Spin};
use super::memory::Account;
use super::shared::{Lost, Shared, State, write_outgoing};
use super::socket::Socket;
use super::stream::trim;
use crate::http2::{Config, Connection, ErrorCode, Event, Fault};

/// What one read takes at least and at most; it grows with what arrives at a time.
const READ: (usize, usize) = (16 * 1024, 256 * 1024);

/// A larger buffer for what is outgoing is not kept for the next connection.
const MOST_LENT: usize = 64 * 1024;

/// What is left of a frame at the end of a pass and is not more is copied out of the buffer that it
/// was read into.
const KEPT: usize = 1024;

/// Reads of one pass at most, for a peer that sends while we read.
const READS: u32 = 4;

/// What one pass writes at most.
const WRITE: usize = 1024 * 1024;

/// What is read and thrown away before the socket is closed, so that what was sent last is not lost
/// to a reset (a Unix or TCP socket that is closed over unread data resets the peer's end).
const LINGER: usize = 256 * 1024;

/// How long that may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A server starts no handler while more than this waits for the socket: a client that reads
/// nothing could otherwise ask for answers without end, for those that are heads alone take no
/// window.
const MOST_OUTGOING: usize = 1 << 20;

/// Nor while more than this waits for the client's windows. Above what one large message takes.
const MOST_QUEUED: u64 = 64 << 20;

/// What an end of a connection adds to what both do.
pub(super) trait Role {
    /// Whether most of what is sent is encoded by the pass itself: then the buffer for it can be the
    /// next connection's while this one sleeps.
    const LENDS: bool;

    /// An event that is this end's. The others go to the streams.
    fn event(&mut self, state: &mut State, event: Event);

    /// So many events were taken that the rest has to wait for the next pass.
    fn is_full(&self, state: &State) -> bool;

    /// Whether requests were taken that are not dealt with: for too much waits to be sent, if they
    /// stay.
    fn holds(&self) -> bool {
        false
    }

    /// Deals with those requests: gives the lock back while it calls the handlers, and has it again at
    /// the end.
    fn run<'a>(
        &mut self,
        state: MutexGuard<'a, State>,
        _shared: &'a Arc<Shared>,
    ) -> MutexGuard<'a, State> {
        state
    }

    /// Gives back memory that an idle connection does not need.
    fn trim(&mut self) {}
}

pub(super) struct Pass<T, R> {
    io: T,
    shared: Arc<Shared>,
    role: R,
    account: Account,
    /// Without capacity while there is nothing in it.
    input: BytesMut,
    read_size: usize,
    spin: Option<Spin>,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the timer is set to fire, if it is.
    armed: Option<Instant>,
    /// When there is something to be done, whatever comes.
    due: Option<Instant>,
    /// What the last read ended with, once what came before it has been dealt with.
    end: Option<io::Result<usize>>,
    /// Events are left of the last pass.
    backlog: bool,
    /// Nothing is read any more: only what is outgoing is still to be written.
    closing: bool,
    /// The other tasks were given a turn to add to what is outgoing.
    lingered: bool,
    wakes: Vec<Waker>,
}

impl<T, R> Pass<T, R>
where
    T: Socket,
    R: Role,
{
    pub(super) fn new(
        io: T,
        shared: Arc<Shared>,
        role: R,
        account: Account,
        busy_poll: Option<BusyPoll>,
    ) -> Self {
        Self {
            spin: busy_poll.filter(|_| T::CAN_SPIN).map(|busy_poll| Spin::new(busy_poll, now())),
            io,
            shared,
            role,
            account,
            input: BytesMut::new(),
            read_size: READ.0,
            timer: None,
            armed: None,
            due: None,
            end: None,
            backlog: false,
            closing: false,
            lingered: false,
            wakes: Vec::new(),
        }
    }

    /// One pass. Ready when the connection is over and everything written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        let now = now();
        let is_due = self.due.is_some_and(|at| at <= now);
        let may_read = !self.closing && self.account.may_read(now);
        let spinning = may_read && self.spin.as_ref().is_some_and(|spin| spin.is_on(now));
        let (read, more) = if self.backlog {
            // What is known already comes first, and before the end of the stream in any case.
            (Poll::Pending, true)
        } else if !may_read {
            (Poll::Pending, false)
        } else if spinning {
            (self.receive(), false)
        } else {
            self.read(cx)
        };
        if may_read && read.is_pending() {
            self.account.found_nothing(now);
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if spinning
            && read.is_pending()
            && !more
            && !is_due
            && !state.has_work()
            && !self.role.holds()
        {
            let written = state.h2.written();
            drop(state);
            if let Some(spin) = &mut self.spin {
                spin.note(written, now);
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if R::LENDS
            && !state.h2.has_buffer()
            && let Some(buffer) = OUTPUT.take()
        {
            state.h2.lend_buffer(buffer);
        }
        state.asleep = None;
        let progress = match read {
            Poll::Ready(Ok(0)) => {
                state.lose(Lost::Closed);
                return Poll::Ready(self.over(&mut state));
            }
            Poll::Ready(Ok(_)) => {
                // A failure is seen below.
                let _ = state.h2.receive(&mut self.input, now);
                true
            }
            Poll::Ready(Err(error)) => {
                state.lose(Lost::Io(Arc::new(error)));
                return Poll::Ready(self.over(&mut state));
            }
            Poll::Pending => false,
        };
        if self.armed.is_some_and(|at| at <= now) {
            self.armed = None;
        }
        if is_due && state.h2.on_deadline(now).is_err() && self.closing {
            return Poll::Ready(self.over(&mut state));
        }
        if self.account.is_exhausted(now) {
            let why = "the server has no room for what this connection makes it hold";
            state.h2.close(ErrorCode::ENHANCE_YOUR_CALM, why);
        }
        if std::mem::take(&mut state.abandoned) {
            state.h2.go_away();
        }
        let held_up = is_held_up(&state);
        self.take_events(&mut state, held_up);
        self.backlog = state.h2.has_events();
        if let Some(fatal) = state.h2.failure()
            && !self.closing
        {
            self.closing = true;
            // What was due has happened. The next deadline is that of the last words.
            self.due = None;
            self.account.end_turn();
            self.input = BytesMut::new();
            let lost = match fatal.fault {
                Fault::Local => Lost::Closed,
                Fault::Protocol if state.is_client && !state.ready => Lost::NotHttp2(fatal),
                _ => Lost::Http2(fatal),
            };
            state.lose(lost);
        }
        if !held_up && self.role.holds() {
            if !state.wakes.is_empty() {
                // They need not wait for the handlers.
                self.unlock_and_wake(state);
                state = shared.lock();
            }
            state = self.role.run(state, &shared);
        }

        let others = state.h2.active_streams() > 1;
        if others && !progress && !self.lingered && state.h2.has_outgoing() {
            // Callers that are ready too may add theirs, and all leave by one write.
            self.lingered = true;
            self.unlock_and_wake(state);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.lingered = false;
        let more = match self.write(cx, &mut state) {
            Ok(more_to_write) => more | more_to_write,
            Err(error) => {
                state.lose(Lost::Io(Arc::new(error)));
                return Poll::Ready(self.over(&mut state));
            }
        };
        let kept = shared.kept.load(Ordering::Relaxed);
        self.account.set(state.h2.buffered() + kept, now);
        if state.h2.is_done() {
            state.lose(Lost::Closed);
            return Poll::Ready(self.over(&mut state));
        }
        let resumes = self.role.holds() && !is_held_up(&state);
        // What it held is gone since it was asked: neither the socket nor a timer wakes it otherwise.
        let readable = !may_read && !self.closing && self.account.holds_nothing();
        if more || resumes || readable || state.h2.has_events() {
            // There is more; the other tasks first.
            self.unlock_and_wake(state);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(spin) = &mut self.spin {
            if progress {
                spin.extend(now);
            }
            spin.note(state.h2.written(), now);
            if spin.is_on(now) {
                // Until a turn finds the time over and leaves its waker with the socket.
                self.due = self.next_deadline(&mut state, now);
                self.unlock_and_wake(state);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        state.asleep = Some(cx.waker().clone());
        self.trim(&mut state);
        self.due = self.next_deadline(&mut state, now);
        self.unlock_and_wake(state);
        self.arm(cx);
        Poll::Pending
    }

    fn unlock_and_wake(&mut self, mut state: MutexGuard<'_, State>) {
        std::mem::swap(&mut self.wakes, &mut state.wakes);
        drop(state);
        self.wakes.drain(..).for_each(Waker::wake);
    }

    fn over(&mut self, state: &mut State) -> Lost {
        self.wakes.append(&mut state.wakes);
        // Woken by `close`, without the lock.
        state.lost.clone().unwrap_or(Lost::Closed)
    }

    /// Reads what is there, as far as the buffer takes it. The second value: there may be more, and
    /// no waker was left.
    fn read(&mut self, cx: &mut Context<'_>) -> (Poll<io::Result<usize>>, bool) {
        if let Some(end) = self.end.take() {
            return (Poll::Ready(end), false);
        }
        self.prepare_input();
        let room = self.input.capacity() - self.input.len();
        let mut octets = 0;
        // After the first read that leaves room the second one, as a rule, finds nothing and leaves
        // its waker.
        for _ in 0..READS {
            match self.io.poll_receive(cx, &mut self.input) {
                Poll::Pending if octets == 0 => return (Poll::Pending, false),
                Poll::Pending => {
                    if octets < self.read_size / 4 {
                        self.read_size = (self.read_size / 2).max(READ.0);
                    }
                    return (Poll::Ready(Ok(octets)), false);
                }
                Poll::Ready(Ok(more)) if more > 0 => octets += more,
                end if octets == 0 => return (end, false),
                Poll::Ready(end) => {
                    // What was read before comes first.
                    self.end = Some(end);
                    break;
                }
            }
            if octets == room {
                self.read_size = (self.read_size * 2).min(READ.1);
                break;
            }
        }
        (Poll::Ready(Ok(octets)), true)
    }

    /// Reads what is there right now, and leaves no waker.
    fn receive(&mut self) -> Poll<io::Result<usize>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        self.prepare_input();
        for _ in 0..self.spin.as_ref().map_or(1, Spin::reads) {
            match self.io.receive(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                end => return Poll::Ready(end),
            }
            std::hint::spin_loop();
        }
        Poll::Pending
    }

    /// A buffer to read into, with what was left of the last one.
    fn prepare_input(&mut self) {
        if self.input.capacity() < READ.0 {
            let rest = std::mem::take(&mut self.input);
            self.input = INPUT.take().unwrap_or_default();
            self.input.extend_from_slice(&rest);
        }
        self.input.reserve(self.read_size);
    }

    /// A connection that sleeps holds no more than what it has read of an unfinished frame: the
    /// buffer is the next one's.
    fn lend_input(&mut self) {
        if self.input.len() > KEPT || self.input.capacity() <= KEPT {
            return;
        }
        let rest = BytesMut::from(&self.input[..]);
        let mut buffer = std::mem::replace(&mut self.input, rest);
        buffer.clear();
        // Less is what payloads that were cut out have left of one.
        if buffer.capacity() >= READ.0 {
            INPUT.set(Some(buffer));
        }
    }

    /// As many calls as a pass takes up, each with what has come of it: a message whose rest is left
    /// for later costs its receiver a turn more. All of them while requests are not run: those are no
    /// more than there may be streams, and others want to go on.
    fn take_events(&mut self, state: &mut State, held_up: bool) {
        while let Some(event) = state.h2.next_event() {
            let stream = event.stream();
            self.role.event(state, event);
            if !held_up && self.role.is_full(state) && !state.h2.has_more_of(stream) {
                break;
            }
        }
    }

    /// Writes until nothing is left or the socket takes no more, or as much as a pass may. True:
    /// that.
    fn write(&mut self, cx: &mut Context<'_>, state: &mut State) -> io::Result<bool> {
        write_outgoing(&mut state.h2, WRITE, |octets| {
            Pin::new(&mut self.io).poll_write_vectored(cx, octets)
        })
    }

    /// Gives back what a connection without calls does not need. Done at each sleep rather than
    /// after a while without calls: a timer that is set, far off as it may be, makes each sleep of
    /// the runtime dearer.
    fn trim(&mut self, state: &mut State) {
        self.lend_input();
        if R::LENDS
            && let Some(buffer) = state.h2.unused_buffer()
            && buffer.capacity() <= MOST_LENT
        {
            OUTPUT.set(Some(buffer));
        }
        state.trim();
        self.role.trim();
        trim(&mut self.wakes);
    }

    fn next_deadline(&self, state: &mut State, now: Instant) -> Option<Instant> {
        let look = if self.closing { None } else { self.account.next_look(now) };
        [state.h2.next_deadline(now), look].into_iter().flatten().min()
    }

    /// Sets the timer, unless it fires early enough as it is: then it is looked at again.
    fn arm(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = self.due else {
            self.timer = None;
            self.armed = None;
            return;
        };
        if self.armed.is_some_and(|at| at <= deadline) {
            return;
        }
        self.armed = Some(deadline);
        let at = tokio::time::Instant::from_std(deadline);
        let timer = match &mut self.timer {
            Some(timer) => {
                timer.as_mut().reset(at);
                timer
            }
            None => self.timer.insert(Box::pin(sleep_until(at))),
        };
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Lets calls in flight finish and takes no more.
    pub(super) fn shut_down(&mut self) {
        let mut state = self.shared.lock();
        if state.ready {
            state.h2.go_away();
        } else {
            // Who has not even introduced itself does not hold up the end.
            state.h2.close(ErrorCode::NO_ERROR, "the server is shutting down");
        }
    }

    /// Closes the socket so that what was written last still arrives.
    pub(super) async fn close(&mut self) {
        self.wakes.drain(..).for_each(Waker::wake);
        if self.io.shutdown().await.is_err() || !self.closing {
            return;
        }
        let mut rest = BytesMut::with_capacity(LINGER / 16);
        let drain = async {
            let mut left = LINGER;
            while left > 0 {
                rest.clear();
                match poll_fn(|cx| self.io.poll_receive(cx, &mut rest)).await {
                    Ok(0) | Err(_) => break,
                    Ok(octets) => left = left.saturating_sub(octets),
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, drain).await;
    }
}

/// Tells a peer that it is not served, and closes. It may have sent its first request already: what
/// is there is read, for data that is not would turn the end into a reset.
pub(crate) async fn turn_away<T>(mut io: T, why: &'static str)
where
    T: Socket,
{
    let mut h2 = Connection::server(Config::default(), now());
    h2.close(ErrorCode::ENHANCE_YOUR_CALM, why);
    let mut octets = BytesMut::new();
    octets.extend_from_slice(h2.contiguous().unwrap_or_default());
    let said = async {
        io.write_all(&octets).await?;
        io.shutdown().await
    };
    // So little always fits a new socket.
    if let Ok(Ok(())) = tokio::time::timeout(LAST_WORDS, said).await {
        octets.clear();
        octets.reserve(READ.0);
        let _ = poll_fn(|cx| Poll::Ready(io.poll_receive(cx, &mut octets))).await;
    }
}

thread_local! {
    /// What the thread's connections read into, one after another.
    static INPUT: Cell<Option<BytesMut>> = const { Cell::new(None) };
    /// What they encode into.
    static OUTPUT: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

fn is_held_up(state: &State) -> bool {
    !state.is_client
        && (state.h2.outgoing_len() > MOST_OUTGOING || state.h2.queued_len() > MOST_QUEUED)
}

/// Through tokio's clock, which tests can hold.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Marks a connection as lost when its driver is dropped, however that comes.
pub(super) struct LostOnDrop(pub(super) Arc<Shared>);

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        self.0.lose(Lost::Closed);
    }
}
