//! [`Reader`]: reads the socket. It decides into which buffer, how much at a time and, with busy
//! polling, when.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use super::busy_poll::Spin;
use super::connection_memory::Reading;
use super::socket::Socket;
use crate::http2::{give_spare, take_spare};

/// The smallest and the largest size of one read. The size grows with what arrives at a time.
pub(super) const READ: (usize, usize) = (16 * 1024, 256 * 1024);

/// The largest size of one read while large messages arrive. They are copied out of what was read, and
/// with more of it, less of that and of the messages is in the CPU's cache.
const BULK: usize = 128 * 1024;

/// The largest size of one read for no streams, and how much it grows with each. What arrives on one
/// stream is worked off by one task before this end sends anything. If that is much, the peer waits
/// meanwhile. If all messages of a stream are at one end at a time, a sixth fewer pass each second.
const READ_BY_STREAMS: (usize, usize) = (48 * 1024, 16 * 1024);

/// A larger read may bring less because of the rest of a frame in the buffer, which has to be moved
/// each time. A smaller one brings as much as without.
const LEAST_ROOM: usize = 64 * 1024;

/// How much is read at a time from a connection that holds little while its user has to wait.
const LITTLE: usize = 2 * 1024;

/// The rest of a frame at the end of a turn is copied out of its read buffer if it is no larger
/// than this.
const KEPT: usize = 1024;

/// The maximum number of reads in one turn, for a peer that sends while we read.
const READS: u32 = 4;

/// The outcome of a read.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// Bytes are in [`Reader::buffer`].
    Bytes,
    /// Nothing has arrived. If the reader does not spin, the socket wakes the task.
    Nothing,
    /// The peer has closed its side.
    End,
    Failed(io::Error),
}

#[derive(Debug)]
pub(super) struct Reader {
    /// It has no capacity while nothing is in it.
    buffer: BytesMut,
    read_size: usize,
    /// The largest size of one read.
    most: usize,
    /// What the last read ended with. It is reported after the bytes before it were dealt with.
    end: Option<ReadOutcome>,
    /// Whether there may be more to read for which the socket does not wake the task.
    more: bool,
    spin: Option<Spin>,
}

impl Reader {
    pub(super) fn new(spin: Option<Spin>) -> Self {
        Self {
            buffer: BytesMut::new(),
            read_size: READ.0,
            most: READ.0,
            end: None,
            more: false,
            spin,
        }
    }

    /// Returns the bytes that were read and not dealt with.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Notes how many streams there are, and whether large messages arrive.
    #[inline]
    pub(super) fn note_load(&mut self, streams: usize, is_bulk: bool) {
        let (least, each) = READ_BY_STREAMS;
        self.most = match is_bulk {
            true => BULK,
            false => least.saturating_add(each.saturating_mul(streams)).min(READ.1),
        };
        self.read_size = self.read_size.min(self.most);
    }

    /// Returns whether there may be more to read for which the socket does not wake the task.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// Returns whether to ask the socket repeatedly instead of waiting for it.
    #[inline]
    pub(super) fn spins(&self, now: Instant) -> bool {
        self.spin.as_ref().is_some_and(|spin| spin.is_on(now))
    }

    /// Notes how many bytes were ever sent, because sending is activity, too.
    #[inline]
    pub(super) fn note_sent(&mut self, sent: u64, now: Instant) {
        if let Some(spin) = &mut self.spin {
            spin.note(sent, now);
        }
    }

    /// Notes that something came, so that the time of busy polling starts again.
    #[inline]
    pub(super) fn note_received(&mut self, now: Instant) {
        if let Some(spin) = &mut self.spin {
            spin.extend(now);
        }
    }

