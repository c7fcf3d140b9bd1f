//! [`BlockingReader`]: waits for bytes on a socket, and reads them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::socket::receive_with;

/// How much is read at once, in bytes.
const READ: usize = 64 * 1024;

/// A read has room for at least this much.
const LEAST: usize = 16 * 1024;

/// How long a thread waits at a time for a slot if the process has no descriptor left.
const BLIND: Duration = Duration::from_millis(10);

/// If less time than this is left, poll(2) waits. The kernel measures a socket's timeout in ticks
/// of its clock, which last up to 10 ms.
const PRECISE: Duration = Duration::from_millis(50);

/// A timeout of this length or more is long enough: the system call after it costs little.
const SELDOM: Duration = Duration::from_secs(1);

/// Reads a socket. One thread at a time uses it.
pub(super) struct BlockingReader {
    /// What was read and is not processed.
    input: BytesMut,
    polls: bool,
    /// How long a read of the socket waits (SO_RCVTIMEO, socket(7)).
    timeout: Option<Duration>,
}

/// The outcome of a read.
pub(super) enum BlockingRead {
    Bytes,
    Nothing,
}

impl BlockingReader {
    /// Returns a reader. `polls` means that poll(2) waits instead of recv(2). When the peer reads
    /// from a Unix socket, the kernel wakes a sender that waits in recv(2), which has nothing to do
    /// then. If both ends share one CPU, that delays the peer. Across two CPUs, the sender's CPU is
    /// awake when the response comes.
    pub(super) fn new(polls: bool) -> Self {
        Self { input: BytesMut::new(), polls, timeout: None }
    }

    /// Returns what was read and is not processed.
    pub(super) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Waits for bytes and reads them. If something is outgoing, it waits until the socket takes
    /// more. It returns `Nothing` when the remaining time is over, or earlier.
    pub(super) fn receive(
        &mut self,
        socket: impl AsFd,
        has_outgoing: bool,
        left: Duration,
    ) -> io::Result<BlockingRead> {
        if !self.polls && !has_outgoing && self.waits_within(&socket, left) {
            return self.read(socket, RecvFlags::empty());
        }
        let waiting = PollFd::new(&socket, interest(has_outgoing));
        self.receive_after(&socket, &mut [waiting], left)
    }

    /// Does the same while calls wait for a slot. It also returns when `slot_event` is readable, or soon
    /// if there is none.
    pub(super) fn receive_or_slot(
        &mut self,
        socket: impl AsFd,
        has_outgoing: bool,
        left: Duration,
        slot_event: Option<BorrowedFd<'_>>,
    ) -> io::Result<BlockingRead> {
        let waiting = PollFd::new(&socket, interest(has_outgoing));
        let Some(event) = slot_event else {
            return self.receive_after(&socket, &mut [waiting], left.min(BLIND));
        };
        let event = PollFd::from_borrowed_fd(event, PollFlags::IN);
        self.receive_after(&socket, &mut [waiting, event], left)
    }

    /// Waits until one of the descriptors is ready, and reads the bytes that are there then.
    #[inline]
    fn receive_after(
        &mut self,
        socket: impl AsFd,
        waiting: &mut [PollFd<'_>],
        left: Duration,
    ) -> io::Result<BlockingRead> {
        let timeout = Timespec::try_from(left).ok();
        match poll(waiting, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => self.receive_now(socket),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads the bytes that are there.
    pub(super) fn receive_now(&mut self, socket: impl AsFd) -> io::Result<BlockingRead> {
        self.read(socket, RecvFlags::DONTWAIT)
    }

    fn read(&mut self, socket: impl AsFd, flags: RecvFlags) -> io::Result<BlockingRead> {
        if self.input.capacity() - self.input.len() < LEAST {
            self.input.reserve(READ);
        }
        match receive_with(socket, &mut self.input, usize::MAX, flags) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(BlockingRead::Bytes),
            Err(Errno::AGAIN | Errno::INTR) => Ok(BlockingRead::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns whether a read of the socket ends within the remaining time. It sets a new timeout
    /// if the socket's timeout is longer than that, or so short that a call would wake up often.
    /// The new timeout is half of the remaining time, so that calls that follow can use it too.
    fn waits_within(&mut self, socket: impl AsFd, left: Duration) -> bool {
        let fits =
            |timeout: Duration| timeout <= left && (timeout >= SELDOM || timeout >= left / 4);
        if self.timeout.is_some_and(fits) {
            return true;
        }
        if left < PRECISE {
            return false;
        }
        let timeout = Some(left / 2);
        let is_set = set_socket_timeout(socket, Timeout::Recv, timeout).is_ok();
        if is_set {
            self.timeout = timeout;
        }
        is_set
    }
}

/// Returns what a thread waits for on its socket.
fn interest(has_outgoing: bool) -> PollFlags {
    let mut events = PollFlags::IN;
    events.set(PollFlags::OUT, has_outgoing);
    events
}

/// Returns the time until the deadline, if there is one.
pub(super) fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}
