//! [`MessageBuffer`]: the memory of a message that arrives in pieces, or of a large one to be sent.
//!
//! A message of which more has come than a peer may send unasked gets memory for all of it at once, so it
//! is never moved again. The first such messages get it from the allocator, which is fast, because
//! the allocator reuses memory. But between blocks that are in use, glibc's allocator finds no
//! room for large ones, so many large messages would take almost twice their size. Therefore, beyond
//! [`MOST_OF_HEAP`] in all, each gets a mapping of its own. Its pages take memory only once something was
//! written to them, and the system gets them back as soon as the message is dropped.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::MmapMut;
use prost::Message;

use crate::driver::large_buffers;

/// A message with this much or less, in bytes, is an ordinary vector. It is what a peer may send of a
/// message before any of it is read.
pub(super) const SMALL: usize = 64 * 1024;

/// How many bytes of the allocator's memory all larger messages of this process may have.
const MOST_OF_HEAP: usize = 16 << 20;

/// As long as they have no more than this, a message has memory for all of it from its first bytes on, and
/// leaves that memory to the next one. So peers that only begin messages get no more than this for
/// nothing.
const LITTLE_MEMORY: usize = 4 << 20;

/// How many mappings they may have. A process usually may have 65,530 (`vm.max_map_count`).
const MOST_MAPPINGS: usize = 8 * 1024;

static OF_HEAP: AtomicUsize = AtomicUsize::new(0);
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// The part of a sum that a buffer has until it is dropped.
#[derive(Debug)]
struct SumPart {
    sum: &'static AtomicUsize,
    amount: usize,
}

impl SumPart {
    /// Returns a part if the sum is at most `most` with it.
    fn take(sum: &'static AtomicUsize, amount: usize, most: usize) -> Option<Self> {
        let part = Self { sum, amount };
        let before = sum.fetch_add(amount, Ordering::Relaxed);
        (before.saturating_add(amount) <= most).then_some(part)
    }
}

impl Drop for SumPart {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// The bytes of one message.
#[derive(Debug)]
pub(super) struct MessageBuffer {
    memory: MessageMemory,
    /// What it has of a limited sum, if it is large.
    part: Option<SumPart>,
}

#[derive(Debug)]
enum MessageMemory {
    Vector(Vec<u8>),
    Mapping { map: MmapMut, len: usize },
}

impl MessageBuffer {
    /// Returns an empty buffer, which takes no memory.
    pub(super) const fn new() -> Self {
        Self { memory: MessageMemory::Vector(Vec::new()), part: None }
    }

    /// Returns an empty buffer with room for `size` bytes, if that is large and the limits allow it.
    pub(super) fn large(size: usize) -> Option<Self> {
        let mut buffer = Self::new();
        if buffer.grow(size, MOST_OF_HEAP) { Some(buffer) } else { Self::mapped(size) }
    }

    /// Makes room for `size` bytes in the allocator's memory, if all messages have at most `most` of it
    /// then. Returns whether it did.
    fn grow(&mut self, size: usize, most: usize) -> bool {
        let MessageMemory::Vector(vector) = &mut self.memory else { return false };
        let spare = large_buffers::take(size);
        let room = spare.as_ref().map_or(size, Vec::capacity);
        self.part = SumPart::take(&OF_HEAP, room, most);
        match (&self.part, spare) {
            (Some(_), Some(mut spare)) => {
                spare.extend_from_slice(vector);
                *vector = spare;
            }
            // The allocator may have room behind the beginning, which is then not copied.
            (Some(_), None) => vector.reserve_exact(size - vector.len()),
            (None, Some(spare)) => large_buffers::give(spare),
            (None, None) => {}
        }
        self.part.is_some()
    }

    /// Returns an empty buffer with a mapping of `size` bytes, if the limit allows it.
    fn mapped(size: usize) -> Option<Self> {
        let part = SumPart::take(&MAPPINGS, 1, MOST_MAPPINGS)?;
        let map = MmapMut::map_anon(size).ok()?;
        Some(Self { memory: MessageMemory::Mapping { map, len: 0 }, part: Some(part) })
    }

    /// Returns the message `prefix`, followed by `message`, which has `length` bytes, if that is large and
    /// the limits allow it.
    pub(super) fn encode<M: Message>(prefix: &[u8], message: &M, length: usize) -> Option<Bytes> {
        let size = prefix.len() + length;
        let mut buffer = if size > SMALL { Self::large(size)? } else { return None };
        buffer.push(prefix);
        match &mut buffer.memory {
            MessageMemory::Vector(vector) => message.encode_raw(vector),
            MessageMemory::Mapping { map, len } => {
                message.encode_raw(&mut &mut map[*len..]);
                *len = size;
            }
        }
        Some(buffer.into_bytes())
    }

