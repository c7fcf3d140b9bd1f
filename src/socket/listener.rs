//! [`Listener`]: a bound address that accepts connections.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
#[cfg(feature = "tonic-transport")]
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};
use tokio::net::{TcpListener, UnixListener};

use super::bind::{BindError, BindOptions};
use super::conn::Conn;
use super::file::SocketFile;
use crate::address::Address;
use crate::backoff::Backoff;

/// How long nothing is accepted after accept(2) has failed, so that a process without file
/// descriptors neither spins nor stops accepting.
pub(crate) const ACCEPT_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(5), Duration::from_secs(1));

/// A bound address that accepts connections: a Unix socket or a TCP port.
///
/// Dropping it closes the socket and removes the socket's file, unless another file has taken its
/// place since.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    /// Before the socket: the file goes first, so that no client finds a name without a server.
    file: Option<SocketFile>,
    socket: Socket,
    /// Another process has the socket, too.
    inherited: bool,
    /// As a stream, how long it accepts nothing after the next failure, and until when after the last.
    #[cfg(feature = "tonic-transport")]
    backoff: (Backoff, Option<Pin<Box<tokio::time::Sleep>>>),
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Binds `address` with the defaults of [`BindOptions`].
    ///
    /// # Errors
    ///
    /// See [`BindOptions::bind`], which also tells of cancellation and panics.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        BindOptions::new().bind(address).await
    }

    pub(super) fn unix(address: Address, socket: UnixListener, file: Option<SocketFile>) -> Self {
        Self::new(address, file, Socket::Unix(socket))
    }

    pub(super) fn tcp(address: Address, socket: TcpListener) -> Self {
        Self::new(address, None, Socket::Tcp(socket))
    }

    fn new(address: Address, file: Option<SocketFile>, socket: Socket) -> Self {
        Self {
            address,
            file,
            socket,
            inherited: false,
            #[cfg(feature = "tonic-transport")]
            backoff: (ACCEPT_BACKOFF, None),
        }
    }

    /// What it listens on. For TCP, the IP address and port that were bound, so port 0 reads as
    /// the port that the kernel chose.
    pub fn local_addr(&self) -> &Address {
        &self.address
    }

    /// The same, of a socket that another process has as well.
    pub(super) fn inherited(mut self) -> Self {
        self.inherited = true;
        self
    }

    /// Whether connections that nobody accepts here may be accepted by another process.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Whether its connections know who their peers are, as those of Unix sockets do.
    pub(crate) fn knows_peers(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    /// Waits for the next connection. Over a Unix socket it knows its peer's identity; one whose
    /// identity can't be read is closed, as is one that has failed by itself.
    ///
    /// # Errors
    ///
    /// Those of accept(2) that concern the moment, such as `EMFILE`: they are likely to come again at
    /// once. The listener goes on.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it loses no connection.
    pub async fn accept(&self) -> io::Result<Conn> {
        loop {
            let accepted = match &self.socket {
                Socket::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| Conn::unix(stream.into_std()?.into()))
                }
                Socket::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| Conn::tcp(stream.into_std()?.into()))
                }
            };
            match accepted {
                Ok(conn) => {
                    if let Some(conn) = self.identified(conn) {
                        return Ok(conn);
                    }
                }
                // A client that has gone again (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// With its peer's identity. `None`: something failed that concerns this connection alone, and
    /// that a peer can bring about. So nobody else has to wait for it.
    fn identified(&self, conn: io::Result<Conn>) -> Option<Conn> {
        conn.and_then(|conn| conn.identified(&self.address))
            .inspect_err(|error| tracing::debug!(address = %self.address, %error, "not accepted"))
            .ok()
    }

    /// [`Listener::accept`] for a single task, which waits after an error.
    #[cfg(feature = "tonic-transport")]
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        let (backoff, sleep) = &mut self.backoff;
        if let Some(asleep) = sleep {
            ready!(asleep.as_mut().poll(cx));
            *sleep = None;
        }
        let accepted = match &self.socket {
            Socket::Unix(listener) => ready!(listener.poll_accept(cx))
                .and_then(|(stream, _)| Conn::unix(stream.into_std()?.into())),
            Socket::Tcp(listener) => ready!(listener.poll_accept(cx))
                .and_then(|(stream, _)| Conn::tcp(stream.into_std()?.into())),
        }
        .and_then(|conn| conn.identified(&self.address));
        match accepted {
            Ok(_) => backoff.reset(),
            Err(_) => *sleep = Some(Box::pin(tokio::time::sleep(backoff.next()))),
        }
        Poll::Ready(accepted)
    }

    /// The next connection that is in the queue right now, if there is one. `accept` would not do:
    /// it asks the kernel only after the runtime has heard of a connection, and only so often in
    /// one turn of a task.
    pub(crate) fn accept_queued(&self) -> io::Result<Option<Conn>> {
        let socket = match &self.socket {
            Socket::Unix(listener) => listener.as_fd(),
            Socket::Tcp(listener) => listener.as_fd(),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let stream = match rustix::net::accept_with(socket, flags) {
                Ok(stream) => stream,
                Err(Errno::AGAIN) => return Ok(None),
                // As above: no reason to leave the others.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let conn = match &self.socket {
                Socket::Unix(_) => Conn::unix(stream),
                Socket::Tcp(_) => Conn::tcp(stream),
            };
            if let Some(conn) = self.identified(conn) {
                return Ok(Some(conn));
            }
        }
    }

    /// Removes the socket's file and lets a successor bind the path. Clients that have connected
    /// already can still be accepted.
    pub(crate) fn unpublish(&mut self) {
        self.file = None;
        if !self.inherited
            && let Socket::Unix(listener) = &self.socket
        {
            // Who has found the file but not connected yet is refused from now on, rather than reset
            // when the socket closes; the queue stays (`unix_stream_connect` in Linux' af_unix.c).
            let _ = rustix::net::shutdown(listener, Shutdown::Read);
        }
    }
}

#[cfg(all(test, feature = "tonic-transport"))]
mod tests {
    use std::future::poll_fn;

    use rustix::net::Shutdown;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn as_a_stream_it_pauses_after_each_failure() {
        let mut listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let Socket::Tcp(socket) = &listener.socket else { unreachable!("{listener:?}") };
        // It listens no longer, and accept(2) fails from now on.
        rustix::net::shutdown(socket, Shutdown::Read).unwrap();
        let started = Instant::now();
        for pauses in [0, 5, 5 + 10, 5 + 10 + 20] {
            poll_fn(|cx| listener.poll_accept(cx)).await.unwrap_err();
            let elapsed = started.elapsed().as_millis();
            // The timer counts whole milliseconds.
            assert!((pauses..pauses + 5).contains(&elapsed), "{elapsed} after {pauses}");
        }
    }
}
