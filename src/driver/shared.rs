//! [`Shared`]: a connection's state, under its lock, as its driver, callers and handlers share it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use http::HeaderMap;
use tonic::Status;

use super::client::Phase;
use super::error::{Lost, StreamError};
use super::spare::trim;
use super::waiters::Waiters;
use crate::descriptors::Descriptors;
use crate::http2::{Connection, ErrorCode, Event, Failure, Reset, StreamKey};
use crate::socket::Direct;

/// Calls that one turn takes up at most, so that one connection starves no other.
const MOST_CALLS: usize = 64;

/// Slices of one vectored write.
const SLICES: usize = 40;

/// More than this a caller leaves to the driver.
const MOST_DIRECT: usize = 16 * 1024;

/// The lock is held for encoding or decoding frames and, by the driver, for the write of what was
/// encoded; never while a service, a body or a waker runs.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Bytes that handlers keep of what is still arriving: [`Kept`](super::memory::Kept).
    pub(super) kept: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(super) h2: Connection,
    pub(super) waiters: Waiters,
    /// Client: why request bodies failed, until the calls' ends are read.
    failed_bodies: Vec<(StreamKey, Status)>,
    /// Server: descriptors that handlers were given, which are closed when their calls end.
    descriptors: Vec<(StreamKey, Descriptors)>,
    /// The driver's waker while it sleeps.
    pub(super) asleep: Option<Waker>,
    /// Client: how a caller sends what it has encoded, where that is better than to wake the driver.
    pub(super) direct: Option<Direct>,
    /// Client: calls that wait for the server to take another one.
    pub(super) waiting: BTreeMap<u64, Waker>,
    pub(super) next_ticket: u64,
    /// Client: what waits for the connection to be ready, or to take no more calls.
    pub(super) watchers: Vec<Waker>,
    /// Client: nobody can start a call any more.
    pub(super) abandoned: bool,
    /// The peer's SETTINGS have come: it speaks HTTP/2.
    pub(super) ready: bool,
    /// The connection is over, and why.
    pub(super) lost: Option<Lost>,
    /// Wakers to be woken once the lock is free.
    pub(super) wakes: Vec<Waker>,
    pub(super) is_client: bool,
}

impl Shared {
    pub(super) fn new(h2: Connection, is_client: bool) -> Arc<Self> {
        let state = Mutex::new(State {
            h2,
            waiters: Waiters::default(),
            failed_bodies: Vec::new(),
            descriptors: Vec::new(),
            asleep: None,
            direct: None,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            watchers: Vec::new(),
            abandoned: false,
            ready: false,
            lost: None,
            wakes: Vec::new(),
            is_client,
        });
        Arc::new(Self { state, kept: AtomicUsize::new(0) })
    }

    /// For the driver, which wakes tasks by itself.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock runs foreign code; a panic there is a bug, and the state
        // after it no worse than before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For everybody else: wakes the driver if there is now something for it to do.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let driver = if state.has_work() { state.asleep.take() } else { None };
        // Mostly the driver has taken them, and left room that is not to be given back each time.
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

    /// Tells every stream that the connection is over.
    pub(super) fn lose(&self, lost: Lost) {
        self.with(|state| state.lose(lost));
    }
}

impl State {
    /// How far a client's connection is.
    pub(super) fn phase(&self) -> Phase {
        if self.lost.is_some() || !self.h2.takes_requests() {
            Phase::Gone
        } else if self.ready {
            Phase::Ready
        } else {
            Phase::Handshake
        }
    }

    /// Whether there is something for the driver to do.
    pub(super) fn has_work(&self) -> bool {
        self.h2.has_outgoing() || self.h2.has_events() || self.abandoned || self.h2.is_done()
    }

