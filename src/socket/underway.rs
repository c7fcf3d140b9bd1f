//! [`Underway`]: descriptors that this process has sent and whose receivers have not read them yet.
//!
//! The kernel counts them for each user. Once a user has more than RLIMIT_NOFILE, the kernel
//! refuses further ones to all processes of that user (unix(7), ETOOMANYREFS). So a peer that does
//! not read gets only a part of them, and so does a foreign user.
//!
//! A sender is not told when a message was read. It asks whether any bytes are left unread (SIOCOUTQ).

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::unix::peer_user;
use super::{rights, sys};
use crate::descriptors::{AnnouncedSet, Quota, Quotas, Reservation};

/// How many may be underway on one connection before the next set waits until all were read. A set
/// that is larger waits likewise, and then goes alone.
const MOST: usize = 64;

/// How many open connections are checked when another one is registered.
const LOOKS: usize = 4;

/// How many are checked if a quota is used up.
const LOOKS_FOR_ROOM: usize = 256;

/// How often closed connections are checked.
const PERIOD: Duration = Duration::from_millis(500);

/// The descriptors of this process.
static UNDERWAY: LazyLock<Underway> = LazyLock::new(|| Underway::new(Quotas::underway()));

/// A connected socket, and what was sent on it.
pub(super) trait SendingSocket: AsFd + fmt::Debug + Send + Sync + 'static {
    fn sent(&self) -> &Mutex<Sent>;
}

/// The descriptors that are underway on one connection.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The quotas that count it, set once some were sent.
    quotas: Vec<Arc<Quota>>,
    reservations: Vec<Reservation>,
    /// Whether the socket is in the list of open ones.
    registered: bool,
}

struct Underway {
    quotas: Arc<Quotas>,
    sockets: Mutex<SendingSockets>,
}

#[derive(Default)]
struct SendingSockets {
    /// Open connections on which some were sent. Those whose last check is the longest ago come
    /// first.
    open: VecDeque<Weak<dyn SendingSocket>>,
    /// Sockets of connections that have ended. Their peers may still read what was sent.
    closed: Vec<(OwnedFd, Sent)>,
    /// The process whose thread checks `closed` from time to time. A child of fork(2) has no thread of its
    /// parent's.
    watched_by: Option<u32>,
}

