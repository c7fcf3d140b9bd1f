//! Data out: encoded straight into the write buffer as far as the peer's windows and the buffer's
//! size allow. The rest is queued in its stream.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes};

use super::budget;
use super::connection::Connection;
use super::frame::{FrameHeader, HEADER_LEN, flag, kind};
use super::key::StreamKey;
use super::news::News;
use super::stream::{Ending, QueuedData, Sending, Stream};
use super::write_buffer::{self, WriteBuffer};

/// If more than this is outgoing, data waits in its stream. So a stream that has much to send does
/// not delay others, and what the socket does not take stays limited. With less, a TCP socket takes large
/// messages in smaller parts, for each of which it wakes its reader.
pub(super) const HIGH_WATER: usize = 512 * 1024;

/// A payload of this size or more that has memory of its own is not copied: to copy it takes longer than
/// to write another part.
const UNCOPIED: usize = 8 * 1024;

/// What one stream sends before the next stream's turn.
const QUANTUM: usize = 64 * 1024;

/// What became of data that was given to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All of it is on its way, and more can be sent.
    Sent,
    /// Some of it waits for the peer or the socket. Nothing more should be sent before
    /// [`ProtocolEvent::Writable`](super::ProtocolEvent::Writable).
    Queued,
    /// The stream or the connection has ended. The data was dropped.
    Closed,
}

impl Connection {
    /// Sends a part of a body. With `end` it is the last part, which may be empty.
    ///
    /// It takes all data, whatever the windows are. If the caller goes on after
    /// [`Progress::Queued`], the queue grows.
    pub(crate) fn send_data(&mut self, key: StreamKey, bytes: Bytes, end: bool) -> Progress {
        let max_data = self.max_data();
        let Some(stream) = self.streams.get_mut(key) else {
            return Progress::Closed;
        };
        if stream.sending != Sending::Body || self.dead.is_some() {
            debug_assert_ne!(stream.sending, Sending::Head, "data before the head");
            return Progress::Closed;
        }
        let len = bytes.len();
        if len == 0 && !end {
            return if stream.has_queued() { Progress::Queued } else { Progress::Sent };
        }
        if let Some(queued) = &mut stream.queued {
            if len > 0 {
                self.outflow.enqueue(len);
                queued.chunks.push_back(bytes);
            }
            if end {
                stream.sending = Sending::Ending;
                queued.ending = Some(Ending::Data);
            }
            stream.wants_writable = !end;
            return Progress::Queued;
        }
        // The usual case: one frame, now. An empty frame needs no window (§6.9).
        if len == 0
            || (len <= max_data
                && len <= stream.send_window.available()
                && len <= self.outflow.available()
                && self.write_buffer.len() < HIGH_WATER)
        {
            let id = stream.id;
            self.count_data(key, len, end);
            write_data(&mut self.write_buffer, id, (bytes, 0), end);
            if end {
                self.settle(key);
            }
            return Progress::Sent;
        }
        self.send_queued(key, bytes, end)
    }

    /// Queues the data of a stream whose queue is empty, and sends as much of it as there is room
    /// for.
    fn send_queued(&mut self, key: StreamKey, bytes: Bytes, end: bool) -> Progress {
        let Some(stream) = self.streams.get_mut(key) else {
            return Progress::Closed;
        };
        self.outflow.enqueue(bytes.len());
        stream.queued = Some(Box::new(QueuedData {
            chunks: VecDeque::from([bytes]),
            begun: 0,
            ending: end.then_some(Ending::Data),
        }));
        if end {
            stream.sending = Sending::Ending;
        }
        if stream.send_window.available() > 0 {
            stream.ready = true;
            self.outflow.push_ready(key, &self.streams);
        }
        self.pump();
        match self.streams.get_mut(key) {
            Some(stream) if stream.has_queued() => {
                stream.wants_writable = !end;
                Progress::Queued
            }
            _ => Progress::Sent,
        }
    }

    /// Sends a small part of a body as [`send_data`](Self::send_data) does, and leaves the memory
    /// to the caller. It takes the memory of a large part, which is then not copied.
    pub(crate) fn send_small(
        &mut self,
        key: StreamKey,
        bytes: &mut Vec<u8>,
        end: bool,
    ) -> Progress {
        let len = bytes.len();
        let max_data = self.max_data();
        if len < write_buffer::LARGE
            && len > 0
            && len <= max_data
            && let Some(stream) = self.streams.get_mut(key)
            && stream.sending == Sending::Body
            && stream.queued.is_none()
            && self.dead.is_none()
            && len <= stream.send_window.available()
            && len <= self.outflow.available()
            && self.write_buffer.len() < HIGH_WATER
        {
            let id = stream.id;
            self.count_data(key, len, end);
            write_small(&mut self.write_buffer, id, bytes, end);
            if end {
                self.settle(key);
            }
            return Progress::Sent;
        }
        let bytes = if len < write_buffer::LARGE {
            Bytes::copy_from_slice(bytes)
        } else {
            std::mem::take(bytes).into()
        };
        self.send_data(key, bytes, end)
    }

