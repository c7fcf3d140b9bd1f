//! [`ConnectionSource`]: a source of a server's connections.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::address::Address;
use crate::driver::{Sleeping, Socket};
use crate::socket::{Conn, Listener, Peer};

/// A connection that has just been accepted.
pub(super) struct Accepted<T> {
    pub(super) io: T,
    pub(super) peer: Peer,
    /// Whether `:authority` may have any value: see [`Config`](crate::http2::Config).
    pub(super) any_authority: bool,
}

pub(super) trait ConnectionSource: Send + 'static {
    type Io: Socket + Send + 'static;

    /// Waits for the next connection. Returns `None` after the last one. Cancelling it loses no
    /// connection.
    fn accept(&mut self) -> impl Future<Output = Option<io::Result<Accepted<Self::Io>>>> + Send;

    /// Stops new clients from connecting. Those that have connected already can still be
    /// [accepted](Self::accept_queued).
    fn unpublish(&mut self) {}

    /// Returns the next connection of the queue without waiting, if there is one.
    fn accept_queued(&mut self) -> io::Result<Option<Accepted<Self::Io>>> {
        Ok(None)
    }

    /// Returns the address that the log shows.
    fn address(&self) -> Option<&Address> {
        None
    }

    /// Returns whether a successor has taken over the socket.
    fn is_handed_over(&self) -> bool {
        false
    }

    /// Returns whether another process has the same socket, and can accept the connections in its
    /// queue.
    fn is_inherited(&self) -> bool {
        false
    }
}

impl From<Conn> for Accepted<Conn> {
    fn from(conn: Conn) -> Self {
        Self { peer: Peer::of(Some(&conn)), any_authority: conn.is_unix(), io: conn }
    }
}

impl ConnectionSource for Listener {
    type Io = Conn;

    async fn accept(&mut self) -> Option<io::Result<Accepted<Conn>>> {
        match Self::accept(self).await {
            Err(_) if Self::is_handed_over(self) => None,
            accepted => Some(accepted.map(Accepted::from)),
        }
    }

    fn unpublish(&mut self) {
        Self::unpublish(self);
    }

    fn accept_queued(&mut self) -> io::Result<Option<Accepted<Conn>>> {
        Ok(Self::accept_queued(self)?.map(Accepted::from))
    }

    fn address(&self) -> Option<&Address> {
        Some(self.local_addr())
    }

    fn is_handed_over(&self) -> bool {
        Self::is_handed_over(self)
    }

    fn is_inherited(&self) -> bool {
        Self::is_inherited(self)
    }
}

/// A stream of connections that the caller accepts.
pub(super) struct StreamIncoming<I>(pub(super) Pin<Box<I>>);

impl<I, T> ConnectionSource for StreamIncoming<I>
where
    I: Stream<Item = io::Result<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Io = Sleeping<T>;

    async fn accept(&mut self) -> Option<io::Result<Accepted<Sleeping<T>>>> {
        let next = poll_fn(|cx| self.0.as_mut().poll_next(cx)).await?;
        Some(next.map(|stream| Accepted::of_stream(stream)))
    }
}

impl<T: AsyncRead + AsyncWrite + 'static> Accepted<Sleeping<T>> {
    /// Makes a connection of any stream. The peer is known if the stream is a [`Conn`].
    pub(super) fn of_stream(stream: T) -> Self {
        let conn = (&stream as &dyn Any).downcast_ref::<Conn>();
        let any_authority = conn.is_none_or(Conn::is_unix);
        Self { peer: Peer::of(conn), any_authority, io: Sleeping::new(stream) }
    }
}
