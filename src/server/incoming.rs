//! [`Incoming`]: where a server's connections come from.

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
    /// `:authority` has no meaning on it: see [`Config`](crate::http2::Config).
    pub(super) any_authority: bool,
}

/// A source of connections.
pub(super) trait Incoming: Send + 'static {
    type Io: Socket + Send + 'static;

    /// Waits for the next connection; `None` after the last one. Cancelled, it loses none.
    fn accept(&mut self) -> impl Future<Output = Option<io::Result<Accepted<Self::Io>>>> + Send;

    /// Lets nobody connect any more. What has connected already can still be
    /// [taken](Self::accept_queued).
    fn unpublish(&mut self) {}

    /// The next connection that is there right now, if there is one.
    fn accept_queued(&mut self) -> io::Result<Option<Accepted<Self::Io>>> {
        Ok(None)
    }

    /// For the log.
    fn address(&self) -> Option<&Address> {
        None
    }

    /// Whether a successor has taken the socket over.
    fn is_handed_over(&self) -> bool {
        false
    }

    /// Whether connections that nobody accepts here wait for another process that has the same socket.
    fn is_inherited(&self) -> bool {
        false
    }
}

impl From<Conn> for Accepted<Conn> {
    fn from(conn: Conn) -> Self {
        Self { peer: Peer::of(Some(&conn)), any_authority: conn.is_unix(), io: conn }
    }
}

impl Incoming for Listener {
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

/// A stream of connections that somebody else accepts.
pub(super) struct Given<I>(pub(super) Pin<Box<I>>);

impl<I, T> Incoming for Given<I>
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
    /// Of any stream. It knows its peer where it is a [`Conn`].
    pub(super) fn of_stream(stream: T) -> Self {
        let conn = (&stream as &dyn Any).downcast_ref::<Conn>();
        let any_authority = conn.is_none_or(Conn::is_unix);
        Self { peer: Peer::of(conn), any_authority, io: Sleeping(stream) }
    }
}
