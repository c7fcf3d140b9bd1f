//! The few system calls that rustix and nix do not have, or only with cleared memory. The socket
//! layer's `unsafe` code is here and in `rights`.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use nix::libc::{self, c_int, c_void, socklen_t};
use rustix::net::RecvFlags;

/// Most peers have no more groups than this, so that one call is enough.
const USUAL_GROUPS: usize = 32;

/// It is not in libc. The number is that of asm-generic/socket.h; SPARC has another one.
const SO_PASSRIGHTS: c_int =
    if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x5c } else { 83 };

/// Returns the peer's supplementary groups when it connected (SO_PEERGROUPS, Linux 4.13).
pub(super) fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; USUAL_GROUPS];
    loop {
        let room = socklen(size_of_val(&groups[..]))?;
        let mut bytes = room;
        // SAFETY: `groups` is writable for `bytes` bytes, of a type for which all bits are valid
        // values; the kernel writes no more than that, and to `bytes` how many it wrote or needs.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast::<c_void>(),
                &mut bytes,
            )
        };
        let error = if result == 0 { None } else { Some(io::Error::last_os_error()) };
        match error {
            // The list is fixed when the peer connects, so a second call is always enough.
            Some(error) if error.raw_os_error() != Some(libc::ERANGE) || bytes <= room => {
                return Err(error);
            }
            _ => groups.resize(bytes as usize / size_of::<u32>(), 0),
        }
        if result == 0 {
            groups.shrink_to_fit();
            return Ok(groups);
        }
    }
}

/// Returns whether a peer may attach file descriptors to its bytes on a Unix socket. The error
/// means that this kernel cannot refuse them (SO_PASSRIGHTS, Linux 6.16).
pub(super) fn takes_descriptors(socket: impl AsFd) -> io::Result<bool> {
    let mut value: c_int = 0;
    let mut bytes = socklen(size_of_val(&value))?;
    // SAFETY: `value` is writable for `bytes` bytes, and any bits are a valid `c_int`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw mut value).cast::<c_void>(),
            &mut bytes,
        )
    };
    if result == 0 { Ok(value != 0) } else { Err(io::Error::last_os_error()) }
}

/// Takes or refuses file descriptors from now on. A peer that attaches some to a socket that
/// refuses them gets EPERM. On a listening socket this holds for the clients that connect from now
/// on.
pub(super) fn pass_descriptors(socket: impl AsFd, takes: bool) -> io::Result<()> {
    let value = c_int::from(takes);
    // SAFETY: `value` is readable for the bytes named.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const value).cast::<c_void>(),
            socklen(size_of_val(&value))?,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns whether the peer has read all that was sent on a Unix socket, or has closed its end
/// (SIOCOUTQ, which has the number of TIOCOUTQ; ioctl_tty(2)).
pub(super) fn is_read(socket: impl AsFd) -> io::Result<bool> {
    /// The kernel counts unread messages by the memory that they take, and no message takes less
    /// than this. A message that was read still counts as one byte while the sender is told that
    /// there is room.
    const LEAST: c_int = 256;
    let mut unread: c_int = 0;
    // SAFETY: the call writes a `c_int` to where it is pointed.
    let result =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    if result == 0 { Ok(unread < LEAST) } else { Err(io::Error::last_os_error()) }
}

/// Appends the bytes that are there to `input`, as many as its capacity takes, and at most `most`.
#[inline]
pub(super) fn receive(socket: impl AsFd, input: &mut BytesMut, most: usize) -> io::Result<usize> {
    Ok(receive_with(socket, input, most, RecvFlags::DONTWAIT)?)
}

/// Appends received bytes to `input`, as many as its capacity takes, and at most `most`, without
/// clearing the memory first (recv(2)).
#[inline]
pub(crate) fn receive_with(
    socket: impl AsFd,
    input: &mut BytesMut,
    most: usize,
    flags: RecvFlags,
) -> rustix::io::Result<usize> {
    let room = input.spare_capacity_mut();
    let most = room.len().min(most);
    let room = &mut room[..most];
    let ((received, _), _) = rustix::net::recv(socket, room, flags)?;
    let bytes = received.len();
    // SAFETY: so many bytes of the spare capacity have just been initialized.
    unsafe { input.set_len(input.len() + bytes) };
    Ok(bytes)
}

/// Returns the sockets that systemd passed to this process, with their names. The first call gets
/// all of them or an error, and later calls get `None` (sd_listen_fds(3)).
pub(super) fn passed_descriptors() -> io::Result<Option<Vec<(String, OwnedFd)>>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // This comes first: the numbers may be those of other descriptors by now.
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    check_passed()?;
    let owned = sd_notify::listen_fds_with_names()?.map(|(descriptor, name)| {
        // SAFETY: it is open, because setting its close-on-exec flag has just worked. That it has
        // no other owner cannot be seen. But it did not have that flag before, and std, tokio and
        // this crate open nothing without it. So it came through exec from who named it in
        // LISTEN_FDS for this very process (LISTEN_PID). `TAKEN` ensures that this is done once.
        (name, unsafe { OwnedFd::from_raw_fd(descriptor) })
    });
    Ok(Some(owned.collect()))
}