    /// Uses up the windows for a frame that is written now.
    #[inline]
    fn count_data(&mut self, key: StreamKey, len: usize, end: bool) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.send_window.take(len);
            if end {
                stream.sending = Sending::Done;
            }
        }
        self.outflow.take(len);
        self.budget.earn(budget::DATA_SENT + len as u32 / budget::BYTES_PER_UNIT);
    }

    /// Returns whether data that was given to [`send_data`](Self::send_data) waits, so that no more
    /// should be given before [`ProtocolEvent::Writable`](super::ProtocolEvent::Writable).
    pub(crate) fn is_blocked(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(Stream::has_queued)
    }

    /// Returns the largest payload of one frame. The peer sets a limit, and other streams must not
    /// wait too long.
    pub(super) fn max_data(&self) -> usize {
        (self.peer.max_frame_size as usize).min(QUANTUM)
    }

    /// Writes queued data, stream by stream, while windows and buffer have room.
    pub(super) fn pump(&mut self) {
        let max_data = self.max_data();
        while self.write_buffer.len() < HIGH_WATER
            && self.outflow.available() > 0
            && let Some(key) = self.outflow.pop_ready()
        {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            let Some(queued) = &mut stream.queued else {
                continue;
            };
            // Frames are whole, so the last one may go beyond the turn.
            let mut turn = QUANTUM;
            while turn > 0
                && let Some(chunk) = queued.chunks.front_mut()
            {
                let room =
                    stream.send_window.available().min(self.outflow.available()).min(max_data);
                if room == 0 {
                    break;
                }
                let (part, before) = if chunk.len() <= room {
                    let before = std::mem::take(&mut queued.begun);
                    self.outflow.end(before);
                    (queued.chunks.pop_front().unwrap_or_default(), before)
                } else {
                    queued.begun += room;
                    self.outflow.begin(room);
                    (chunk.split_to(room), 0)
                };
                let len = part.len();
                stream.send_window.take(len);
                self.outflow.take(len);
                self.outflow.dequeue(len);
                turn = turn.saturating_sub(len);
                let last = queued.chunks.is_empty() && matches!(queued.ending, Some(Ending::Data));
                self.budget.earn(budget::DATA_SENT + len as u32 / budget::BYTES_PER_UNIT);
                write_data(&mut self.write_buffer, stream.id, (part, before), last);
            }
            if !queued.chunks.is_empty() {
                stream.ready = stream.send_window.available() > 0;
                if stream.ready {
                    self.outflow.push_ready(key, &self.streams);
                }
                continue;
            }
            self.end_queue(key);
        }
    }

    /// Sends what follows the queued data of a stream: its end, or the news that there is room again.
    fn end_queue(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.ready = false;
        match stream.queued.take().and_then(|queued| queued.ending) {
            None => {
                if std::mem::take(&mut stream.wants_writable) {
                    self.events.tell(key, stream, News::WRITABLE);
                }
            }
            Some(ending) => {
                stream.sending = Sending::Done;
                if let Ending::Trailers(trailers) = ending {
                    let id = stream.id;
                    self.write_trailers(id, &trailers, None);
                }
                self.settle(key);
            }
        }
    }
}

#[inline]
fn write_small(out: &mut WriteBuffer, id: u32, bytes: &[u8], end: bool) {
    let header = FrameHeader {
        len: bytes.len() as u32,
        kind: kind::DATA,
        flags: if end { flag::END_STREAM } else { 0 },
        stream: id,
    };
    let buffer = out.buffer();
    buffer.reserve(HEADER_LEN + bytes.len());
    buffer.put_slice(&header.bytes());
    buffer.put_slice(bytes);
}

/// Writes a frame of the last `bytes` of a chunk, or of others. `before` are those before them, whose
/// memory is kept until these are written.
#[inline]
fn write_data(out: &mut WriteBuffer, id: u32, (bytes, before): (Bytes, usize), end: bool) {
    if bytes.len() < UNCOPIED {
        return write_small(out, id, &bytes, end);
    }
    let header = FrameHeader {
        len: bytes.len() as u32,
        kind: kind::DATA,
        flags: if end { flag::END_STREAM } else { 0 },
        stream: id,
    };
    out.buffer().put_slice(&header.bytes());
    out.push_payload(bytes, before);
}
