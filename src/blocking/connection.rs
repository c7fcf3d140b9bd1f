//! [`BlockingConnection`]: HTTP/2 on a socket. The threads that wait for it drive it.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Extensions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};

use super::reader::{BlockingRead, BlockingReader, left};
use super::slot_event::SlotEvent;
use super::state::BlockingState;
use super::waiting::WaitsFor;
use super::watched::WatchedSocket;
use crate::address::Address;
use crate::client::authority;
use crate::driver::CloseReason;
use crate::far::FAR;
use crate::http2::{self, Config, StreamKey};
use crate::observer::Observers;
use crate::socket::{Held, Peer, share_one_cpu};

/// How many pieces are written at once.
const SLICES: usize = 16;

/// How long a thread waits for room in the socket before it checks again.
const ROOM: Duration = Duration::from_millis(10);

/// How long a thread waits for bytes at most before it checks again. Nothing wakes it when another thread
/// leaves bytes that the socket does not take, for example those of a call that was given up.
const RECHECK: Duration = Duration::from_secs(2);

pub(super) struct BlockingConnection {
    pub(super) address: Arc<Address>,
    /// The value of `:authority` that the server sees.
    pub(super) authority: Vec<u8>,
    /// The extensions of each response: they identify the server if the transport can.
    pub(super) extensions: Extensions,
    pub(super) watched: Option<WatchedSocket>,
    socket: Arc<Held>,
    state: Mutex<BlockingState>,
    /// Raised when a slot is free while a thread that waits for one reads.
    slot_event: SlotEvent,
}

/// The deadline has passed.
pub(super) struct TimedOut;

impl BlockingConnection {
    /// Returns a connection on a connected socket.
    pub(super) fn new(
        socket: Arc<Held>,
        address: Arc<Address>,
        peer: &Peer,
        observers: Option<&Observers>,
    ) -> Self {
        let config = Config {
            // No request is sent until the server's SETTINGS have come: a client cannot know
            // whether a server read it.
            initial_max_streams: 0,
            // No timer of the connection is used: calls have their own deadlines, and between calls
            // no thread runs it.
            handshake_timeout: FAR,
            frame_timeout: FAR,
            send_timeout: FAR,
            ..Config::default()
        };
        let watched = WatchedSocket::new(observers, &address, peer);
        let h2 = http2::Connection::client(config, Instant::now());
        let reader = BlockingReader::new(address.is_unix() && share_one_cpu(socket.as_fd()));
        let state = BlockingState::new(h2, reader, watched.is_some());
        let mut extensions = Extensions::new();
        if let Some(server) = peer.identity() {
            extensions.insert(server.clone());
        }
        Self {
            authority: authority(&address),
            extensions,
            watched,
            address,
            socket,
            state: Mutex::new(state),
            slot_event: SlotEvent::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BlockingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, writes as much as the socket takes, and tells observers what happened.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut BlockingState) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        self.flush(&mut state);
        self.unlock(state);
        result
    }

    #[inline]
    fn unlock(&self, mut state: MutexGuard<'_, BlockingState>) {
        self.tell(&mut state);
        let Some(watched) = &self.watched else { return };
        let news = std::mem::take(&mut state.news);
        if !news.is_empty() {
            // This is done under the lock, so that the news of two threads stay in order.
            watched.add(news);
            drop(state);
            watched.tell();
        }
    }

    /// Tells other threads what concerns them: a call that has ended here may have freed a slot, and bytes
    /// that were written here may have been theirs.
    #[inline]
    fn tell(&self, state: &mut BlockingState) {
        if state.has_free_slot || state.h2.has_events() {
            self.tell_news(state);
        }
    }

    #[cold]
    fn tell_news(&self, state: &mut BlockingState) {
        state.take_events();
        if std::mem::take(&mut state.has_free_slot) && state.reads_for_slot {
            self.slot_event.raise();
        }
    }