    /// Returns how many bytes it has room for.
    pub(super) fn capacity(&self) -> usize {
        match &self.memory {
            MessageMemory::Vector(vector) => vector.capacity(),
            MessageMemory::Mapping { map, .. } => map.len(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for the bytes of a message that are there, so that there are `arrived`. The message
    /// will have `size`.
    ///
    /// The room of a small beginning grows with what has arrived, unless little memory is in use. A peer
    /// that only begins messages makes them take twice what it sends at the most, and [`LITTLE_MEMORY`].
    pub(super) fn make_room(&mut self, arrived: usize, size: usize) {
        if self.capacity() >= arrived {
            return;
        }
        if arrived > SMALL {
            if self.grow(size, MOST_OF_HEAP) {
                return;
            }
            if let Some(mut mapped) = Self::mapped(size) {
                mapped.push(self.as_ref());
                *self = mapped;
                return;
            }
        } else if size > SMALL && self.grow(size, LITTLE_MEMORY) {
            return;
        }
        let MessageMemory::Vector(vector) = &mut self.memory else { return };
        let room = size.min(2 * arrived);
        // Exactly: a handler may hold on to the message and its room.
        vector.reserve_exact(room - vector.len());
    }

    /// Appends bytes, for which there is room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match &mut self.memory {
            MessageMemory::Vector(vector) => vector.extend_from_slice(bytes),
            MessageMemory::Mapping { map, len } => {
                map[*len..][..bytes.len()].copy_from_slice(bytes);
                *len += bytes.len();
            }
        }
    }

    /// Returns the message. Its memory lives as long as any part of it.
    pub(super) fn into_bytes(mut self) -> Bytes {
        if let (MessageMemory::Vector(vector), None) = (&mut self.memory, &self.part) {
            return mem::take(vector).into();
        }
        Bytes::from_owner(self)
    }
}

impl Drop for MessageBuffer {
    /// Leaves the memory of a large message to the next one, if few of them are in use.
    fn drop(&mut self) {
        if let (MessageMemory::Vector(vector), Some(part)) = (&mut self.memory, &self.part)
            && part.sum.load(Ordering::Relaxed) <= LITTLE_MEMORY
        {
            large_buffers::give(mem::take(vector));
        }
    }
}

impl AsRef<[u8]> for MessageBuffer {
    fn as_ref(&self) -> &[u8] {
        match &self.memory {
            MessageMemory::Vector(vector) => vector,
            MessageMemory::Mapping { map, len } => &map[..*len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_mapped(buffer: &MessageBuffer) -> bool {
        matches!(buffer.memory, MessageMemory::Mapping { .. })
    }

    /// The tests of one process share the sums, so others see less memory while this one runs.
    #[test]
    fn beyond_a_limit_of_the_heap_large_messages_have_mappings_of_their_own() {
        let size = MOST_OF_HEAP / 8;
        let mut early = 0;
        let mut begun = |byte: u8| {
            let mut buffer = MessageBuffer::new();
            let beginning = [byte; 2 * SMALL + 1];
            let (unasked, asked) = beginning.split_at(SMALL);
            buffer.make_room(unasked.len(), size);
            buffer.push(unasked);
            assert!(!is_mapped(&buffer));
            if buffer.capacity() > 2 * SMALL {
                assert_eq!(buffer.capacity(), size);
                early += size;
            }
            buffer.make_room(beginning.len(), size);
            buffer.push(asked);
            assert_eq!(buffer.capacity(), size);
            assert!(buffer.as_ref() == beginning);
            buffer
        };
        let buffers: Vec<_> = (0..20).map(&mut begun).collect();
        let mapped = buffers.iter().filter(|buffer| is_mapped(buffer)).count();
        assert!(mapped >= 12, "{mapped}");
        // Whatever the memory is, what is written to it is read from it, and its end gives it back.
        for (buffer, byte) in buffers.into_iter().zip(0..) {
            let message = buffer.into_bytes();
            let part = message.slice(2 * SMALL..);
            drop(message);
            assert_eq!(part, [byte].as_slice());
        }
        assert!(!is_mapped(&begun(7)), "the others gave their part back");
        assert!(early <= LITTLE_MEMORY + size, "few have all of their memory from the beginning");
    }

    #[test]
    fn a_large_message_is_encoded_as_any_other() {
        let message = vec![7_u8; SMALL];
        let mut expected = b"prefix".to_vec();
        message.encode_raw(&mut expected);
        let held: Vec<_> = (0..3).map(|_| MessageBuffer::large(MOST_OF_HEAP / 2)).collect();
        let encoded = MessageBuffer::encode(b"prefix", &message, message.encoded_len()).unwrap();
        assert_eq!(encoded, expected);
        drop(held);
        let encoded = MessageBuffer::encode(b"prefix", &message, message.encoded_len()).unwrap();
        assert_eq!(encoded, expected);
        assert!(MessageBuffer::encode(b"", &b"small".to_vec(), 5).is_none());
    }
}
