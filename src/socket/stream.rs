//! [`SocketStream`]: a connected stream socket, Unix or TCP. It differs from tokio's in two points. The
//! peer's identity and [`SocketSender`] senders share the socket. And if the peer can attach file
//! descriptors to its bytes, a read that stops short is not taken as the last one.
//!
//! The socket is watched for room as well as for something to read. So on a Unix socket, a peer
//! that reads wakes its sender. The sender has nothing to do then, but its CPU is awake when the
//! answer comes, which hides most of the time that waking takes (`unix_write_space` in Linux'
//! net/unix/af_unix.c; epoll(7)). If both ends are bound to the same single CPU, there is no other
//! CPU to wake, and the sender would only disturb. Then the socket is watched for room only while a
//! write waits for it.
//!
//! On a runtime of several threads, a socket that always has more to read is not watched meanwhile. Each
//! event would wake the thread that waits for events, which has nothing to do then and takes the CPU from
//! the others.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};
use rustix::process::Pid;
use rustix::thread::sched_getaffinity;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

use super::held::Held;
use super::rights::{self, ReceivedRights};
use super::{sys, underway};
use crate::descriptors::AnnouncedSet;
use crate::runtime::{has_several_threads, register};

#[derive(Debug)]
pub(super) struct SocketStream {
    socket: Arc<Held>,
    /// `None` while the socket is not watched because there is always more to read.
    watched: Option<AsyncFd<Arc<Held>>>,
    /// How many reads in a row have filled their buffers. `None` if the socket is always watched.
    full_reads: Option<u8>,
    /// Whether a write has left its waker with the socket.
    write_waits: bool,
    /// Whether the peer may have attached file descriptors. A read stops before them although there
    /// is more (unix(7)).
    stops_short: bool,
    watches_room: bool,
    /// If the socket itself is not watched for room: a second descriptor of it that is watched. It
    /// exists from when the socket was full until it has had room for a while.
    room: Option<AsyncFd<OwnedFd>>,
    /// The number of writes until then.
    calm: u8,
}

/// How far a Unix socket's sender may be ahead of its reader, in bytes. It is four times Linux's
/// usual default if `net.core.wmem_max` allows that, and twice the default with the usual value of
/// that limit (the kernel doubles what is asked for, and counts its own bookkeeping; socket(7),
/// SO_SNDBUF). With many streams both ends wait less for each other, and a quarter more messages
/// pass each second. TCP sizes its buffers itself.
const SEND_BUFFER: usize = 425_984;

/// A socket that was full is no longer watched after this many writes that did not wait.
const CALM: u8 = 64;

/// Bytes that are read at a time if descriptors may come with them and the caller has its own buffer.
const PIECE: usize = 16 << 10;

/// A socket is no longer watched after so many reads that filled their buffers.
const FULL_READS: u8 = 4;

impl SocketStream {
    /// Takes a connected Unix socket that does not block.
    pub(super) fn unix(socket: OwnedFd) -> io::Result<Self> {
        let watches_room = !share_one_cpu(socket.as_fd());
        Self::unix_watching_room(socket, watches_room)
    }

    fn unix_watching_room(socket: OwnedFd, watches_room: bool) -> io::Result<Self> {
        if sockopt::socket_send_buffer_size(&socket).is_ok_and(|size| size < 2 * SEND_BUFFER) {
            // A smaller buffer works, too.
            let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        }
        // Some may have come before they are refused here, unless the listener refused them.
        let stops_short = sys::takes_descriptors(&socket).unwrap_or(true);
        if stops_short {
            // An older kernel cannot refuse them.
            let _ = sys::pass_descriptors(&socket, false);
        }
        Self::new(socket, stops_short, watches_room)
    }

    /// Takes a connected TCP socket that does not block.
    pub(super) fn tcp(socket: OwnedFd) -> io::Result<Self> {
        Self::new(socket, false, true)
    }

    fn new(socket: OwnedFd, stops_short: bool, watches_room: bool) -> io::Result<Self> {
        let socket = Arc::new(Held::new(socket, stops_short));
        let mut stream = Self {
            socket,
            watched: None,
            full_reads: has_several_threads().then_some(0),
            write_waits: false,
            stops_short,
            watches_room,
            room: None,
            calm: 0,
        };
        stream.watched()?;
        Ok(stream)
    }

