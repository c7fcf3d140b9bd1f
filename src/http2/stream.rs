//! One stream's state, and the table of streams: reached by key or by identifier at a constant
//! price, however many are open.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderMap;

use super::connection::FEW;
use super::flow::{ReceiveWindow, SendWindow};

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// A stream as the driver names it. Never names another one, also after this one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    slot: u32,
    id: u32,
}

impl StreamKey {
    /// Small, and no other stream's as long as this one is not forgotten: for tables beside ours.
    pub(crate) fn index(self) -> usize {
        self.slot as usize
    }

    /// The stream identifier on the wire.
    pub(crate) fn id(self) -> u32 {
        self.id
    }
}

/// How far sending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// No final head yet.
    Head,
    /// Head sent, more may follow.
    Body,
    /// The application has given all; some of it is still queued.
    Ending,
    /// END_STREAM sent, or reset.
    Done,
}

/// How far receiving has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// No final head yet (client).
    Head,
    Body,
    /// END_STREAM received, or reset.
    Done,
}

/// What waits for a window or for room in the buffer: nothing, for most streams.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Never empty between calls.
    pub(super) queue: VecDeque<Bytes>,
    /// What comes after that.
    pub(super) ending: Option<Ending>,
}

#[derive(Debug)]
pub(super) enum Ending {
    Data,
    Trailers(HeaderMap),
}

/// No content-length was given.
pub(super) const UNKNOWN_LENGTH: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) reset_by_us: bool,
    pub(super) reset_by_peer: bool,
    /// END_STREAM or RST_STREAM came: nothing else can be under way.
    pub(super) peer_ended: bool,
    /// The driver knows of it.
    pub(super) announced: bool,
    /// The driver has forgotten it.
    pub(super) forgotten: bool,
    /// No longer counted as open on the wire.
    pub(super) settled: bool,
    /// In the list of streams that have something to send and the window for it.
    pub(super) ready: bool,
    /// The driver waits to hear that the queue is empty.
    pub(super) wants_writable: bool,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    /// Received, and not yet released by the application.
    pub(super) held: u32,
    /// What content-length leaves to come (RFC 9113 §8.1.1).
    pub(super) expected: u64,
    /// Where in all that was ever sent its first frame begins.
    pub(super) first_octet: u64,
    pub(super) backlog: Option<Box<Backlog>>,
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
            announced: false,
            forgotten: false,
            settled: false,
            ready: false,
            wants_writable: false,
            send_window,
            receive_window,
            held: 0,
            expected: UNKNOWN_LENGTH,
            first_octet: 0,
            backlog: None,
        }
    }

    /// Closed as RFC 9113 §5.1 has it.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.sending == Sending::Done && self.receiving == Receiving::Done
    }

    /// Something waits for a window or for room in the buffer.
    #[inline]
    pub(super) fn has_queued(&self) -> bool {
        self.backlog.is_some()
    }
}

/// The streams that are open on the wire or known to the driver.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    vacant: Vec<u32>,
    len: usize,
    /// Slots, one more than it is, by the lower bits of half the identifier: a power of two of
    /// them, twice as many as streams. Identifiers follow each other, so this is where most are.
    near: Vec<u32>,
    /// Those whose place in `near` was taken: streams that last.
    far: HashMap<u32, u32, IdHash>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, stream: Stream) -> StreamKey {
        let id = stream.id;
        self.len += 1;
        if self.near.len() < 2 * self.len {
            self.grow();
        }
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(stream);
                slot
            }
            None => {
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

    /// Takes a stream that is in the table out of it.
    pub(super) fn remove(&mut self, key: StreamKey) {
        self.slots[key.index()] = None;
        self.vacant.push(key.slot);
        self.len -= 1;
        let place = self.place(key.id);
        if self.near[place] == key.slot + 1 {
            self.near[place] = 0;
        } else {
            self.far.remove(&key.id);
        }
    }

    /// All of them. Takes as long as there were ever streams at a time.
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
        if self.len == 0 && self.slots.capacity() > FEW {
            *self = Self::default();
        }
    }
}

/// Hashes stream identifiers. They are the peer's choice, hence the secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdHash(u64);

impl Default for IdHash {
    fn default() -> Self {
        static SECRET: OnceLock<u64> = OnceLock::new();
        Self(*SECRET.get_or_init(|| RandomState::new().hash_one(0)))
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    #[inline]
    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0)
    }
}

#[derive(Debug)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    #[inline]
    fn write_u32(&mut self, id: u32) {
        let product = u128::from(self.0 ^ u64::from(id)) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u32(u32::from(*octet));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
