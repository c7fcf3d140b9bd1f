//! The state of one stream, and the table of streams. A stream is found by key or by identifier in
//! constant time, however many are open.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use http::HeaderMap;

use super::arrived::Arrived;
use super::flow::{ReceiveWindow, SendWindow};
use super::id_hash::IdHash;
use super::key::StreamKey;
use super::news::News;
use super::spare::FEW;
use crate::descriptors;

/// How much of the message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// The final head was not sent.
    Head,
    /// The head was sent, and more may follow.
    Body,
    /// The application has given everything, and some of it is still queued.
    Ending,
    /// Nothing more is sent: END_STREAM was sent, or the stream ended early, by either end.
    Done,
}

/// How much of the message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// The final head has not come (client).
    Head,
    Body,
    /// Nothing more is taken: END_STREAM was received, or the stream ended early, by either end.
    Done,
}

/// What waits for a window or for room in the buffer. Most streams have none.
#[derive(Debug, Default)]
pub(super) struct QueuedData {
    /// The queued data. It is never empty between calls.
    pub(super) chunks: VecDeque<Bytes>,
    /// How many bytes of the first chunk were sent. Its memory is kept until all of it is sent.
    pub(super) begun: usize,
    /// What follows the data.
    pub(super) ending: Option<Ending>,
}

#[derive(Debug)]
pub(super) enum Ending {
    Data,
    Trailers(HeaderMap),
}

/// What an open call takes on a server beside its head and its data, in bytes: entries in tables, a
/// task, the futures of a handler. For the Ping service 3.9 KiB were measured.
pub(super) const CALL: u32 = 4 * 1024;

/// No content-length was given.
pub(super) const UNKNOWN_LENGTH: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) reset_by_us: bool,
    pub(super) reset_by_peer: bool,
    /// Whether END_STREAM came, or the connection's end, so that nothing else can be under way.
    pub(super) peer_ended: bool,
    /// Whether the driver has taken the request, or has opened the stream itself.
    pub(super) taken: bool,
    /// Whether the driver has forgotten it.
    pub(super) forgotten: bool,
    /// Whether arriving data is dropped because it will not be read.
    pub(super) discarded: bool,
    /// Whether it no longer counts as open on the wire.
    pub(super) settled: bool,
    /// Whether it is in the list of streams that have something to send and window for it.
    pub(super) ready: bool,
    /// Whether the driver waits for the queue to be empty.
    pub(super) wants_writable: bool,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    /// What the driver still has to be told.
    pub(super) news: News,
    pub(super) arrived: Arrived,
    /// Descriptors that came with the head.
    pub(super) descriptors: Option<Box<descriptors::ReceivedSet>>,
    /// How many bytes of data arrived and were not read.
    pub(super) unread: u32,
    /// How much memory the call takes beside data that was not read, in bytes. A server counts it
    /// for each stream until the stream is forgotten. [`CALL`] of it counts as long as the stream
    /// is in the table.
    pub(super) held: u32,
    /// How many bytes are still to come by content-length (RFC 9113 §8.1.1).
    pub(super) expected: u64,
    /// Whether the header list is too large and its method or its content type is not gRPC's.
    pub(super) foreign: bool,
    /// The position at which its first frame begins, counted in bytes ever sent.
    pub(super) first_byte: u64,
    pub(super) queued: Option<Box<QueuedData>>,
}

impl Stream {
    pub(super) fn new(id: u32, send_window: SendWindow, receive_window: ReceiveWindow) -> Self {
        Self {
            id,
            sending: Sending::Head,
            receiving: Receiving::Head,
            reset_by_us: false,
            reset_by_peer: false,
            peer_ended: false,
            taken: false,
            forgotten: false,
            discarded: false,
            settled: false,
            ready: false,
            wants_writable: false,
            send_window,
            receive_window,
            news: News::default(),
            arrived: Arrived::default(),
            descriptors: None,
            unread: 0,
            held: 0,
            expected: UNKNOWN_LENGTH,
            foreign: false,
            first_byte: 0,
            queued: None,
        }
    }

    /// Returns whether it is closed in the sense of RFC 9113 §5.1.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.sending == Sending::Done && self.receiving == Receiving::Done
    }

    /// Returns whether a reader has taken what had arrived before the last read of the socket.
    #[inline]
    pub(super) fn is_read(&self) -> bool {
        self.taken && self.arrived.pieces.are_new()
    }

    /// Returns whether data waits for a window or for room in the buffer.
    #[inline]
    pub(super) fn has_queued(&self) -> bool {
        self.queued.is_some()
    }
}

