//! [`Connection`]: HTTP/2 on a socket. The threads that wait for it drive it.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

use crate::address::Address;
use crate::driver::{CloseReason, StreamError};
use crate::http2::{self, Config, ErrorCode, Event, Failure, StreamKey};

/// How much is read at once, in bytes.
const READ: usize = 64 * 1024;

/// How many pieces are written at once.
const SLICES: usize = 16;

/// How long a thread waits for room in the socket before it looks again.
const ROOM: Duration = Duration::from_millis(10);

/// No timer of the connection is used: calls have their own deadlines, and between calls no thread
/// runs it.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) struct Connection {
    pub(super) address: Arc<Address>,
    socket: OwnedFd,
    state: Mutex<State>,
    /// Notified when the thread that was reading stops.
    read: Condvar,
}

/// The state that a waiting thread checks.
pub(super) struct State {
    pub(super) h2: http2::Connection,
    /// Whether the server's SETTINGS have come.
    pub(super) ready: bool,
    pub(super) close_reason: Option<CloseReason>,
    input: BytesMut,
    /// The buffer for reads. The thread that reads takes it.
    scratch: Option<Vec<u8>>,
}

/// The deadline has passed.
pub(super) struct TimedOut;

enum Received {
    Bytes(usize),
    Nothing,
}