/// Sends `bytes` with the descriptors of `set` beside the first of them. Fails with
/// [`WouldBlock`](io::ErrorKind::WouldBlock) as long as this peer has to read first, with
/// ETOOMANYREFS if other peers have to, and with [`NotFound`](io::ErrorKind::NotFound) if the
/// descriptors are no longer there.
pub(super) fn send<S: SendingSocket>(
    socket: &Arc<S>,
    bytes: &[IoSlice<'_>],
    set: &AnnouncedSet,
) -> io::Result<usize> {
    UNDERWAY.send(socket, bytes.first().map_or(&[][..], |bytes| bytes), set)
}

/// Takes the socket of a connection that has ended, and what was sent on it. The socket is closed
/// when the peer has read that, or has closed its own end.
pub(super) fn close(socket: OwnedFd, sent: Sent) {
    if is_read(&socket) {
        rights::close(socket);
    } else {
        let _ = rustix::net::shutdown(&socket, Shutdown::Both);
        UNDERWAY.watch(socket, sent);
    }
}

impl Sent {
    pub(super) fn count(&self) -> usize {
        self.reservations.iter().map(Reservation::count).sum()
    }
}

impl Underway {
    fn new(quotas: Arc<Quotas>) -> Self {
        Self { quotas, sockets: Mutex::default() }
    }

    fn send<S: SendingSocket>(
        &self,
        socket: &Arc<S>,
        bytes: &[u8],
        set: &AnnouncedSet,
    ) -> io::Result<usize> {
        let mut sent = socket.sent().lock().unwrap_or_else(PoisonError::into_inner);
        if sent.count() > 0 && is_read(socket) {
            sent.reservations.clear();
        }
        if sent.quotas.is_empty() {
            sent.quotas = self.quotas.of_user(peer_user(socket));
        }
        let written = set.with(|list| {
            if sent.count() > 0 && sent.count() + list.len() > MOST {
                return Err(io::Error::from(io::ErrorKind::WouldBlock));
            }
            let Some(reservation) = self.reserve(list.len(), &sent.quotas) else {
                // The peer of this connection makes room when it reads, and the runtime reports
                // that.
                let errno = if sent.count() > 0 { Errno::AGAIN } else { Errno::TOOMANYREFS };
                return Err(errno.into());
            };
            let list: Vec<_> = list.iter().map(AsFd::as_fd).collect();
            let written = rights::send(socket, bytes, &list)?;
            sent.reservations.push(reservation);
            Ok(written)
        })?;
        if !sent.registered {
            sent.registered = true;
            let socket: Arc<dyn SendingSocket> = Arc::<S>::clone(socket);
            self.register(Arc::downgrade(&socket));
        }
        Ok(written)
    }

    fn reserve(&self, count: usize, quotas: &[Arc<Quota>]) -> Option<Reservation> {
        Reservation::new(count, quotas).or_else(|| {
            self.look(LOOKS_FOR_ROOM);
            self.sockets().look_at_closed();
            Reservation::new(count, quotas)
        })
    }

    fn register(&self, socket: Weak<dyn SendingSocket>) {
        self.look(LOOKS);
        self.sockets().open.push_back(socket);
    }

    /// Checks `count` open connections. If the peer has read everything, nothing is underway on it
    /// any more.
    fn look(&self, count: usize) {
        // The last reference to a socket may be among them. Dropping it takes the lock.
        let mut looked_at = Vec::new();
        let mut sockets = self.sockets();
        for _ in 0..count.min(sockets.open.len()) {
            let Some(weak) = sockets.open.pop_front() else { break };
            let Some(socket) = weak.upgrade() else { continue };
            let is_done = match socket.sent().try_lock() {
                Ok(mut sent) if is_read(&socket) => {
                    *sent = Sent::default();
                    true
                }
                Ok(_) => false,
                // The connection is sending right now.
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Poisoned(_)) => true,
            };
            if !is_done {
                sockets.open.push_back(weak);
            }
            looked_at.push(socket);
        }
        drop(sockets);
    }

    fn watch(&'static self, socket: OwnedFd, sent: Sent) {
        let mut sockets = self.sockets();
        sockets.closed.push((socket, sent));
        let process = std::process::id();
        if sockets.watched_by != Some(process) {
            let thread = std::thread::Builder::new().name("samehost-unread".into());
            sockets.watched_by = thread.spawn(|| self.watch_closed()).is_ok().then_some(process);
        }
    }

    fn watch_closed(&self) {
        loop {
            std::thread::sleep(PERIOD);
            let mut sockets = self.sockets();
            sockets.look_at_closed();
            if sockets.closed.is_empty() {
                sockets.watched_by = None;
                return;
            }
        }
    }

    fn sockets(&self) -> MutexGuard<'_, SendingSockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SendingSockets {
    fn look_at_closed(&mut self) {
        for (socket, sent) in self.closed.extract_if(.., |(socket, _)| is_read(&*socket)) {
            drop(sent);
            rights::close(socket);
        }
    }
}

