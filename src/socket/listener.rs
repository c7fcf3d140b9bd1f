//! [`Listener`]: a bound address that accepts connections.

use std::io;

use tokio::net::{TcpListener, UnixListener};

use super::bind::{BindError, BindOptions};
use super::conn::Conn;
use super::file::SocketFile;
use crate::address::Address;

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
    /// See [`BindOptions::bind`].
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        BindOptions::new().bind(address).await
    }

    pub(super) fn unix(address: Address, socket: UnixListener, file: Option<SocketFile>) -> Self {
        Self { address, file, socket: Socket::Unix(socket) }
    }

    pub(super) fn tcp(address: Address, socket: TcpListener) -> Self {
        Self { address, file: None, socket: Socket::Tcp(socket) }
    }

    /// What it listens on. For TCP, the IP address and port that were bound, so port 0 reads as
    /// the port that the kernel chose.
    pub fn local_addr(&self) -> &Address {
        &self.address
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// Those of accept(2). They concern one connection or the moment (`EMFILE`, `ECONNABORTED`);
    /// the listener goes on.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it loses no connection.
    pub async fn accept(&self) -> io::Result<Conn> {
        match &self.socket {
            Socket::Unix(listener) => Ok(Conn::unix(listener.accept().await?.0)),
            Socket::Tcp(listener) => Conn::tcp(listener.accept().await?.0),
        }
    }

    /// Removes the socket's file and lets a successor bind the path. Clients that have connected
    /// already can still be accepted.
    pub(crate) fn unpublish(&mut self) {
        self.file = None;
    }
}