    /// Returns the socket as it is watched, from now on if it was not.
    fn watched(&mut self) -> io::Result<&AsyncFd<Arc<Held>>> {
        let watched = match self.watched.take() {
            Some(watched) => watched,
            None => {
                self.full_reads = self.full_reads.map(|_| 0);
                let room = if self.watches_room { Interest::WRITABLE } else { Interest::READABLE };
                register(Arc::clone(&self.socket), Interest::READABLE | room)?
            }
        };
        Ok(self.watched.insert(watched))
    }

    /// Notes a read, and returns it. After several that filled their buffers the socket is not watched,
    /// unless a write waits for it.
    #[inline]
    fn note_read(&mut self, read: Poll<io::Result<usize>>, room: usize) -> Poll<io::Result<usize>> {
        if let Some(full_reads) = &mut self.full_reads {
            let is_full = matches!(read, Poll::Ready(Ok(bytes)) if bytes == room);
            *full_reads = if is_full { full_reads.saturating_add(1) } else { 0 };
            if *full_reads >= FULL_READS && !self.write_waits {
                self.watched = None;
            }
        }
        read
    }

    /// Returns a second way to send.
    pub(super) fn sender(&self) -> SocketSender {
        SocketSender(Arc::clone(&self.socket))
    }

    /// Returns whether both ends of a Unix socket were bound to the same single CPU at the start. It is asked
    /// before the first write: [`watch_for_both`](Self::watch_for_both) changes it.
    pub(super) fn shares_one_cpu(&self) -> bool {
        !self.watches_room
    }

    /// Returns a reference to the socket that lasts as long as the connection.
    pub(super) fn downgrade(&self) -> Weak<Held> {
        Arc::downgrade(&self.socket)
    }

