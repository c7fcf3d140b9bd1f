//! What both ends of a Unix socket need: new sockets, the peer's user, and the inode of a socket's file.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::sys;

/// Creates a Unix stream socket, non-blocking and close-on-exec.
pub(super) fn unix_socket() -> rustix::io::Result<OwnedFd> {
    new_socket(SocketType::STREAM)
}

/// Creates a Unix socket, non-blocking and close-on-exec. A stream socket refuses file descriptors
/// from its peers if the kernel can do that, and so do the sockets that it accepts.
pub(super) fn new_socket(kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    if kind == SocketType::STREAM {
        let _ = sys::pass_descriptors(&socket, false);
    }
    Ok(socket)
}

/// Returns whether it is a socket of this type that listens (socket(7), SO_ACCEPTCONN).
pub(super) fn is_listener(socket: &OwnedFd, kind: SocketType) -> bool {
    sockopt::socket_acceptconn(socket).unwrap_or(false) && sockopt::socket_type(socket) == Ok(kind)
}

/// Returns the user of the process at the other end (unix(7), SO_PEERCRED).
pub(super) fn peer_user(socket: impl AsFd) -> Option<u32> {
    sockopt::socket_peercred(socket).ok().map(|peer| peer.uid.as_raw())
}

/// Opens the file of this name in a directory, only to refer to it (`O_PATH`, open(2)). A symbolic
/// link is not followed.
pub(super) fn open_inode(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Connects a new stream socket to a socket's inode. The result tells whether a server listens on
/// it.
pub(super) fn probe(inode: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let address = SocketAddrUnix::new(by_descriptor(inode))?;
    rustix::net::connect(unix_socket()?, &address)
}

/// Returns a path that leads to the descriptor's open file, however long the file's own path is
/// (proc(5)).
pub(super) fn by_descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

pub(super) fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns the kind of a file for messages, with its article.
pub(super) fn kind_name(stat: &Stat) -> &'static str {
    match file_type(stat) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "something unknown",
    }
}