    /// Returns whether it takes calls, as far as is known. With `looks` it asks the socket first.
    pub(super) fn is_open(&self, looks: bool) -> bool {
        let mut state = self.lock();
        // The server may have closed it between two calls. Over a Unix socket the request then
        // cannot be written, and goes to another connection. Over TCP it can be written, and then
        // it is unknown whether the server has processed it.
        if looks || !self.address.is_unix() {
            // Other frames may have come before the close.
            self.look(&mut state);
            // A violation is told to the server.
            self.flush(&mut state);
        }
        let has_ended = state.close_reason.is_some() || state.is_ending();
        let is_open = !has_ended && state.h2.takes_requests();
        self.unlock(state);
        is_open
    }

    /// Waits until `find` finds something, and drives the connection meanwhile. `waits_for` is what
    /// changes before it can find something.
    pub(super) fn until<T>(
        &self,
        waits_for: WaitsFor,
        deadline: Option<Instant>,
        mut find: impl FnMut(&mut BlockingState) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let mut state = self.lock();
        let mut was_woken = false;
        let result = loop {
            self.flush(&mut state);
            let found = find(&mut state);
            // It may have added something to write.
            let has_written = self.flush(&mut state);
            if let Some(found) = found {
                break Ok(found);
            }
            if has_written {
                // That may be what it waits for.
                continue;
            }
            let left = left(deadline);
            if left.is_some_and(|left| left.is_zero()) {
                break Err(TimedOut);
            }
            if !state.news.is_empty() {
                // Observers may use other calls of this connection: meanwhile another thread reads.
                self.leave(state, waits_for, was_woken);
                state = self.lock();
                continue;
            }
            state = match state.reader.take() {
                Some(reader) => self.read(state, reader, waits_for, left),
                None => self.wait_for_reader(state, waits_for, &mut was_woken, left),
            };
        };
        self.leave(state, waits_for, was_woken);
        result
    }

    /// This thread no longer waits. If it was woken for a slot, there may be one more for another thread. If
    /// no thread reads now, one that waits has to.
    #[inline]
    fn leave(
        &self,
        mut state: MutexGuard<'_, BlockingState>,
        waits_for: WaitsFor,
        was_woken: bool,
    ) {
        if !state.waiting.is_empty() {
            state.hand_on(waits_for, was_woken);
        }
        self.unlock(state);
    }

