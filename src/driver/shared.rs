//! [`Shared`]: a connection's state, under its lock, as its driver, callers and handlers share it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use http::HeaderMap;

use super::stream::{End, FEW, Slot, trim};
use crate::http2::{Connection, ErrorCode, Event, Fatal, Reset, StreamKey};
use crate::socket::Direct;

/// Calls that one pass takes up at most, so that one connection starves no other.
const MOST_CALLS: usize = 64;

/// Slices of one vectored write.
const SLICES: usize = 40;

/// More than this a caller leaves to the driver.
const MOST_DIRECT: usize = 16 * 1024;

/// The lock is held for encoding or decoding frames and, by the driver, for the write of what was
/// encoded; never while a service, a body or a waker runs.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Octets that handlers keep of what is still arriving: [`Kept`](super::memory::Kept).
    pub(super) kept: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) h2: Connection,
    slots: Vec<Slot>,
    /// The driver's waker while it sleeps.
    pub(super) asleep: Option<Waker>,
    /// Client: how a caller sends what it has encoded, where that is better than to wake the driver.
    pub(super) direct: Option<Direct>,
    /// Client: calls that wait for the server to take another one.
    pub(super) waiting: BTreeMap<u64, Waker>,
    pub(super) next_ticket: u64,
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

/// Why a connection is over.
#[derive(Clone, Debug)]
pub(crate) enum Lost {
    /// The peer closed it, or this end did after all calls had ended.
    Closed,
    /// The peer told to go away with an error.
    GoneAway { code: ErrorCode, debug: String },
    /// Reading or writing failed.
    Io(Arc<std::io::Error>),
    /// A rule of HTTP/2 was broken, or a limit or a time exceeded.
    Http2(Fatal),
    /// What came first is no HTTP/2.
    NotHttp2(Fatal),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was closed"),
            Self::GoneAway { code, debug } if debug.is_empty() => {
                write!(f, "the peer closed the connection ({code})")
            }
            Self::GoneAway { code, debug } => {
                write!(f, "the peer closed the connection ({code}): {debug}")
            }
            Self::Io(error) => write!(f, "the connection was lost: {error}"),
            Self::Http2(fatal) => write!(f, "the connection failed: {fatal}"),
            Self::NotHttp2(fatal) => write!(f, "no HTTP/2: {fatal}"),
        }
    }
}

impl std::error::Error for Lost {}

/// Why a stream ended before its message did.
#[derive(Clone, Debug)]
pub(crate) enum StreamError {
    Reset(Reset),
    /// With the connection. `unprocessed`: nothing of the request had been handed to the socket, or the
    /// peer says so.
    Lost {
        lost: Lost,
        unprocessed: bool,
    },
    /// The body to be sent failed by itself.
    Body(tonic::Status),
}