/// The streams that are open on the wire or known to the driver.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    vacant: Vec<u32>,
    len: usize,
    /// How many of these are not closed on the wire.
    open: usize,
    /// What all of them [hold](Stream::held), in bytes.
    held: usize,
    /// The index of each stream's entry plus one, found by the lower bits of half the identifier.
    /// The size is a power of two, and twice the number of streams. Identifiers follow each other,
    /// so most streams are found here.
    near: Vec<u32>,
    /// The streams whose place in `near` was taken. These are long-lived streams.
    far: HashMap<u32, u32, IdHash>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns how many streams are not closed on the wire.
    #[inline]
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Returns how much memory calls take beside data that was not read, in bytes.
    #[inline]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Counts more bytes for a call, until its stream is forgotten.
    #[inline]
    pub(super) fn hold(&mut self, key: StreamKey, bytes: usize) {
        if let Some(stream) = self.get_mut(key).filter(|stream| !stream.forgotten) {
            let more = u32::try_from(bytes).unwrap_or(u32::MAX).min(u32::MAX - stream.held);
            stream.held += more;
            self.held += more as usize;
        }
    }

    /// Stops counting for a call that has ended, except for its entry.
    #[inline]
    pub(super) fn let_go(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key) {
            let less = stream.held.saturating_sub(CALL);
            stream.held -= less;
            self.held -= less as usize;
        }
    }

    /// Notes that one of them is closed now.
    #[inline]
    pub(super) fn close_one(&mut self) {
        self.open -= 1;
    }

    /// Adds a stream, which is open.
    pub(super) fn insert(&mut self, stream: Stream) -> StreamKey {
        let id = stream.id;
        self.held += stream.held as usize;
        self.len += 1;
        self.open += 1;
        if self.near.len() < 2 * self.len {
            self.grow();
        }
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(stream);
                slot
            }
            None => {
                if self.slots.capacity() == 0 {
                    // Otherwise there would be room for four, which most connections never need.
                    self.slots.reserve_exact(1);
                }
                self.slots.push(Some(stream));
                (self.slots.len() - 1) as u32
            }
        };
        let key = StreamKey { slot, id };
        self.index(key);
        key
    }

    #[inline]
    fn place(&self, id: u32) -> usize {
        (id >> 1) as usize & (self.near.len() - 1)
    }

    #[inline]
    fn index(&mut self, StreamKey { slot, id }: StreamKey) {
        let place = self.place(id);
        match &mut self.near[place] {
            vacant @ 0 => *vacant = slot + 1,
            _ => {
                self.far.insert(id, slot);
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.near = vec![0; (2 * self.near.len()).max(16)];
        self.far.clear();
        for slot in 0..self.slots.len() {
            if let Some(stream) = &self.slots[slot] {
                self.index(StreamKey { slot: slot as u32, id: stream.id });
            }
        }
    }

    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        if self.len == 0 {
            return None;
        }
        let near = self.near[self.place(id)].wrapping_sub(1);
        let key = StreamKey { slot: near, id };
        if self.get(key).is_some() {
            return Some(key);
        }
        if self.far.is_empty() {
            return None;
        }
        let slot = *self.far.get(&id)?;
        Some(StreamKey { slot, id })
    }

    #[inline]
    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        let stream = self.slots.get(key.index())?.as_ref()?;
        (stream.id == key.id).then_some(stream)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        let stream = self.slots.get_mut(key.index())?.as_mut()?;
        (stream.id == key.id).then_some(stream)
    }

    /// Removes a stream that is in the table.
    pub(super) fn remove(&mut self, key: StreamKey) {
        let slot = &mut self.slots[key.index()];
        if let Some(stream) = slot {
            self.held -= stream.held as usize;
        }
        *slot = None;
        self.vacant.push(key.slot);
        self.len -= 1;
        let place = self.place(key.id);
        if self.near[place] == key.slot + 1 {
            self.near[place] = 0;
        } else {
            self.far.remove(&key.id);
        }
    }

    /// Returns the keys of all streams. The time depends on the largest number of streams that
    /// there has been.
    pub(super) fn keys(&mut self) -> Vec<StreamKey> {
        self.iter_mut().map(|(key, _)| key).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamKey, &mut Stream)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, stream)| {
            let stream = stream.as_mut()?;
            Some((StreamKey { slot: slot as u32, id: stream.id }, stream))
        })
    }

    #[cfg(test)]
    pub(super) fn far_len(&self) -> usize {
        self.far.len()
    }

    pub(super) fn trim(&mut self) {
        if self.slots.capacity() > FEW && self.len == 0 {
            *self = Self::default();
        }
    }
}
