//! Bytes with open file descriptors beside them (SCM_RIGHTS, unix(7)).
#![allow(unsafe_code, reason = "control messages and unset bytes have no safe wrapper")]

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use nix::libc;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg};

use super::sys;
use super::unix::peer_user;
use crate::descriptors::{MAX_PER_CALL, closer};

/// The size of a control message with the most descriptors that the kernel sends at once, in units
/// of its alignment.
const CONTROL: usize = (rustix::cmsg_space!(ScmRights(MAX_PER_CALL))).div_ceil(size_of::<u64>());

/// Bytes that are read at a time from a socket that is about to be closed.
const PIECE: usize = 16 << 10;

/// The result of one [`receive`].
#[derive(Debug)]
pub(crate) struct ReceivedRights {
    /// The number of bytes: 0 at the end of the stream.
    pub(crate) bytes: usize,
    /// The descriptors, in the order in which they were sent. They are close-on-exec.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether the kernel dropped some, because this process may not open more (RLIMIT_NOFILE).
    pub(crate) truncated: bool,
    /// Whether the packet had more bytes than there was room for. The rest is lost
    /// (SOCK_SEQPACKET).
    pub(crate) cut: bool,
}

/// Sends `bytes`, with `descriptors` beside the first of them. Fails with ETOOMANYREFS if too many of
/// this user's descriptors are on their way already, and with EPERM if the peer takes none.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL * size_of::<u64>()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)
}

