//! [`Conn`]: one connected socket, Unix or TCP.

use std::io::{self, IoSlice};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::identity::{PeerIdentity, TcpPeer};
use super::sys;
use super::unix::UnixConn;
use crate::address::Address;

/// A connection that a [`Listener`](crate::Listener) accepted or a channel opened.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    peer: Option<Peer>,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixConn),
    Tcp(TcpStream),
}

/// Who is at the other end, as each transport knows it.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Unix(PeerIdentity),
    Tcp(TcpPeer),
}

impl Peer {
    /// Makes it known to whoever handles the request: one extension, [`PeerIdentity`] or
    /// [`TcpPeer`]. With the feature `tonic-transport`, tonic's own as well.
    pub(crate) fn add_to(&self, extensions: &mut http::Extensions) {
        match self {
            Self::Unix(peer) => drop(extensions.insert(peer.clone())),
            Self::Tcp(peer) => drop(extensions.insert(peer.clone())),
        }
        #[cfg(feature = "tonic-transport")]
        match self {
            Self::Unix(peer) => drop(extensions.insert(peer.uds_connect_info())),
            Self::Tcp(peer) => drop(extensions.insert(peer.tcp_connect_info())),
        }
    }
}

impl Conn {
    /// Of a stream that does not block.
    pub(super) fn unix(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { stream: Stream::Unix(UnixConn::new(stream)?), peer: None })
    }

    /// Small messages must not wait for the acknowledgement of earlier ones (tcp(7)).
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Tcp(stream), peer: None })
    }

    /// Notes who is at the other end of a connection to or from `address`. One whose peer can't be
    /// told is refused.
    pub(crate) fn identified(mut self, address: &Address) -> io::Result<Self> {
        self.peer = Some(match &self.stream {
            Stream::Unix(stream) => Peer::Unix(PeerIdentity::of(stream.downgrade(), address)?),
            Stream::Tcp(stream) => Peer::Tcp(TcpPeer::new(stream.peer_addr()?, address)),
        });
        Ok(self)
    }

    /// The process at the other end. `None` over TCP, which does not know it.
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        match self.peer.as_ref()? {
            Peer::Unix(peer) => Some(peer),
            Peer::Tcp(_) => None,
        }
    }

    /// Appends to `input` what is there, as much as its capacity takes.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.poll_receive(cx, input),
            Stream::Tcp(stream) => pin!(stream.read_buf(input)).poll(cx),
        }
    }

    /// The same of what is there right now: asks the kernel, where `poll_receive` would ask the
    /// runtime what it last heard from epoll, and wakes nobody later.
    pub(crate) fn receive(&self, input: &mut BytesMut) -> io::Result<usize> {
        match &self.stream {
            Stream::Unix(stream) => stream.receive(input),
            Stream::Tcp(stream) => sys::receive(stream, input),
        }
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Whether this is a Unix socket rather than TCP.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.stream, Stream::Unix(_))
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => stream.poll_read(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => stream.poll_write(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(_) => Poll::Ready(Ok(())),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Poll::Ready(stream.shutdown()),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => stream.poll_write_vectored(cx, bufs),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Unix(_) => true,
            Stream::Tcp(stream) => stream.is_write_vectored(),
        }
    }
}
