//! [`Conn`]: one connected socket, Unix or TCP.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection that a [`Listener`](crate::Listener) accepted or a channel opened.
#[derive(Debug)]
pub struct Conn(Stream);

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Conn {
    pub(super) fn unix(stream: UnixStream) -> Self {
        Self(Stream::Unix(stream))
    }

    /// Whether this is a Unix socket rather than TCP.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.0, Stream::Unix(_))
    }

    /// Small messages must not wait for the acknowledgement of earlier ones (tcp(7)).
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(Stream::Tcp(stream)))
    }

    /// Appends what is there right now to `input`, 16 KiB at most, or says that nothing is
    /// ([`WouldBlock`](io::ErrorKind::WouldBlock)). Asks the kernel, where `poll_read` would ask
    /// the runtime what it last heard from epoll; wakes nobody later.
    pub(crate) fn try_read(&self, input: &mut BytesMut) -> io::Result<usize> {
        let socket = match &self.0 {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let (octets, _) = rustix::net::recv(socket, &mut scratch[..], RecvFlags::DONTWAIT)?;
            input.extend_from_slice(&scratch[..octets]);
            Ok(octets)
        })
    }
}

thread_local! {
    /// To copy the little that one read brings is cheaper than to clear a buffer for more.
    static SCRATCH: RefCell<[u8; 16 * 1024]> = const { RefCell::new([0; 16 * 1024]) };
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
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
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Tcp(stream) => stream.is_write_vectored(),
        }
    }
}