    /// Reads what has arrived.
    #[inline]
    pub(super) fn read<T: Socket>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        spinning: bool,
        reading: Reading,
    ) -> ReadOutcome {
        self.more = false;
        if let Some(end) = self.end.take() {
            return end;
        }
        if reading == Reading::Little {
            self.prepare_little();
        } else {
            self.prepare();
        }
        if spinning { self.read_spinning(io) } else { self.read_waiting(io, cx) }
    }

    /// Reads what had arrived before the connection ended. It asks the kernel: the socket may never
    /// have been readable as far as the runtime knows.
    pub(super) fn read_rest<T: Socket>(&mut self, io: &mut T, cx: &mut Context<'_>) -> ReadOutcome {
        self.prepare();
        if T::HAS_DESCRIPTOR { self.read_now(io) } else { self.read_waiting(io, cx) }
    }

    /// Reads as much as the buffer takes. If nothing is left, the socket wakes the task.
    #[inline]
    fn read_waiting<T: Socket>(&mut self, io: &mut T, cx: &mut Context<'_>) -> ReadOutcome {
        let room = self.room();
        let mut bytes = 0;
        // After the first read that leaves room in the buffer, the second one usually finds nothing
        // and leaves its waker.
        for _ in 0..READS {
            match io.poll_receive(cx, &mut self.buffer, room - bytes) {
                Poll::Pending if bytes == 0 => return ReadOutcome::Nothing,
                Poll::Pending => {
                    if bytes < self.read_size / 4 {
                        self.read_size = (self.read_size / 2).max(READ.0);
                    }
                    return ReadOutcome::Bytes;
                }
                Poll::Ready(Ok(more)) if more > 0 => bytes += more,
                Poll::Ready(end) if bytes == 0 => return ended(end),
                Poll::Ready(end) => {
                    // The bytes that were read before come first.
                    self.end = Some(ended(end));
                    break;
                }
            }
            if bytes == room {
                self.grow();
                break;
            }
        }
        self.more = true;
        ReadOutcome::Bytes
    }

    /// Reads what is there right now. Nothing wakes the task.
    fn read_spinning<T: Socket>(&mut self, io: &mut T) -> ReadOutcome {
        for _ in 0..self.spin.as_ref().map_or(1, Spin::reads) {
            match self.read_now(io) {
                ReadOutcome::Nothing => std::hint::spin_loop(),
                outcome => return outcome,
            }
        }
        ReadOutcome::Nothing
    }

    /// Asks the kernel once. Nothing wakes the task.
    #[inline]
    fn read_now<T: Socket>(&mut self, io: &mut T) -> ReadOutcome {
        let room = self.room();
        loop {
            return match io.receive(&mut self.buffer, room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Nothing,
                Ok(bytes) if bytes > 0 => {
                    if bytes == room {
                        self.grow();
                    }
                    ReadOutcome::Bytes
                }
                end => ended(end),
            };
        }
    }

    /// Returns how many bytes the next read may bring.
    #[inline]
    fn room(&self) -> usize {
        (self.buffer.capacity() - self.buffer.len()).min(self.most)
    }

    /// Makes the next read larger, because this one was full.
    #[inline]
    fn grow(&mut self) {
        self.read_size = (self.read_size * 2).min(self.most);
    }

    /// Prepares a buffer to read into, with the rest of the last one.
    #[inline]
    fn prepare(&mut self) {
        if self.buffer.capacity() == 0 {
            self.buffer = take_spare();
        } else if self.buffer.capacity() < READ.0
            // The callers may have read and dropped what was lent of it.
            && !self.buffer.try_reclaim(READ.0 - self.buffer.len().min(READ.0))
        {
            let rest = std::mem::take(&mut self.buffer);
            self.buffer = take_spare();
            self.buffer.extend_from_slice(&rest);
        }
        let rest = self.buffer.len();
        let room = self.read_size.saturating_sub(rest);
        self.buffer.reserve(room.max(self.read_size.min(LEAST_ROOM)));
    }

    /// Prepares a small buffer, because a few bytes can stand for large maps of header fields.
    #[cold]
    fn prepare_little(&mut self) {
        let rest = std::mem::take(&mut self.buffer);
        self.buffer = BytesMut::with_capacity(rest.len() + LITTLE);
        self.buffer.extend_from_slice(&rest);
    }

    /// Gives back the buffer for the next connection. A connection that sleeps keeps only the bytes
    /// of an unfinished frame.
    #[inline]
    pub(super) fn trim(&mut self) {
        if self.buffer.len() > KEPT {
            return;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            return give_spare(std::mem::take(&mut self.buffer));
        }
        // It may be the end of a buffer whose other parts are lent.
        let rest = BytesMut::from(&self.buffer[..]);
        let mut buffer = std::mem::replace(&mut self.buffer, rest);
        if buffer.capacity() > KEPT || buffer.try_reclaim(READ.0) {
            give_spare(buffer);
        }
    }

    /// Returns how many bytes a sleeping connection keeps here: an unfinished frame, and the buffer
    /// that it was read into.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        if self.buffer.len() <= KEPT { self.buffer.len() } else { self.buffer.capacity() }
    }

    /// Stops reading for good.
    pub(super) fn close(&mut self) {
        self.buffer = BytesMut::new();
        self.end = None;
        self.more = false;
    }
}

/// Returns the outcome of a read that brought no bytes.
fn ended(read: io::Result<usize>) -> ReadOutcome {
    match read {
        Ok(_) => ReadOutcome::End,
        Err(error) => ReadOutcome::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::driver::socket::Sleeping;

    /// Returns how much the largest read brings while there is always more.
    async fn largest_read(streams: usize, is_bulk: bool) -> usize {
        let (ours, mut theirs) = tokio::io::duplex(4 << 20);
        theirs.write_all(&vec![0; 4 << 20]).await.unwrap();
        let (mut io, mut reader) = (Sleeping::new(ours), Reader::new(None));
        reader.note_load(streams, is_bulk);
        let mut largest = 0;
        for _ in 0..10 {
            let read =
                poll_fn(|cx| Poll::Ready(reader.read(&mut io, cx, false, Reading::Free))).await;
            assert!(matches!(read, ReadOutcome::Bytes));
            largest = largest.max(reader.buffer().len());
            reader.buffer().clear();
        }
        largest
    }

    #[tokio::test]
    async fn how_much_is_read_depends_on_the_streams_and_the_messages() {
        assert_eq!(largest_read(1, false).await, 64 * 1024);
        assert_eq!(largest_read(64, false).await, READ.1);
        // In the buffer of the last one, which is larger.
        assert_eq!(largest_read(1, false).await, 64 * 1024);
        assert_eq!(largest_read(64, true).await, BULK);
    }
}