    /// Appends as many bytes to `input` as its capacity takes, and at most `most`.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let room = (input.capacity() - input.len()).min(most);
        let read = match self.stops_short {
            false => self.poll(cx, room, |socket| sys::receive(socket, input, most)),
            true => self.poll(cx, room, |socket| rights::receive_bytes(socket, input, most)),
        };
        self.note_read(read, room)
    }

    /// Does the same if descriptors may come with the bytes.
    pub(super) fn poll_receive_with(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        most: usize,
        mut arrived: impl FnMut(ReceivedRights),
    ) -> Poll<io::Result<usize>> {
        let room = (input.capacity() - input.len()).min(most);
        let read = self.poll(cx, room, |socket| {
            let received = rights::receive(socket, input, most)?;
            let bytes = received.bytes;
            arrived(received);
            Ok(bytes)
        });
        self.note_read(read, room)
    }

    /// Lets the peer attach file descriptors from now on.
    pub(super) fn take_descriptors(&mut self) {
        self.stops_short = true;
        self.socket.note_may_block();
        // A kernel that cannot refuse them takes them anyway.
        let _ = sys::pass_descriptors(&*self, true);
    }

    pub(super) fn poll_send_descriptors(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
        set: &AnnouncedSet,
    ) -> Poll<io::Result<usize>> {
        let held = Arc::clone(&self.socket);
        self.write(cx, |_| underway::send(&held, bytes, set))
    }

    /// Does the same as `poll_receive` without waiting.
    pub(super) fn receive(&self, input: &mut BytesMut, most: usize) -> io::Result<usize> {
        match self.stops_short {
            false => sys::receive(self.as_fd(), input, most),
            true => rights::receive_bytes(self.as_fd(), input, most),
        }
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Callers may read without end, so this takes from the cooperative budget of their task.
        ready!(self.watched()?.poll_read_ready(cx))?.retain_ready();
        let stops_short = self.stops_short;
        self.poll(cx, buf.remaining(), |socket| {
            if stops_short {
                let most = buf.remaining().min(PIECE);
                let mut bytes = BytesMut::with_capacity(most);
                let received = rights::receive_bytes(socket, &mut bytes, most)?;
                buf.put_slice(&bytes);
                return Ok(received);
            }
            let room = buf.initialize_unfilled();
            let (_, bytes) = rustix::net::recv(socket, room, RecvFlags::DONTWAIT)?;
            buf.advance(bytes);
            Ok(bytes)
        })
        .map_ok(drop)
    }

    /// Reads up to `room` bytes. The waker is only left where there is nothing to read.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(read) = self.try_read(room, &mut read) {
                return Poll::Ready(read);
            }
            ready!(self.watched()?.poll_read_ready(cx))?.retain_ready();
        }
    }

    /// Reads if there is something to read.
    #[inline]
    fn try_read(
        &self,
        room: usize,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let mut read = || loop {
            match read(self.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                read => break Some(read),
            }
        };
        let Some(watched) = &self.watched else { return read() };
        let mut outcome = None;
        let _ = watched.try_io(Interest::READABLE, |_| {
            outcome = read();
            match outcome {
                None => Err(io::ErrorKind::WouldBlock.into()),
                // That was all. epoll(7) reports what comes next as a new event, since it is
                // edge-triggered. With this error tokio waits for that event.
                Some(Ok(bytes)) if bytes > 0 && bytes < room && !self.stops_short => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                Some(_) => Ok(()),
            }
        });
        outcome
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |socket| send(socket, &[IoSlice::new(buf)]))
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |socket| send(socket, bufs))
    }

    /// Tries at once, and waits only if the socket is full.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(self.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => {
                    self.write_waits = false;
                    if self.room.is_some() {
                        self.calm -= 1;
                        if self.calm == 0 {
                            self.room = None;
                        }
                    }
                    return Poll::Ready(written);
                }
            }
            // The readiness that was known before this write is outdated. What is known now needs
            // another write.
            if self.watches_room {
                self.write_waits = true;
                ready!(self.watched()?.poll_write_ready(cx))?.clear_ready();
                continue;
            }
            self.calm = CALM;
            let room = match self.room.take().map_or_else(|| self.second(), Ok) {
                Ok(room) => self.room.insert(room),
                Err(_) => {
                    self.watch_for_both(cx);
                    continue;
                }
            };
            ready!(room.poll_write_ready(cx))?.clear_ready();
        }
    }

    /// Returns a second descriptor that is watched for room.
    fn second(&self) -> io::Result<AsyncFd<OwnedFd>> {
        register(self.socket.as_fd().try_clone_to_owned()?, Interest::WRITABLE)
    }

    /// Watches the socket itself for room from now on, because no descriptor is left for that.
    #[cold]
    fn watch_for_both(&mut self, cx: &Context<'_>) {
        self.watches_room = true;
        // The task, which reads and writes, reads once more, and leaves its waker where the socket is
        // watched from now on.
        self.watched = None;
        cx.waker().wake_by_ref();
    }

    /// Is ready once the peer has closed both of its sides. That is EPOLLHUP; EPOLLRDHUP alone
    /// means that the peer has closed its writing side (epoll_ctl(2)).
    pub(super) fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(watched) = self.watched() else { return Poll::Ready(()) };
            match ready!(watched.poll_write_ready(cx)) {
                Ok(guard) if guard.ready().is_write_closed() => return Poll::Ready(()),
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    pub(super) fn has_unread(&self) -> io::Result<Option<bool>> {
        // poll(2) reports a hang-up for a socket that is closed on both sides, even if there is
        // something to read.
        let mut polled = [PollFd::new(self, PollFlags::IN)];
        // A signal that comes meanwhile says nothing of the socket. poll(2) reports it although it does
        // not wait.
        retry_on_intr(|| rustix::event::poll(&mut polled, Some(&Timespec::default())))?;
        let events = polled[0].revents();
        if events.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(None);
        }
        if !events.contains(PollFlags::IN) {
            return Ok(Some(false));
        }
        // The end of what the peer sends can be read as well (recv(2)).
        let (bytes, _) =
            rustix::net::recv(self, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        Ok((bytes > 0).then_some(true))
    }

    pub(super) fn shutdown(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.as_fd(), Shutdown::Write)?)
    }
}