/// Fails if a descriptor that LISTEN_FDS names is not open, or is close-on-exec. That one cannot have
/// come through exec (execve(2)), so something in this process owns it.
fn check_passed() -> io::Result<()> {
    /// SD_LISTEN_FDS_START of sd_listen_fds(3).
    const FIRST: c_int = 3;
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(());
    }
    let passed = number("LISTEN_FDS").unwrap_or(0);
    for descriptor in (FIRST..=c_int::MAX).take(passed as usize) {
        // SAFETY: the call reads a flag and takes any number.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
        if flags == -1 {
            return Err(io::Error::last_os_error());
        }
        if flags & libc::FD_CLOEXEC != 0 {
            return Err(io::Error::other(format!(
                "descriptor {descriptor} is close-on-exec, so it was not passed to this process, or \
                 other code of it has taken it: unset LISTEN_PID and LISTEN_FDS if no socket is \
                 passed"
            )));
        }
    }
    Ok(())
}

fn socklen(bytes: usize) -> io::Result<socklen_t> {
    socklen_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use rustix::io::Errno;
    use rustix::net::{
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg,
    };
    use rustix::thread::set_thread_groups;

    use super::*;
    use crate::socket::unix::unix_socket;

    #[test]
    fn what_is_received_comes_after_what_was_there_and_never_exceeds_the_capacity() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut theirs, b".0123456789").unwrap();
        let mut input = BytesMut::with_capacity(8);
        input.extend_from_slice(b".");
        let room = input.capacity() - 2;
        assert_eq!(receive(&ours, &mut input, 1).unwrap(), 1, "no more than asked for");
        assert_eq!(receive(&ours, &mut input, usize::MAX).unwrap(), room.min(10));
        assert_eq!(&input[..], &b"..0123456789"[..2 + room.min(10)]);
        input.reserve(8);
        assert_eq!(receive(&ours, &mut input, usize::MAX).unwrap(), 10 - room.min(10));
        let error = receive(&ours, &mut input, usize::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(receive(&ours, &mut input, usize::MAX).unwrap(), 0);
    }

    /// Sends an "x" with a descriptor.
    pub(in crate::socket) fn send_descriptor(
        socket: &UnixStream,
        descriptor: BorrowedFd<'_>,
    ) -> rustix::io::Result<usize> {
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(socket, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty())
    }

    #[test]
    fn groups_are_those_of_the_peer_when_it_connected() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let own = rustix::process::getgroups().unwrap();
        let own: Vec<u32> = own.iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(peer_groups(&ours).unwrap(), own);
        assert!(peer_groups(io::stdin()).is_err());
        drop(theirs);

        // More groups than one call returns. Groups belong to a thread, and only root may set them.
        let many: Vec<u32> = (10_000..10_000 + USUAL_GROUPS as u32 * 3).collect();
        let groups: Vec<_> = many.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
        let pair = std::thread::spawn(move || {
            set_thread_groups(&groups).map(|()| UnixStream::pair().unwrap())
        });
        match pair.join().unwrap() {
            Ok((ours, _theirs)) => assert_eq!(peer_groups(&ours).unwrap(), many),
            Err(errno) => assert_eq!(errno, Errno::PERM),
        }
    }

    #[test]
    fn what_connects_to_a_socket_that_refuses_descriptors_can_send_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        if takes_descriptors(&ours).is_err() {
            // An older kernel.
            assert!(pass_descriptors(&ours, false).is_err());
            return;
        }
        assert!(takes_descriptors(&ours).unwrap());
        assert_eq!(send_descriptor(&theirs, theirs.as_fd()), Ok(1));
        pass_descriptors(&ours, false).unwrap();
        assert!(!takes_descriptors(&ours).unwrap());
        assert_eq!(send_descriptor(&theirs, theirs.as_fd()), Err(Errno::PERM));

        let listener = unix_socket().unwrap();
        let name = format!("samehost-test-{}", std::process::id());
        let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        rustix::net::bind(&listener, &name).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let client = unix_socket().unwrap();
        rustix::net::connect(&client, &name).unwrap();
        let client = UnixStream::from(client);
        assert_eq!(send_descriptor(&client, client.as_fd()), Err(Errno::PERM));
        let (accepted, _) = UnixListener::from(listener).accept().unwrap();
        assert!(!takes_descriptors(&accepted).unwrap());
    }
}
