//! [`Conn`]: one connected socket, Unix or TCP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::unix::UnixConn;

/// A connection that a [`Listener`](crate::Listener) accepted or a channel opened.
#[derive(Debug)]
pub struct Conn(Stream);

#[derive(Debug)]
enum Stream {
    Unix(UnixConn),
    Tcp(TcpStream),
}

/// See [`Conn::as_tokio`].
#[cfg(feature = "tonic-transport")]
pub(crate) enum AsTokio<'a> {
    Unix(io::Result<tokio::net::UnixStream>),
    Tcp(&'a TcpStream),
}

impl Conn {
    /// Of a stream that does not block.
    pub(super) fn unix(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        Ok(Self(Stream::Unix(UnixConn::new(stream)?)))
    }

    /// Whether this is a Unix socket rather than TCP.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.0, Stream::Unix(_))
    }

    /// In the form that tonic's transport knows. A Unix socket's is a duplicate, which is good for
    /// questions: tokio can't look at one that is not its own.
    #[cfg(feature = "tonic-transport")]
    pub(crate) fn as_tokio(&self) -> AsTokio<'_> {
        match &self.0 {
            Stream::Unix(stream) => {
                AsTokio::Unix(stream.try_clone().and_then(tokio::net::UnixStream::from_std))
            }
            Stream::Tcp(stream) => AsTokio::Tcp(stream),
        }
    }

    /// Small messages must not wait for the acknowledgement of earlier ones (tcp(7)).
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(Stream::Tcp(stream)))
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
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
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => stream.poll_write(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Unix(_) => Poll::Ready(Ok(())),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => Poll::Ready(stream.shutdown()),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Stream::Unix(stream) => stream.poll_write_vectored(cx, bufs),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Stream::Unix(_) => true,
            Stream::Tcp(stream) => stream.is_write_vectored(),
        }
    }
}