    /// After a call was encoded into an empty buffer: where it is the only one, its
    /// caller sends it. That spares a turn of the driver, and of another thread perhaps. Several are for the
    /// driver, which sends them by one write. Whatever the socket does not take is for the driver, too.
    pub(super) fn send_directly(&mut self) {
        let Some(direct) = &self.direct else { return };
        if self.h2.active_streams() > 1 || self.h2.outgoing_len() > MOST_DIRECT {
            return;
        }
        // The driver meets the same failure.
        let _ = write_outgoing(&mut self.h2, MOST_DIRECT, |bytes, descriptors| {
            match direct.send(bytes, descriptors) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                sent => Poll::Ready(sent),
            }
        });
    }

    /// How many calls a turn takes up before it writes: half of those in flight. So one half is at
    /// work at the other end, awake by then, while this end has the other half. All at a time would
    /// be the fewest writes, with each end waiting while the other one works.
    pub(super) fn batch(&self) -> usize {
        (self.h2.active_streams() / 2).clamp(1, MOST_CALLS)
    }

    /// This end has done with the stream, whatever state it is in. A task that still reads or writes it
    /// is woken.
    pub(super) fn forget(&mut self, key: StreamKey) {
        if let Some(task) = self.waiters.forget(key, &mut self.wakes)
            && self.is_client
        {
            // A request's body; a server's task is the one that forgets.
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
        // The last one may come when the driver sleeps, which gave back what it could before.
        if self.asleep.is_some() && self.h2.active_streams() == 0 {
            self.trim();
            if self.h2.has_idle_timeout() {
                // It went to sleep while there was a call, and set no timer.
                self.wakes.extend(self.asleep.take());
            }
        }
    }

    /// What a handler does not take of `descriptors` is closed when its call ends.
    pub(super) fn close_at_the_end(&mut self, key: StreamKey, descriptors: Descriptors) {
        self.descriptors.push((key, descriptors));
    }

    /// Client: the body of a request failed. The call cannot be completed, and ends for that reason.
    pub(super) fn fail_request(&mut self, key: StreamKey, status: Status) {
        self.failed_bodies.push((key, status));
        self.h2.abort(
            key,
            Reset {
                code: ErrorCode::CANCEL,
                by_peer: false,
                never_processed: false,
                why: "the request's body failed",
                limit: None,
            },
        );
        self.waiters.fail(key, &mut self.wakes);
    }

    /// Why a stream ended before its message did, as far as this end knows.
    pub(super) fn stream_error(&self, key: StreamKey, failure: Failure) -> StreamError {
        if let Some((_, status)) = self.failed_bodies.iter().find(|(failed, _)| *failed == key) {
            return StreamError::Body(status.clone());
        }
        match (failure, &self.lost) {
            // That says why, which the reset does not.
            (Failure::Reset(reset), Some(lost @ Lost::GoneAway { .. }))
                if reset.never_processed =>
            {
                StreamError::Lost { lost: lost.clone(), unprocessed: true }
            }
            (Failure::Reset(reset), _) => StreamError::Reset(reset),
            (Failure::Lost { unprocessed }, lost) => {
                let lost = lost.clone().unwrap_or(Lost::Closed);
                StreamError::Lost { lost, unprocessed }
            }
        }
    }

    /// Wakes the tasks that an event concerns.
    #[inline]
    pub(super) fn deliver(&mut self, event: Event) {
        match event {
            Event::Readable(key) => self.wakes.extend(self.waiters.take_reader(key)),
            Event::Writable(key) => self.wakes.extend(self.waiters.take_writer(key)),
            Event::Reset(key) => self.waiters.fail(key, &mut self.wakes),
            Event::SlotsAvailable => self.wake_waiter(),
            Event::Ready => {
                self.ready = true;
                self.wakes.append(&mut self.watchers);
            }
            Event::GoAway => self.peer_went_away(),
            // A server's own event.
            Event::Opened(_) => {}
        }
    }

    fn peer_went_away(&mut self) {
        if let Some(go_away) = self.h2.peer_go_away() {
            let (last_stream, code) = (go_away.last_stream, go_away.code);
            tracing::debug!(last_stream, %code, "the peer is going away");
            if code != ErrorCode::NO_ERROR && self.lost.is_none() {
                let debug = String::from_utf8_lossy(&go_away.debug).into();
                self.lost = Some(Lost::GoneAway { code, debug });
            }
        }
        // They go elsewhere.
        self.wakes.append(&mut self.watchers);
        self.wakes.extend(std::mem::take(&mut self.waiting).into_values());
    }

    /// The first in line for a slot tries again.
    pub(super) fn wake_waiter(&mut self) {
        self.wakes.extend(self.waiting.pop_first().map(|(_, waker)| waker));
    }

    /// The connection is over, and with it all of its streams.
    pub(super) fn lose(&mut self, lost: Lost) {
        self.lost.get_or_insert(lost);
        self.direct = None;
        self.h2.lose();
        self.waiters.fail_all(&mut self.wakes);
        self.wakes.append(&mut self.watchers);
        self.wakes.extend(std::mem::take(&mut self.waiting).into_values());
    }

    /// Gives back memory that an idle connection does not need. Cheap where there is none.
    pub(super) fn trim(&mut self) {
        self.h2.trim();
        if self.h2.active_streams() == 0 {
            self.waiters.trim();
        }
        trim(&mut self.wakes);
    }
}