    /// Waits for bytes, and processes them.
    fn read<'a>(
        &'a self,
        mut state: MutexGuard<'a, BlockingState>,
        mut reader: BlockingReader,
        waits_for: WaitsFor,
        left: Option<Duration>,
    ) -> MutexGuard<'a, BlockingState> {
        let has_outgoing = state.h2.has_outgoing();
        state.reads_for_slot = waits_for == WaitsFor::Slot && state.ready;
        // The descriptor is there before another thread can raise it.
        let slot_event = state.reads_for_slot.then(|| self.slot_event.descriptor());
        self.unlock(state);
        let left = left.map_or(RECHECK, |left| left.min(RECHECK));
        let received = match slot_event {
            None => reader.receive(&self.socket, has_outgoing, left),
            Some(event) => {
                let received = reader.receive_or_slot(&self.socket, has_outgoing, left, event);
                self.slot_event.clear();
                received
            }
        };
        let mut state = self.lock();
        state.reads_for_slot = false;
        if let Ok(BlockingRead::Bytes) = received {
            state.parse(reader.input());
        }
        state.reader = Some(reader);
        state.note_end(received);
        state
    }

    /// Waits while another thread reads.
    fn wait_for_reader<'a>(
        &'a self,
        mut state: MutexGuard<'a, BlockingState>,
        waits_for: WaitsFor,
        was_woken: &mut bool,
        left: Option<Duration>,
    ) -> MutexGuard<'a, BlockingState> {
        // A broken socket never has room, and poll(2) would return at once.
        if state.h2.has_outgoing() && state.broken.is_none() {
            self.unlock(state);
            self.wait_for_room(left);
            return self.lock();
        }
        self.tell(&mut state);
        let wake = state.waiting.add(waits_for, *was_woken);
        let mut state = match left {
            None => wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
        };
        *was_woken |= state.waiting.resume(&wake);
        state
    }

    /// Writes as much as the socket takes at once. Returns whether it has written anything.
    #[inline]
    fn flush(&self, state: &mut BlockingState) -> bool {
        if !state.h2.has_outgoing() {
            return false;
        }
        let before = state.h2.written();
        self.flush_outgoing(state);
        state.h2.written() > before
    }

    fn flush_outgoing(&self, state: &mut BlockingState) {
        // If the server has broken a rule, the GOAWAY that says so is still to be written.
        let is_over =
            |state: &BlockingState| state.close_reason.is_some() && state.broken.is_some();
        while state.h2.has_outgoing() && !is_over(state) {
            match state.broken.map_or_else(|| self.send(&state.h2), Err) {
                Ok(bytes) => state.h2.advance(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // It has ended already, and was heard out.
                Err(errno) if state.close_reason.is_some() => {
                    state.broken = Some(errno);
                    return;
                }
                Err(errno) => return self.end_broken(state, errno),
            }
        }
    }

    /// Ends a connection whose socket takes no more bytes. What the server said before it closed
    /// comes first. If another thread reads, it hears that, and then ends the connection.
    fn end_broken(&self, state: &mut BlockingState, errno: Errno) {
        let is_new = state.broken.replace(errno).is_none();
        if state.reader.is_none() {
            if is_new {
                // What is there can still be read (unix(7), tcp(7)). That thread does not wait for
                // more if the server has closed only its own reading side.
                let _ = shutdown(&self.socket, Shutdown::Read);
            }
            return;
        }
        let received = self.receive_all(state);
        state.note_end(received);
        state.disconnect(CloseReason::Io(Arc::new(errno.into())));
    }

    fn send(&self, h2: &http2::Connection) -> rustix::io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if let Some(bytes) = h2.contiguous() {
            return send(&self.socket, bytes, flags);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = h2.outgoing(&mut slices);
        sendmsg(&self.socket, &slices[..count], &mut SendAncillaryBuffer::default(), flags)
    }

    /// Waits until the socket takes more, while another thread reads. The wait is short, because
    /// that thread may stop.
    fn wait_for_room(&self, timeout: Option<Duration>) {
        let timeout = timeout.unwrap_or(ROOM).min(ROOM);
        let timeout = Timespec::try_from(timeout).ok();
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], timeout.as_ref());
    }

    /// Reads and processes what is there, unless another thread reads: then that thread has done it.
    pub(super) fn look(&self, state: &mut BlockingState) {
        if state.close_reason.is_none() {
            let received = self.receive_all(state);
            state.note_end(received);
        }
    }

    /// Reads and processes until nothing is there any more, unless another thread reads. The last
    /// outcome may be the server's close. A server that goes on without end ends the connection by
    /// what it sends.
    fn receive_all(&self, state: &mut BlockingState) -> io::Result<BlockingRead> {
        loop {
            match self.receive_into(state) {
                Ok(BlockingRead::Bytes) if state.close_reason.is_none() => {}
                last => return last,
            }
        }
    }

    /// Reads and processes once, unless another thread reads.
    fn receive_into(&self, state: &mut BlockingState) -> io::Result<BlockingRead> {
        let Some(mut reader) = state.reader.take() else { return Ok(BlockingRead::Nothing) };
        let received = reader.receive_now(&self.socket);
        if let Ok(BlockingRead::Bytes) = received {
            state.parse(reader.input());
        }
        state.reader = Some(reader);
        received
    }

    /// Forgets the stream of a call that has ended for its caller.
    pub(super) fn forget(&self, key: StreamKey) {
        self.with(|state| state.h2.forget(key));
    }
}
