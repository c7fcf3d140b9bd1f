//! [`Socket`]: the stream of bytes under a connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::descriptors::{AnnouncedSet, ConnectionQuotas, ReceivedSet, ResponseQuotas};
use crate::socket::{Conn, SocketSender};

/// What there is to read in a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    Bytes,
    Nothing,
    /// The peer has closed the connection, and waits for nothing.
    End,
}

/// The socket or other stream that a connection runs on.
pub(crate) trait Socket: AsyncWrite + Unpin {
    /// Whether there is a descriptor under it. Then [`receive`](Self::receive) finds what is there, and the
    /// runtime watches descriptors.
    const HAS_DESCRIPTOR: bool;

    /// Appends the bytes that are there to `input`, as many as its capacity takes, and at most
    /// `most`.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>>;

    /// Does the same with the bytes that are there right now. It fails with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there are none, and leaves no waker. tokio
    /// makes no system call before epoll has reported something, which would be too late for a
    /// reader that tries repeatedly.
    fn receive(&mut self, input: &mut BytesMut, most: usize) -> io::Result<usize>;

    /// Returns whether there is something to read, without reading it. If that is not known, there
    /// may be.
    fn unread(&self) -> Unread {
        Unread::Bytes
    }

    /// Is ready once the peer has closed both of its sides. It is asked when the peer's writing
    /// side is closed. If the two cannot be told apart, that counts as both.
    fn poll_hang_up(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Lets the peer send descriptors from now on, counted against `quotas`. Returns whether it can.
    fn take_descriptors(&mut self, _quotas: ConnectionQuotas) -> bool {
        false
    }

    /// Takes what the descriptors of responses count against. `None`: they cannot be sent.
    fn take_response_quotas(&mut self) -> Option<ResponseQuotas> {
        None
    }

    /// Sends `bytes` with the descriptors of `set` beside the first of them.
    fn poll_send_descriptors(
        &mut self,
        _cx: &mut Context<'_>,
        _bytes: &[IoSlice<'_>],
        _set: &AnnouncedSet,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Returns the descriptors that came with the received bytes, one set at a time.
    #[inline]
    fn next_set(&mut self) -> Option<ReceivedSet> {
        None
    }

    /// Returns a way to send beside the driver, if there is one.
    fn sender(&self) -> Option<SocketSender>;

    /// Returns whether both ends are known to run on the same single CPU.
    fn shares_one_cpu(&self) -> bool {
        false
    }
}

impl Socket for Conn {
    const HAS_DESCRIPTOR: bool = true;

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        Self::poll_receive(self, cx, input, most)
    }

    fn receive(&mut self, input: &mut BytesMut, most: usize) -> io::Result<usize> {
        Self::receive(self, input, most)
    }

    fn unread(&self) -> Unread {
        match self.has_unread() {
            Ok(Some(true)) => Unread::Bytes,
            Ok(Some(false)) => Unread::Nothing,
            Ok(None) | Err(_) => Unread::End,
        }
    }

    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_hang_up(self, cx)
    }

    fn take_descriptors(&mut self, quotas: ConnectionQuotas) -> bool {
        Self::take_descriptors(self, quotas)
    }

    fn take_response_quotas(&mut self) -> Option<ResponseQuotas> {
        Self::take_response_quotas(self)
    }

    fn poll_send_descriptors(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
        set: &AnnouncedSet,
    ) -> Poll<io::Result<usize>> {
        Self::poll_send_descriptors(self, cx, bytes, set)
    }

    #[inline]
    fn next_set(&mut self) -> Option<ReceivedSet> {
        Self::next_set(self)
    }

    fn sender(&self) -> Option<SocketSender> {
        Some(Self::sender(self))
    }

    fn shares_one_cpu(&self) -> bool {
        Self::shares_one_cpu(self)
    }
}

/// Any other stream, such as one end of a socketpair. It is read when it wakes the task.
///
/// The stream may keep what is written to it until it is flushed, as TLS and `BufWriter` do. So each
/// write is followed by a flush. One that is not ready at once goes on when the task wakes.
#[derive(Debug)]
pub(crate) struct Sleeping<T> {
    stream: T,
    /// Whether something was written that is not known to be flushed.
    unflushed: bool,
}

impl<T> Sleeping<T> {
    pub(crate) fn new(stream: T) -> Self {
        Self { stream, unflushed: false }
    }
}

impl<T: AsyncWrite + Unpin> Sleeping<T> {
    /// Flushes what a write has left to be flushed.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes after a write, and returns the outcome of the write unless the flush fails.
    fn flush_after(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.unflushed = true;
            if let Poll::Ready(Err(error)) = self.poll_flushed(cx) {
                return Poll::Ready(Err(error));
            }
        }
        written
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket for Sleeping<T> {
    const HAS_DESCRIPTOR: bool = false;

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_flushed(cx) {
            return Poll::Ready(Err(error));
        }
        let room = (input.capacity() - input.len()).min(most);
        pin!(self.stream.read_buf(&mut input.limit(room))).poll(cx)
    }

    fn receive(&mut self, _: &mut BytesMut, _: usize) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn sender(&self) -> Option<SocketSender> {
        None
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Sleeping<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.flush_after(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.flush_after(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