/// Returns whether the peer has read all that was sent, or has closed its end.
fn is_read(socket: impl AsFd) -> bool {
    // If the socket cannot be asked, it has no peer any more.
    sys::is_read(socket).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;

    use bytes::BytesMut;

    use super::*;
    use crate::descriptors::Descriptors;

    #[derive(Debug)]
    struct TestSocket(UnixStream, Mutex<Sent>);

    impl AsFd for TestSocket {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl SendingSocket for TestSocket {
        fn sent(&self) -> &Mutex<Sent> {
            &self.1
        }
    }

    fn pair() -> (Arc<TestSocket>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(TestSocket(ours, Mutex::default())), theirs)
    }

    fn some(count: usize) -> AnnouncedSet {
        let set: Descriptors = (0..count).map(|_| UnixStream::pair().unwrap().0).collect();
        AnnouncedSet::new(&set).unwrap()
    }

    fn read(peer: &UnixStream) -> usize {
        rights::receive(peer, &mut BytesMut::with_capacity(64), 64).unwrap().descriptors.len()
    }

    /// The peer would take that for an error of this connection.
    #[test]
    fn nothing_is_sent_of_a_set_that_was_taken_back() {
        let (ours, mut theirs) = pair();
        let descriptors = Descriptors::from([UnixStream::pair().unwrap().0]);
        let set = AnnouncedSet::new(&descriptors).unwrap();
        drop(descriptors.take());
        let error = send(&ours, &[IoSlice::new(b"x")], &set).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        drop(ours);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the end");
        assert!(AnnouncedSet::new(&descriptors).is_none(), "then no frame announces it");
    }

    fn refused(sent: io::Result<usize>) -> Errno {
        Errno::from_io_error(&sent.unwrap_err()).unwrap_or(Errno::AGAIN)
    }

    #[test]
    fn a_connection_whose_peer_does_not_read_waits_until_it_does() {
        let underway = Underway::new(Quotas::of(1_000, 1_000));
        let (ours, theirs) = pair();
        let set = some(MOST / 2);
        for _ in 0..2 {
            assert_eq!(underway.send(&ours, b"x", &set).unwrap(), 1);
        }
        assert_eq!(refused(underway.send(&ours, b"x", &set)), Errno::AGAIN);
        assert_eq!(read(&theirs), MOST / 2);
        assert_eq!(refused(underway.send(&ours, b"x", &set)), Errno::AGAIN);
        assert_eq!(read(&theirs), MOST / 2);
        // A set that is larger than the maximum goes alone.
        assert_eq!(underway.send(&ours, b"x", &some(MOST + 1)).unwrap(), 1);
        assert_eq!(refused(underway.send(&ours, b"x", &some(1))), Errno::AGAIN);
    }

    #[test]
    fn a_child_whose_parent_had_a_thread_makes_its_own() {
        let underway: &'static Underway = Box::leak(Box::new(Underway::new(Quotas::of(1, 1))));
        underway.sockets().watched_by = Some(std::process::id() + 1);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        underway.watch(ours.into(), Sent::default());
        theirs.set_read_timeout(Some(PERIOD * 100)).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "it is closed");
    }

    #[test]
    fn one_user_takes_its_share_and_what_was_read_makes_room() {
        let underway = Underway::new(Quotas::of(3, 3));
        let (first, first_peer) = pair();
        let (second, second_peer) = pair();
        underway.send(&first, b"x", &some(2)).unwrap();
        underway.send(&second, b"x", &some(1)).unwrap();
        // This connection's peer has to read, and then the first one's peer.
        assert_eq!(refused(underway.send(&second, b"x", &some(1))), Errno::AGAIN);
        read(&second_peer);
        assert_eq!(refused(underway.send(&second, b"x", &some(2))), Errno::TOOMANYREFS);
        read(&first_peer);
        underway.send(&second, b"x", &some(2)).unwrap();
        assert_eq!(first.1.lock().unwrap().count(), 0);
    }

    #[test]
    fn a_connection_that_has_ended_counts_until_its_peer_has_read() {
        let underway: &'static _ = Box::leak(Box::new(Underway::new(Quotas::of(2, 2))));
        let (ours, theirs) = pair();
        underway.send(&ours, b"x", &some(2)).unwrap();
        let TestSocket(socket, sent) = Arc::into_inner(ours).unwrap();
        underway.watch(socket.into(), sent.into_inner().unwrap());
        let (other, _other_peer) = pair();
        assert_eq!(refused(underway.send(&other, b"x", &some(1))), Errno::TOOMANYREFS);
        assert_eq!(read(&theirs), 2);
        underway.send(&other, b"x", &some(1)).unwrap();
        // The socket itself is closed now, or within a moment.
        assert_eq!((&theirs).read(&mut [0]).unwrap(), 0);
        assert!(underway.sockets().closed.is_empty());
    }
}
