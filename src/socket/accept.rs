//! [`ListeningSocket`]: one socket that accepts connections, Unix or TCP. It tells whether an error
//! of accept(2) concerns one connection or the listener.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::io::unix::AsyncFd;

use super::conn::Conn;
use crate::address::Address;
use crate::runtime::asynchronous;

/// A socket that listens, registered with the runtime.
#[derive(Debug)]
pub(super) struct ListeningSocket {
    socket: AsyncFd<OwnedFd>,
    is_unix: bool,
}

impl ListeningSocket {
    /// Returns the listener of a socket that does not block.
    pub(super) fn new(socket: OwnedFd, is_unix: bool) -> io::Result<Self> {
        Ok(Self { socket: asynchronous(socket)?, is_unix })
    }

    pub(super) fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// Waits for the next connection. If it is cancelled, no connection is lost.
    pub(super) async fn accept(&self, address: &Address) -> io::Result<Conn> {
        loop {
            let mut ready = self.socket.readable().await?;
            match self.accept_queued(address)? {
                Some(conn) => return Ok(conn),
                None => ready.clear_ready(),
            }
        }
    }

    /// Returns the next connection that is in the queue right now, if there is one. The connection
    /// knows its peer's identity. A connection whose identity cannot be read, or that has failed,
    /// is closed: its peer caused that, and no other peer has to wait for it.
    pub(super) fn accept_queued(&self, address: &Address) -> io::Result<Option<Conn>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let stream = match rustix::net::accept_with(&self.socket, flags) {
                Ok(stream) => stream,
                Err(Errno::AGAIN) => return Ok(None),
                // The client has gone already (accept(2)).
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let conn = if self.is_unix { Conn::unix(stream) } else { Conn::tcp(stream) };
            match conn.and_then(|conn| conn.identified(address)) {
                Ok(conn) => return Ok(Some(conn)),
                Err(error) => tracing::debug!(%address, %error, "not accepted"),
            }
        }
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
