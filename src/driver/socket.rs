//! [`Socket`]: the stream of bytes under a connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::socket::{Conn, Direct};

/// What a connection runs on.
pub(crate) trait Socket: AsyncWrite + Unpin {
    /// Whether [`receive`](Self::receive) finds anything.
    const CAN_SPIN: bool;

    /// Appends to `input` what is there, as much as its capacity takes.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>>;

    /// The same of what is there right now, or fails with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock); leaves no waker. tokio makes no system call before
    /// epoll has reported something: that would be too late for a reader that tries again and again.
    fn receive(&self, input: &mut BytesMut) -> io::Result<usize>;

    /// Ready once the peer has closed both of its sides. Asked when its writing side is closed; where
    /// that cannot be told from the whole end, it is the whole end.
    fn poll_hang_up(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// A way to send from beside the driver, where there is one.
    fn direct(&self) -> Option<Direct>;
}

impl Socket for Conn {
    const CAN_SPIN: bool = true;

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        Self::poll_receive(self, cx, input)
    }

    fn receive(&self, input: &mut BytesMut) -> io::Result<usize> {
        Self::receive(self, input)
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_hang_up(self, cx)
    }

    fn direct(&self) -> Option<Direct> {
        Some(Self::direct(self))
    }
}

/// Any other stream, such as one end of a socketpair: it is read when it says so.
#[derive(Debug)]
pub(crate) struct Sleeping<T>(pub(crate) T);

impl<T: AsyncRead + AsyncWrite + Unpin> Socket for Sleeping<T> {
    const CAN_SPIN: bool = false;

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        pin!(self.0.read_buf(input)).poll(cx)
    }

    fn receive(&self, _: &mut BytesMut) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn direct(&self) -> Option<Direct> {
        None
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