impl Connection {
    /// Returns a connection on a connected socket.
    pub(super) fn new(socket: OwnedFd, address: Arc<Address>) -> Self {
        let config = Config {
            // No request is sent until the server's SETTINGS have come: a client cannot know
            // whether a server read it.
            initial_max_streams: 0,
            handshake_timeout: NEVER,
            frame_timeout: NEVER,
            send_timeout: NEVER,
            ..Config::default()
        };
        let state = State {
            h2: http2::Connection::client(config, Instant::now()),
            ready: false,
            close_reason: None,
            input: BytesMut::new(),
            scratch: Some(vec![0; READ]),
        };
        Self { address, socket, state: Mutex::new(state), read: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it takes calls, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        let mut state = self.lock();
        // The server may have closed it between two calls. Over a Unix socket the request then
        // cannot be written, and goes to another connection. TCP takes it, and nobody knows what
        // became of it.
        if !self.address.is_unix() && state.close_reason.is_none() {
            let received = self.receive_into(&mut state);
            state.take_in(received.map(|_| Received::Nothing));
        }
        state.close_reason.is_none() && state.h2.takes_requests()
    }

    /// Waits until `find` finds something, and drives the connection meanwhile.
    pub(super) fn until<T>(
        &self,
        deadline: Option<Instant>,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let mut state = self.lock();
        loop {
            // `find` may wait until everything is written, and it may add something to write.
            self.flush(&mut state);
            if let Some(found) = find(&mut state) {
                self.flush(&mut state);
                return Ok(found);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(TimedOut);
            }
            let Some(mut scratch) = state.scratch.take() else {
                if state.h2.has_outgoing() {
                    drop(state);
                    self.wait_for_room(left);
                    state = self.lock();
                    continue;
                }
                state = match left {
                    None => self.read.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => {
                        let waited = self.read.wait_timeout(state, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
                continue;
            };
            let has_outgoing = state.h2.has_outgoing();
            drop(state);
            let received = self.receive(&mut scratch, has_outgoing, left);
            state = self.lock();
            if let Ok(Received::Bytes(bytes)) = received {
                state.input.extend_from_slice(&scratch[..bytes]);
            }
            state.scratch = Some(scratch);
            state.take_in(received);
            self.read.notify_all();
        }
    }

    /// Writes what the socket takes at once.
    pub(super) fn flush(&self, state: &mut State) {
        while state.close_reason.is_none() && state.h2.has_outgoing() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = state.h2.outgoing(&mut slices);
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let mut nothing = SendAncillaryBuffer::default();
            match sendmsg(&self.socket, &slices[..count], &mut nothing, flags) {
                Ok(bytes) => state.h2.advance(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(errno) => {
                    // What the server said before it closed comes first.
                    while let Ok(Received::Bytes(_)) = self.receive_into(state) {}
                    state.lose(CloseReason::Io(Arc::new(errno.into())));
                }
            }
        }
    }

    /// Waits for bytes and reads them.
    fn receive(
        &self,
        scratch: &mut [u8],
        has_outgoing: bool,
        timeout: Option<Duration>,
    ) -> io::Result<Received> {
        let mut flags = RecvFlags::empty();
        if has_outgoing || timeout.is_some() {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, has_outgoing);
            let timeout = timeout.map(Timespec::try_from).transpose().unwrap_or_default();
            match poll(&mut [PollFd::new(&self.socket, events)], timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            flags = RecvFlags::DONTWAIT;
        }
        received(recv(&self.socket, scratch, flags).map(|(bytes, _)| bytes))
    }

    /// Waits until the socket takes more, while another thread reads. The wait is short, because
    /// that thread may stop.
    fn wait_for_room(&self, timeout: Option<Duration>) {
        let timeout = timeout.unwrap_or(ROOM).min(ROOM);
        let timeout = Timespec::try_from(timeout).ok();
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], timeout.as_ref());
    }

    /// Reads what is there, unless another thread reads.
    fn receive_into(&self, state: &mut State) -> io::Result<Received> {
        let Some(mut scratch) = state.scratch.take() else { return Ok(Received::Nothing) };
        let read = recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT).map(|(bytes, _)| bytes);
        let received = received(read);
        if let Ok(Received::Bytes(bytes)) = received {
            state.input.extend_from_slice(&scratch[..bytes]);
            state.parse();
        }
        state.scratch = Some(scratch);
        received
    }

    /// Forgets the stream of a call that has ended for its caller.
    pub(super) fn forget(&self, key: StreamKey) {
        let mut state = self.lock();
        state.h2.forget(key);
        self.flush(&mut state);
    }
}

fn received(result: rustix::io::Result<usize>) -> io::Result<Received> {
    match result {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => Ok(Received::Bytes(bytes)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
        Err(errno) => Err(errno.into()),
    }
}

impl State {
    fn take_in(&mut self, received: io::Result<Received>) {
        match received {
            Ok(Received::Nothing) => {}
            Ok(Received::Bytes(_)) => self.parse(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.lose(CloseReason::Closed)
            }
            Err(error) => self.lose(CloseReason::Io(Arc::new(error))),
        }
    }

    fn parse(&mut self) {
        let now = Instant::now();
        while !self.input.is_empty() {
            match self.h2.receive(&mut self.input, now) {
                Ok(http2::Received::Some) => {}
                Ok(http2::Received::All) => break,
                Err(error) => {
                    let close_reason = if self.ready {
                        CloseReason::Http2(error)
                    } else {
                        CloseReason::NotHttp2(error)
                    };
                    self.lose(close_reason);
                    break;
                }
            }
        }
        while let Some(event) = self.h2.poll_event() {
            match event {
                Event::Ready => self.ready = true,
                Event::GoAway => self.went_away(),
                _ => {}
            }
        }
    }

    fn went_away(&mut self) {
        if let Some(go_away) = self.h2.peer_go_away()
            && go_away.code != ErrorCode::NO_ERROR
            && self.close_reason.is_none()
        {
            let (code, debug) = (go_away.code, String::from_utf8_lossy(&go_away.debug).into());
            self.lose(CloseReason::GoneAway { code, debug });
        }
    }

    fn lose(&mut self, close_reason: CloseReason) {
        self.close_reason.get_or_insert(close_reason);
        self.h2.lose();
    }

    /// Returns the status for a failure of a stream.
    pub(super) fn error(&self, failure: Failure) -> StreamError {
        match failure {
            Failure::Reset(reset) => StreamError::Reset(reset),
            Failure::ConnectionEnded { unprocessed } => {
                let close_reason = self.close_reason.clone().unwrap_or(CloseReason::Closed);
                StreamError::ConnectionEnded { close_reason, unprocessed }
            }
        }
    }
}
