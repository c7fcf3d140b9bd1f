//! [`Socket`]: the stream of octets under a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::Conn;

/// What a connection runs on. tokio's `poll_read` makes no system call before epoll has reported
/// something to read, so a socket that is to be read without waiting for epoll offers more.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Whether [`try_read`](Self::try_read) can be called.
    const CAN_SPIN: bool;

    /// Appends what is there right now to `input`, or fails with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock). Leaves no waker.
    fn try_read(&self, input: &mut BytesMut) -> io::Result<usize>;
}

impl Socket for Conn {
    const CAN_SPIN: bool = true;

    fn try_read(&self, input: &mut BytesMut) -> io::Result<usize> {
        Self::try_read(self, input)
    }
}

/// Any other stream, such as one end of a socketpair: it is read when it says so.
#[derive(Debug)]
pub(crate) struct Sleeping<T>(pub(crate) T);

impl<T: AsyncRead + AsyncWrite + Unpin> Socket for Sleeping<T> {
    const CAN_SPIN: bool = false;

    fn try_read(&self, _: &mut BytesMut) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Sleeping<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Sleeping<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