impl AsFd for SocketStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends on a connection's socket, beside the task that drives the connection. It keeps the socket
/// open.
#[derive(Debug)]
pub(crate) struct SocketSender(Arc<Held>);

impl SocketSender {
    /// Sends as much as there is room for. It fails with [`WouldBlock`](io::ErrorKind::WouldBlock)
    /// if there is none.
    pub(crate) fn send(
        &self,
        bytes: &[IoSlice<'_>],
        set: Option<&AnnouncedSet>,
    ) -> io::Result<usize> {
        match set {
            None => send(self.0.as_fd(), bytes),
            Some(set) => underway::send(&self.0, bytes, set),
        }
    }
}

/// Sends without SIGPIPE. A program that is not a Rust program may not ignore that signal
/// (send(2)).
fn send(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(match slices {
        [bytes] => rustix::net::send(socket, bytes, flags),
        _ => rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags),
    }?)
}

/// Returns whether both ends are bound to the same single CPU (sched_getaffinity(2)). It returns
/// false if the peer cannot be asked.
pub(crate) fn share_one_cpu(socket: BorrowedFd<'_>) -> bool {
    let Ok(own) = sched_getaffinity(None) else { return false };
    if own.count() != 1 {
        return false;
    }
    let peer = getsockopt(&socket, PeerCredentials).ok();
    let peer = peer.and_then(|peer| Pid::from_raw(peer.pid()));
    peer.is_some_and(|peer| sched_getaffinity(Some(peer)).is_ok_and(|peers| peers == own))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;
    use std::time::{Duration, Instant};

    use nix::sys::pthread::{pthread_kill, pthread_self};
    use nix::sys::signal::Signal;
    use samehost_test_support::Wakes;

    use super::*;

    fn pair(watches_room: bool) -> (SocketStream, SocketStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let conn = |stream: UnixStream| {
            stream.set_nonblocking(true).unwrap();
            SocketStream::unix_watching_room(stream.into(), watches_room).unwrap()
        };
        (conn(ours), conn(theirs))
    }

    async fn read_from(conn: &mut SocketStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut buf = ReadBuf::new(&mut bytes);
        poll_fn(|cx| conn.poll_read(cx, &mut buf)).await.unwrap();
        let len = buf.filled().len();
        bytes.truncate(len);
        bytes
    }

    #[tokio::test]
    async fn a_sender_may_be_ahead_by_more_than_the_default() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
        let allowed = allowed.trim().parse::<usize>().unwrap();
        let (plain, _peer) = UnixStream::pair().unwrap();
        let default = sockopt::socket_send_buffer_size(&plain).unwrap();
        let (ours, _theirs) = pair(true);
        let size = sockopt::socket_send_buffer_size(&ours).unwrap();
        assert_eq!(size, default.max(2 * allowed.min(SEND_BUFFER)), "of {default} and {allowed}");
    }

    #[tokio::test]
    async fn a_full_socket_is_written_to_when_there_is_room_and_read_from_meanwhile() {
        full_and_drained(true).await;
        full_and_drained(false).await;
    }

    async fn full_and_drained(watches_room: bool) {
        let (mut ours, mut theirs) = pair(watches_room);
        let chunk = vec![7; 64 * 1024];
        for _ in 0..3 {
            let mut written = 0;
            let noop = &mut Context::from_waker(Waker::noop());
            while let Poll::Ready(bytes) = ours.poll_write(noop, &chunk) {
                written += bytes.unwrap();
            }
            let (got, sent) = tokio::join!(
                read_from(&mut ours, 16),
                poll_fn(|cx| theirs.poll_write(cx, b"hello")),
            );
            assert_eq!((got.as_slice(), sent.unwrap()), (&b"hello"[..], 5));
            let more = poll_fn(|cx| ours.poll_write(cx, &chunk));
            let drain = async {
                let mut left = written;
                while left > 0 {
                    left -= read_from(&mut theirs, left).await.len();
                }
            };
            let (more, ()) = tokio::join!(more, drain);
            let mut left = more.unwrap();
            while left > 0 {
                left -= read_from(&mut theirs, left).await.len();
            }
            assert_eq!(ours.room.is_some(), !watches_room);
            for _ in 0..CALM {
                poll_fn(|cx| ours.poll_write(cx, b"x")).await.unwrap();
                assert_eq!(read_from(&mut theirs, 1).await, b"x");
            }
            assert!(ours.room.is_none());
        }
    }

    #[tokio::test]
    async fn a_full_socket_of_a_process_without_a_free_descriptor_is_watched_itself() {
        let (mut ours, mut theirs) = pair(false);
        let chunk = vec![7; 64 * 1024];
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.waker();
        let cx = &mut Context::from_waker(&waker);
        let mut input = BytesMut::with_capacity(16);
        assert!(ours.poll_receive(cx, &mut input, 16).is_pending());
        let mut written = 0;
        while let Poll::Ready(bytes) = ours.poll_write(cx, &chunk) {
            written += bytes.unwrap();
        }
        ours.room = None;
        let before = wakes.count();
        ours.watch_for_both(cx);
        assert!(wakes.count() > before, "it reads once more");
        assert!(ours.poll_receive(cx, &mut input, 16).is_pending());
        assert!(ours.poll_write(cx, &chunk).is_pending());
        assert!(ours.room.is_none());
        let (got, sent) =
            tokio::join!(read_from(&mut ours, 16), poll_fn(|cx| theirs.poll_write(cx, b"hello")),);
        assert_eq!((got.as_slice(), sent.unwrap()), (&b"hello"[..], 5));
        let drain = async {
            while written > 0 {
                written -= read_from(&mut theirs, written).await.len();
            }
        };
        let (more, ()) = tokio::join!(poll_fn(|cx| ours.poll_write(cx, &chunk)), drain);
        assert!(more.unwrap() > 0);
    }

    /// poll(2) may say so although it does not wait.
    #[tokio::test]
    async fn a_signal_does_not_look_like_the_end() {
        let kind = tokio::signal::unix::SignalKind::user_defined2();
        let _handled = tokio::signal::unix::signal(kind).unwrap();
        let (ours, _theirs) = pair(true);
        let (thread, over) = (pthread_self(), AtomicBool::new(false));
        let looked = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    pthread_kill(thread, Signal::SIGUSR2).unwrap();
                }
            });
            let looked =
                (0..200_000).map(|_| ours.has_unread()).find(|it| !matches!(it, Ok(Some(false))));
            over.store(true, Ordering::Relaxed);
            looked
        });
        assert!(looked.is_none(), "{looked:?}");
    }

    /// Lets the peer send `count` chunks, and reads them. Returns after which of them the socket was not
    /// watched.
    async fn unwatched_after(
        ours: &mut SocketStream,
        theirs: &mut SocketStream,
        count: usize,
    ) -> Vec<usize> {
        const CHUNK: usize = 1024;
        for _ in 0..count {
            let sent = poll_fn(|cx| theirs.poll_write(cx, &[7; CHUNK])).await;
            assert_eq!(sent.unwrap(), CHUNK);
        }
        let mut unwatched = Vec::new();
        for read in 1..=count {
            let mut input = BytesMut::with_capacity(CHUNK);
            let received = poll_fn(|cx| ours.poll_receive(cx, &mut input, CHUNK)).await;
            assert_eq!(received.unwrap(), CHUNK);
            if ours.watched.is_none() {
                unwatched.push(read);
            }
        }
        unwatched
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_socket_that_always_has_more_is_not_watched_on_several_threads() {
        let (mut ours, mut theirs) = pair(true);
        for _ in 0..3 {
            assert_eq!(unwatched_after(&mut ours, &mut theirs, 6).await, [4, 5, 6]);
            // It is watched again where there is nothing, so what comes next wakes the reader.
            let (got, sent) = tokio::join!(
                read_from(&mut ours, 16),
                poll_fn(|cx| theirs.poll_write(cx, b"hello"))
            );
            assert_eq!((got.as_slice(), sent.unwrap()), (&b"hello"[..], 5));
            assert!(ours.watched.is_some());
        }
    }

    #[tokio::test]
    async fn on_one_thread_it_is_watched() {
        let (mut ours, mut theirs) = pair(true);
        assert!(unwatched_after(&mut ours, &mut theirs, 6).await.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_socket_that_a_write_waits_for_is_watched() {
        let (mut ours, mut theirs) = pair(true);
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.waker();
        let mut written = 0;
        while let Poll::Ready(bytes) =
            ours.poll_write(&mut Context::from_waker(&waker), &[7; 64 * 1024])
        {
            written += bytes.unwrap();
        }
        assert!(unwatched_after(&mut ours, &mut theirs, 6).await.is_empty());
        while written > 0 {
            written -= read_from(&mut theirs, written).await.len();
        }
        while wakes.count() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(poll_fn(|cx| ours.poll_write(cx, b"more")).await.unwrap(), 4);
        assert_eq!(unwatched_after(&mut ours, &mut theirs, 2).await, [1, 2]);
    }

    #[tokio::test]
    async fn the_peer_reading_wakes_nobody_where_there_is_one_cpu() {
        let (mut ours, mut theirs) = pair(false);
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.waker();
        let mut cx = Context::from_waker(&waker);
        let mut bytes = [0; 16];
        for round in 0..10 {
            assert!(ours.poll_read(&mut cx, &mut ReadBuf::new(&mut bytes)).is_pending());
            assert!(matches!(ours.poll_write(&mut cx, b"ping"), Poll::Ready(Ok(4))));
            assert_eq!(read_from(&mut theirs, 16).await, b"ping");
            // When this event has come, the runtime has seen every event before it.
            poll_fn(|cx| theirs.poll_write(cx, b"pong")).await.unwrap();
            while wakes.count() == round {
                tokio::task::yield_now().await;
            }
            assert_eq!(read_from(&mut ours, 16).await, b"pong");
            assert_eq!(wakes.count(), round + 1);
        }
    }

    #[tokio::test]
    async fn descriptors_that_came_early_are_closed_and_hold_up_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (pipe, end) = std::io::pipe().unwrap();
        for _ in 0..3 {
            sys::tests::send_descriptor(&theirs, end.as_fd()).unwrap();
        }
        drop(end);
        let mut ours = SocketStream::unix(ours.into()).unwrap();
        // Each read stops at the next descriptor. No event reports what is behind it.
        for _ in 0..3 {
            assert_eq!(read_from(&mut ours, 16).await, b"x");
        }
        // Only descriptors of its other end could keep it open.
        assert_eq!(std::io::read_to_string(pipe).unwrap(), "");
    }

    const LINGER: Duration = Duration::from_secs(20);

    /// Returns a descriptor whose close(2) waits for its unsent data (SO_LINGER, socket(7)), and its
    /// peer, which reads nothing.
    fn lingering() -> (OwnedFd, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        sockopt::set_socket_linger(&ours, Some(LINGER)).unwrap();
        ours.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut &ours, &[0; 1 << 16]).is_ok() {}
        (ours.into(), theirs)
    }

    /// Another thread closes them.
    #[tokio::test]
    async fn descriptors_that_nobody_asked_for_do_not_block_the_reader() {
        for reads_into_own in [false, true] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let (descriptor, unread) = lingering();
            sys::tests::send_descriptor(&theirs, descriptor.as_fd()).unwrap();
            drop(descriptor);
            let mut ours = SocketStream::unix(ours.into()).unwrap();
            let (began, mut input) = (Instant::now(), BytesMut::with_capacity(16));
            match reads_into_own {
                true => assert_eq!(read_from(&mut ours, 16).await, b"x"),
                false => {
                    poll_fn(|cx| ours.poll_receive(cx, &mut input, 16)).await.unwrap();
                    assert_eq!(input, "x");
                }
            }
            assert!(began.elapsed() < LINGER / 2, "the read did not wait for its close");
            drop(unread);
        }
    }

    #[tokio::test]
    async fn the_end_is_read_after_what_came_before_it() {
        let (mut ours, mut theirs) = pair(true);
        poll_fn(|cx| theirs.poll_write(cx, b"last")).await.unwrap();
        theirs.shutdown().unwrap();
        assert_eq!(read_from(&mut ours, 16).await, b"last");
        assert_eq!(read_from(&mut ours, 16).await, b"");
    }
}