/// How far a write of what is outgoing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing is left.
    All,
    /// The socket takes no more now.
    Blocked,
    /// As much was written as may be at a time.
    Limit,
}

/// Writes what is outgoing: `most` bytes, and no more than one write beyond. `write` sends bytes, with
/// descriptors beside the first of them where there are some.
pub(super) fn write_outgoing(
    h2: &mut Connection,
    most: usize,
    mut write: impl FnMut(&[IoSlice<'_>], Option<&Descriptors>) -> Poll<io::Result<usize>>,
) -> io::Result<Written> {
    let mut left = most;
    while h2.has_outgoing() {
        let written = match h2.contiguous() {
            Some(bytes) => write(&[IoSlice::new(bytes)], None),
            None if h2.is_set_next() => write_set(h2, &mut write),
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = h2.outgoing(&mut slices);
                write(&slices[..count], None)
            }
        };
        match written {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(bytes)) => {
                h2.advance(bytes);
                left = left.saturating_sub(bytes);
                if left == 0 {
                    return Ok(Written::Limit);
                }
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(Written::Blocked),
        }
    }
    Ok(Written::All)
}

/// Writes the frame that comes next with the set of descriptors that goes with it, and nothing else.
/// Where the set cannot be sent, the frame says that instead (docs/descriptors.md).
fn write_set(
    h2: &mut Connection,
    write: &mut impl FnMut(&[IoSlice<'_>], Option<&Descriptors>) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let Some(set) = h2.next_set() else { return Poll::Ready(Ok(0)) };
    let written = if set.descriptors.len() == set.count {
        write_frame(h2, Some(&set.descriptors), write)
    } else {
        // Its call ended, or the caller took them back.
        Poll::Ready(Err(io::ErrorKind::NotFound.into()))
    };
    let why = match &written {
        Poll::Ready(Ok(_)) => {
            h2.set_sent();
            return written;
        }
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            "the descriptors were taken out of the list before they were sent"
        }
        Poll::Ready(Err(error)) if is_refused(error) => {
            "too many file descriptors are on their way to other processes"
        }
        _ => return written,
    };
    h2.void_set(why);
    // From here on it is a frame like any other.
    write_frame(h2, None, write)
}

fn write_frame(
    h2: &Connection,
    descriptors: Option<&Descriptors>,
    write: &mut impl FnMut(&[IoSlice<'_>], Option<&Descriptors>) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); 1];
    h2.outgoing(&mut slices);
    write(&slices, descriptors)
}

/// Whether sendmsg(2) failed for the descriptors, and not for the connection.
fn is_refused(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let refusals = [Errno::TOOMANYREFS, Errno::PERM, Errno::BADF, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

/// Headers out of what identical messages share.
pub(super) fn unshare(headers: Arc<HeaderMap>) -> HeaderMap {
    Arc::try_unwrap(headers).unwrap_or_else(|shared| HeaderMap::clone(&shared))
}