/// Appends the bytes that are there to `input`, as many as its capacity takes and at most `most`, up
/// to the first set of descriptors and with it. recvmsg(2) never returns two sets, but may return
/// earlier bytes together with one.
pub(crate) fn receive(
    socket: impl AsFd,
    input: &mut BytesMut,
    most: usize,
) -> io::Result<ReceivedRights> {
    let room = input.spare_capacity_mut();
    let iov_len = room.len().min(most);
    let mut bytes = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len };
    let mut control = [MaybeUninit::<u64>::uninit(); CONTROL];
    // SAFETY: all bits zero are a `msghdr` without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `message` names memory that is writable for the lengths it gives and that lives until
    // after the call.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let Ok(received) = usize::try_from(received) else {
        return Err(io::Error::last_os_error());
    };
    let mut descriptors = Vec::new();
    // SAFETY: recvmsg has filled `control` and set its length; the header is the first message in it
    // or null.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: the header is not null, so it is a message within `control`, whose data have the
        // length that it states. Each descriptor in it is open and has no other owner: the kernel
        // has just made it for this process.
        unsafe {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let len = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..len / size_of::<RawFd>() {
                    let descriptor = ptr::read_unaligned(data.add(index));
                    descriptors.push(OwnedFd::from_raw_fd(descriptor));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    // SAFETY: recvmsg has just written so many bytes of the spare capacity.
    unsafe { input.set_len(input.len() + received) };
    let flag = |flag| message.msg_flags & flag != 0;
    let (truncated, cut) = (flag(libc::MSG_CTRUNC), flag(libc::MSG_TRUNC));
    Ok(ReceivedRights { bytes: received, descriptors, truncated, cut })
}

/// Does the same where nobody has asked for descriptors. Those that come are closed on another
/// thread, without their sockets lingering. recv(2) would close them on this one, and that can block
/// (see [`closer`]). It does so if too many of the user are not closed yet.
pub(super) fn receive_bytes(
    socket: impl AsFd,
    input: &mut BytesMut,
    most: usize,
) -> io::Result<usize> {
    if UNASKED.is_full(|| peer_user(&socket)) {
        return sys::receive(socket, input, most);
    }
    let ReceivedRights { bytes, descriptors, .. } = receive(&socket, input, most)?;
    if !descriptors.is_empty() {
        let user = peer_user(&socket);
        let counted = UNASKED.count(user, descriptors.len());
        closer::close_without_lingering(user, descriptors, counted);
    }
    Ok(bytes)
}

/// Descriptors that came unasked and are not closed yet, by the user that sent them. They are bounded
/// because they take places among those that this process may open.
static UNASKED: Unasked =
    Unasked { all: AtomicUsize::new(0), of_users: Mutex::new(BTreeMap::new()) };

struct Unasked {
    all: AtomicUsize,
    of_users: Mutex<BTreeMap<Option<u32>, usize>>,
}

/// Some of them, which count until this is dropped.
struct CountedUnasked {
    unasked: &'static Unasked,
    user: Option<u32>,
    count: usize,
}

impl Unasked {
    /// Returns whether the user has as many as one set may have.
    #[inline]
    fn is_full(&self, user: impl FnOnce() -> Option<u32>) -> bool {
        self.all.load(Ordering::Relaxed) > 0
            && self.lock().get(&user()).is_some_and(|count| *count >= MAX_PER_CALL)
    }

    fn count(&'static self, user: Option<u32>, count: usize) -> CountedUnasked {
        *self.lock().entry(user).or_default() += count;
        self.all.fetch_add(count, Ordering::Relaxed);
        CountedUnasked { unasked: self, user, count }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<u32>, usize>> {
        self.of_users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedUnasked {
    fn drop(&mut self) {
        let Self { unasked, user, count } = self;
        let mut users = unasked.lock();
        let left = users.get(user).map_or(0, |all| all.saturating_sub(*count));
        match left {
            0 => drop(users.remove(user)),
            left => drop(users.insert(*user, left)),
        }
        unasked.all.fetch_sub(*count, Ordering::Relaxed);
    }
}

/// Returns why a connection ends if its descriptors can neither be held nor closed.
pub(super) fn behind() -> io::Error {
    io::Error::other("too many file descriptors from its user wait to be closed")
}

/// Closes a socket on a thread for that purpose, because closing it also closes descriptors that
/// may lie unread in it.
pub(super) fn close(socket: OwnedFd) {
    closer::run(peer_user(&socket), 1, move |hurries| {
        if hurries {
            // The peer cannot add any after that.
            let _ = rustix::net::shutdown(&socket, Shutdown::Both);
            let mut bytes = BytesMut::with_capacity(PIECE);
            while let Ok(received) = receive(&socket, &mut bytes, PIECE) {
                received.descriptors.iter().for_each(closer::do_not_linger);
                if received.bytes == 0 {
                    break;
                }
                bytes.clear();
            }
        }
        drop(socket);
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::fs::fstat;

    use super::*;

    fn inode(descriptor: impl AsFd) -> u64 {
        fstat(descriptor).unwrap().st_ino
    }

    #[test]
    fn sets_arrive_one_at_a_time_with_their_first_byte_and_close_on_exec() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        rustix::net::send(&theirs, b"before", SendFlags::empty()).unwrap();
        assert_eq!(send(&theirs, b"one", &[ours.as_fd()]), Ok(3));
        assert_eq!(send(&theirs, b"two", &[theirs.as_fd(), ours.as_fd()]), Ok(3));

        let mut input = BytesMut::with_capacity(64);
        let first = receive(&ours, &mut input, usize::MAX).unwrap();
        assert_eq!((&input[..], first.bytes), (&b"beforeone"[..], 9), "glued to what was before");
        assert_eq!(first.descriptors.len(), 1);
        assert_eq!(inode(&first.descriptors[0]), inode(&ours));
        let flags = rustix::io::fcntl_getfd(&first.descriptors[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));

        let second = receive(&ours, &mut input, usize::MAX).unwrap();
        let inodes: Vec<_> = second.descriptors.iter().map(inode).collect();
        assert_eq!((second.bytes, inodes), (3, vec![inode(&theirs), inode(&ours)]));
        assert!(!second.truncated);
        let error = receive(&ours, &mut input, usize::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        // The copies in `second` keep the other end open.
        drop(second);
        assert_eq!(receive(&ours, &mut input, usize::MAX).unwrap().bytes, 0);
    }

    #[test]
    fn unasked_descriptors_count_by_user_until_they_are_closed() {
        let unasked = Unasked { all: AtomicUsize::new(0), of_users: Mutex::default() };
        let unasked: &'static Unasked = Box::leak(Box::new(unasked));
        let some = unasked.count(Some(7), MAX_PER_CALL - 1);
        assert!(!unasked.is_full(|| Some(7)));
        let more = unasked.count(Some(7), 1);
        assert!(unasked.is_full(|| Some(7)));
        assert!(!unasked.is_full(|| Some(8)));
        drop(some);
        assert!(!unasked.is_full(|| Some(7)));
        drop(more);
        assert!(unasked.lock().is_empty());
    }

    #[test]
    fn the_most_that_the_kernel_sends_at_once_arrive() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let many = [ours.as_fd(); MAX_PER_CALL];
        assert_eq!(send(&theirs, b"x", &many), Ok(1));
        let mut input = BytesMut::with_capacity(1);
        let received = receive(&ours, &mut input, usize::MAX).unwrap();
        assert_eq!((received.descriptors.len(), received.truncated), (MAX_PER_CALL, false));
        let one_more = [ours.as_fd(); MAX_PER_CALL + 1];
        assert_eq!(send(&theirs, b"x", &one_more), Err(rustix::io::Errno::INVAL));
    }
}
