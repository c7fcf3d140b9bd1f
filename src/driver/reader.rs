//! [`Reader`]: what is read of the socket, into which buffer, and how much at a time; with busy
//! polling, when.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use super::busy_poll::Spin;
use super::socket::Socket;
use crate::http2::{give_spare, take_spare};

/// What one read takes at least and at most; it grows with what arrives at a time.
pub(super) const READ: (usize, usize) = (16 * 1024, 256 * 1024);

/// What is read at a time of a connection that holds nothing while its user has to wait.
const LITTLE: usize = 2 * 1024;

/// What is left of a frame at the end of a turn and is not more is copied out of the buffer that it
/// was read into.
const KEPT: usize = 1024;

/// Reads of one turn at most, for a peer that sends while we read.
const READS: u32 = 4;

/// What a read came to.
#[derive(Debug)]
pub(super) enum Input {
    /// Something is there, in [`Reader::buffer`].
    Bytes,
    /// Nothing is there now. Where the reader does not spin, the socket wakes the task.
    Nothing,
    /// The peer has closed its side.
    End,
    Failed(io::Error),
}

#[derive(Debug)]
pub(super) struct Reader {
    /// Without capacity while there is nothing in it.
    buffer: BytesMut,
    read_size: usize,
    /// What the last read ended with, once what came before it has been dealt with.
    end: Option<Input>,
    /// There may be more to read, and the socket will not wake the task.
    more: bool,
    spin: Option<Spin>,
}

impl Reader {
    pub(super) fn new(spin: Option<Spin>) -> Self {
        Self { buffer: BytesMut::new(), read_size: READ.0, end: None, more: false, spin }
    }

    /// What has been read and not dealt with.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether there may be more to read that the socket does not wake the task for.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// Whether the socket is to be asked again and again instead of waited for.
    #[inline]
    pub(super) fn spins(&self, now: Instant) -> bool {
        self.spin.as_ref().is_some_and(|spin| spin.is_on(now))
    }

    /// So many bytes were ever sent: sending is activity, too.
    #[inline]
    pub(super) fn note_sent(&mut self, sent: u64, now: Instant) {
        if let Some(spin) = &mut self.spin {
            spin.note(sent, now);
        }
    }

    /// Something came: the time of busy polling begins anew.
    #[inline]
    pub(super) fn note_received(&mut self, now: Instant) {
        if let Some(spin) = &mut self.spin {
            spin.extend(now);
        }
    }

    /// Reads what is there.
    #[inline]
    pub(super) fn read<T: Socket>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        spinning: bool,
        little: bool,
    ) -> Input {
        self.more = false;
        if let Some(end) = self.end.take() {
            return end;
        }
        if little {
            self.prepare_little();
        } else {
            self.prepare();
        }
        if spinning { self.read_spinning(io) } else { self.read_waiting(io, cx) }
    }

    /// As far as the buffer takes it. Where nothing is left, the socket wakes the task.
    #[inline]
    fn read_waiting<T: Socket>(&mut self, io: &mut T, cx: &mut Context<'_>) -> Input {
        let room = self.buffer.capacity() - self.buffer.len();
        let mut bytes = 0;
        // After the first read that leaves room the second one, as a rule, finds nothing and leaves
        // its waker.
        for _ in 0..READS {
            match io.poll_receive(cx, &mut self.buffer) {
                Poll::Pending if bytes == 0 => return Input::Nothing,
                Poll::Pending => {
                    if bytes < self.read_size / 4 {
                        self.read_size = (self.read_size / 2).max(READ.0);
                    }
                    return Input::Bytes;
                }
                Poll::Ready(Ok(more)) if more > 0 => bytes += more,
                Poll::Ready(end) if bytes == 0 => return ended(end),
                Poll::Ready(end) => {
                    // What was read before comes first.
                    self.end = Some(ended(end));
                    break;
                }
            }
            if bytes == room {
                self.read_size = (self.read_size * 2).min(READ.1);
                break;
            }
        }
        self.more = true;
        Input::Bytes
    }

    /// What is there right now. Nothing wakes the task.
    fn read_spinning<T: Socket>(&mut self, io: &mut T) -> Input {
        for _ in 0..self.spin.as_ref().map_or(1, Spin::reads) {
            match io.receive(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(bytes) if bytes > 0 => return Input::Bytes,
                end => return ended(end),
            }
            std::hint::spin_loop();
        }
        Input::Nothing
    }

    /// A buffer to read into, with what was left of the last one.
    #[inline]
    fn prepare(&mut self) {
        if self.buffer.capacity() < READ.0 {
            let rest = std::mem::take(&mut self.buffer);
            self.buffer = take_spare();
            self.buffer.extend_from_slice(&rest);
        }
        let rest = self.buffer.len();
        self.buffer.reserve(self.read_size.saturating_sub(rest).max(READ.0));
    }

    /// A buffer that takes little: a few bytes can stand for large maps of header fields.
    #[cold]
    fn prepare_little(&mut self) {
        let rest = std::mem::take(&mut self.buffer);
        self.buffer = BytesMut::with_capacity(rest.len() + LITTLE);
        self.buffer.extend_from_slice(&rest);
    }

    /// A connection that sleeps keeps no more than what it has read of an unfinished frame: the
    /// buffer is the next one's.
    #[inline]
    pub(super) fn trim(&mut self) {
        if self.buffer.len() > KEPT || self.buffer.capacity() <= KEPT {
            return;
        }
        let rest = BytesMut::from(&self.buffer[..]);
        give_spare(std::mem::replace(&mut self.buffer, rest));
    }

    /// Bytes that a connection which sleeps keeps here: an unfinished frame, and the buffer that it
    /// was read into.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        if self.buffer.len() <= KEPT { self.buffer.len() } else { self.buffer.capacity() }
    }

    /// Nothing is read any more.
    pub(super) fn close(&mut self) {
        self.buffer = BytesMut::new();
        self.end = None;
        self.more = false;
    }
}

/// What a read that brought nothing says.
fn ended(read: io::Result<usize>) -> Input {
    match read {
        Ok(_) => Input::End,
        Err(error) => Input::Failed(error),
    }
}
