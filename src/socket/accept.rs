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

    /// Waits for the next connection. If it is cancelled, no connection is lost. It fails with EINVAL
    /// once another process that has the same socket has shut it down, as a successor does when it
    /// ends: then accept(2) says only that nothing is there, and epoll(7) that something is.
    pub(super) async fn accept(&self, address: &Address) -> io::Result<Conn> {
        loop {
            let mut ready = self.socket.readable().await?;
            match self.accept_queued(address)? {
                Some(conn) => return Ok(conn),
                None if ready.ready().is_read_closed() => return Err(Errno::INVAL.into()),
                None => ready.clear_ready(),
            }
        }
    }

    /// Returns the next connection that is in the queue right now, if there is one. The connection
    /// knows its peer's identity. A connection whose identity cannot be read, or that has failed,
    /// is closed: its peer caused that, and no other peer has to wait for it. One that the runtime cannot
    /// watch is closed, too, with an error.
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
            // It is not the peer's fault if epoll(7) can watch no more.
            let conn = if self.is_unix { Conn::unix(stream)? } else { Conn::tcp(stream)? };
            match conn.identified(address) {
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// On a runtime of one thread, nothing else would run there any more.
    #[test]
    fn a_socket_that_was_shut_down_is_no_reason_to_try_without_end() {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("app.sock");
                let listener = UnixListener::bind(&path).unwrap();
                listener.set_nonblocking(true).unwrap();
                let listener = ListeningSocket::new(listener.into(), true).unwrap();
                rustix::net::shutdown(&listener, rustix::net::Shutdown::Read).unwrap();
                let accepted = listener.accept(&Address::unix(path).unwrap()).await;
                tell.send(accepted.map(drop).map_err(|error| error.kind())).unwrap();
            });
        });
        let outcome = told.recv_timeout(Duration::from_secs(20)).expect("it returns");
        assert_eq!(outcome, Err(io::ErrorKind::InvalidInput));
    }
}