impl StreamError {
    /// The server has not seen the request: it may be sent again (RFC 9113 §8.7).
    pub(crate) fn may_be_sent_again(&self) -> bool {
        match self {
            Self::Reset(reset) => reset.never_processed,
            Self::Lost { unprocessed, .. } => *unprocessed,
            Self::Body(_) => false,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(Reset { code, by_peer: true, .. }) => {
                write!(f, "the peer reset the stream ({code})")
            }
            Self::Reset(Reset { code, why, .. }) => write!(f, "{why} ({code})"),
            Self::Lost { lost, .. } => lost.fmt(f),
            Self::Body(status) => status.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {}

impl Shared {
    pub(super) fn new(h2: Connection, is_client: bool) -> Arc<Self> {
        let state = Mutex::new(State {
            h2,
            slots: Vec::new(),
            asleep: None,
            direct: None,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            abandoned: false,
            ready: false,
            lost: None,
            wakes: Vec::new(),
            is_client,
        });
        Arc::new(Self { state, kept: AtomicUsize::new(0) })
    }

    /// For the driver, which wakes whom it has to itself.
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
        let wakes = std::mem::take(&mut state.wakes);
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
    /// Whether there is something for the driver to do.
    pub(super) fn has_work(&self) -> bool {
        self.h2.has_outgoing() || self.h2.has_events() || self.abandoned
    }

    /// After a call was encoded into an empty buffer: where it is the only one, it is sent by who
    /// makes it. That spares a turn of the driver, and of another thread perhaps. Several are for the
    /// driver, which sends them by one write. Whatever the socket does not take is for the driver, too.
    pub(super) fn send_directly(&mut self) {
        let Some(direct) = &self.direct else { return };
        if self.h2.active_streams() > 1 || self.h2.outgoing_len() > MOST_DIRECT {
            return;
        }
        // The driver meets the same failure.
        let _ = write_outgoing(&mut self.h2, MOST_DIRECT, |octets| match direct.send(octets) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            sent => Poll::Ready(sent),
        });
    }

    /// How many calls a pass takes up before it writes: half of those in flight. So one half is at
    /// work at the other end, awake by then, while this end has the other half. All at a time would
    /// be the fewest writes, with each end waiting while the other one works.
    pub(super) fn batch(&self) -> usize {
        (self.h2.active_streams() / 2).clamp(1, MOST_CALLS)
    }

    pub(super) fn slot(&mut self, key: StreamKey) -> Option<&mut Slot> {
        slot_of(&mut self.slots, key)
    }

    /// An entry for a stream that has none yet.
    pub(super) fn open_slot(&mut self, key: StreamKey) -> &mut Slot {
        let index = key.index();
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        *slot = Slot { key: Some(key), ..Slot::default() };
        slot
    }

    /// This end has done with the stream, whatever state it is in.
    pub(super) fn forget(&mut self, key: StreamKey) {
        if let Some(slot) = slot_of(&mut self.slots, key) {
            self.wakes.extend(slot.writer.take());
            // A client's request body; a server's task is the one that forgets.
            if self.is_client
                && let Some(task) = slot.task.take()
            {
                task.abort();
            }
            *slot = Slot::default();
        }
        self.h2.forget(key);
        // The last one may come when the driver sleeps, which gave back what it could before.
        if self.asleep.is_some() && self.h2.active_streams() == 0 {
            self.trim();
        }
    }

    /// Hands an event of a stream that has an entry to whoever waits for it.
    pub(super) fn deliver(&mut self, event: Event) {
        match event {
            Event::Data { stream, bytes, end } => self.data(stream, bytes, end),
            Event::Trailers { stream, headers } => self.ended(stream, End::Trailers(headers)),
            Event::Response { stream, head, end } => {
                let Self { slots, wakes, .. } = self;
                if let Some(slot) = slot_of(slots, stream) {
                    slot.head = Some(head);
                    if end {
                        slot.end = End::Plain;
                    }
                    wakes.extend(slot.reader.take());
                }
            }
            Event::Reset { stream, reset } => {
                let Self { slots, wakes, lost, .. } = self;
                if let Some(slot) = slot_of(slots, stream) {
                    let error = match lost {
                        // That says why, which the reset does not.
                        Some(lost @ Lost::GoneAway { .. }) if reset.never_processed => {
                            StreamError::Lost { lost: lost.clone(), unprocessed: true }
                        }
                        _ => StreamError::Reset(reset),
                    };
                    slot.fail(error, wakes);
                }
            }
            Event::Writable { stream } => {
                let Self { slots, wakes, .. } = self;
                if let Some(slot) = slot_of(slots, stream) {
                    slot.blocked = false;
                    wakes.extend(slot.writer.take());
                }
            }
            Event::SlotsAvailable => self.wake_waiter(),
            Event::Ready => self.ready = true,
            Event::GoAway { last_stream, code, debug } => {
                tracing::debug!(last_stream, %code, "the peer is going away");
                if code != ErrorCode::NO_ERROR && self.lost.is_none() {
                    let debug = String::from_utf8_lossy(&debug[..debug.len().min(256)]).into();
                    self.lost = Some(Lost::GoneAway { code, debug });
                }
                // They go elsewhere.
                self.wakes.extend(std::mem::take(&mut self.waiting).into_values());
            }
            Event::Informational { stream, head } => {
                tracing::trace!(stream = stream.id(), status = %head.status, "skipped");
            }
            Event::Pong(octets) => tracing::trace!(?octets, "pong"),
            // A server's own events.
            Event::Request { .. } | Event::RequestTooLarge { .. } => {}
        }
    }

    fn data(&mut self, key: StreamKey, bytes: bytes::Bytes, end: bool) {
        let Self { slots, wakes, h2, .. } = self;
        let Some(slot) = slot_of(slots, key) else {
            return h2.release(key, bytes.len());
        };
        if slot.unread {
            h2.release(key, bytes.len());
        } else if !bytes.is_empty() {
            slot.pieces.push(bytes);
        }
        if end {
            slot.end = End::Plain;
        }
        wakes.extend(slot.reader.take());
    }

    fn ended(&mut self, key: StreamKey, end: End) {
        let Self { slots, wakes, .. } = self;
        if let Some(slot) = slot_of(slots, key) {
            slot.end = end;
            wakes.extend(slot.reader.take());
        }
    }

    /// The first in line for a slot tries again.
    pub(super) fn wake_waiter(&mut self) {
        self.wakes.extend(self.waiting.pop_first().map(|(_, waker)| waker));
    }

    pub(super) fn lose(&mut self, lost: Lost) {
        let lost = self.lost.get_or_insert(lost).clone();
        self.direct = None;
        let Self { slots, wakes, h2, .. } = self;
        for slot in slots {
            if let Some(key) = slot.key {
                let unprocessed = h2.is_unwritten(key);
                slot.fail(StreamError::Lost { lost: lost.clone(), unprocessed }, wakes);
            }
        }
        self.wakes.extend(std::mem::take(&mut self.waiting).into_values());
    }

    /// Gives back memory that an idle connection does not need. Cheap where there is none.
    pub(super) fn trim(&mut self) {
        self.h2.trim();
        if self.h2.active_streams() == 0 && self.slots.capacity() > FEW {
            self.slots = Vec::new();
        }
        trim(&mut self.wakes);
    }
}

/// Writes what is outgoing until nothing is left or nothing more is taken, or `most` octets and no
/// more than one write beyond. True: so many.
pub(super) fn write_outgoing(
    h2: &mut Connection,
    most: usize,
    mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
) -> io::Result<bool> {
    let mut left = most;
    while h2.has_outgoing() {
        let written = match h2.contiguous() {
            Some(octets) => write(&[IoSlice::new(octets)]),
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = h2.outgoing(&mut slices);
                write(&slices[..count])
            }
        };
        match written {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(octets)) => {
                h2.advance(octets);
                left = left.saturating_sub(octets);
                if left == 0 {
                    return Ok(true);
                }
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(false)
}

fn slot_of(slots: &mut [Slot], key: StreamKey) -> Option<&mut Slot> {
    slots.get_mut(key.index()).filter(|slot| slot.key == Some(key))
}

/// Headers out of what identical messages share.
pub(super) fn unshare(headers: Arc<HeaderMap>) -> HeaderMap {
    Arc::try_unwrap(headers).unwrap_or_else(|shared| HeaderMap::clone(&shared))
}
