//! [`PartsWriter`]: encodes a large message in parts. A large `bytes` field whose type is `Bytes` becomes a
//! part that shares the field's memory, so it is not copied before the socket takes it.
#![allow(unsafe_code, reason = "prost writes to a `BufMut`, which is an unsafe trait")]

use std::collections::VecDeque;
use std::mem;

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes};

use super::message_buffer::{MessageBuffer, SMALL};

/// A field of this size in bytes, or a larger one, is not copied. To copy a smaller one takes less time
/// than the frames of another part do.
const LARGE: usize = 32 * 1024;

/// The room for fields before and behind large ones, in bytes.
const FIELDS: usize = 512;

/// The most that a field's key and length take, and more, in bytes.
const SCRATCH: usize = 64;

/// Parts of messages. The buffer is the last part, to which more can be added.
#[derive(Debug, Default)]
pub(super) struct MessageParts {
    complete: VecDeque<Bytes>,
    pub(super) buffer: Vec<u8>,
}

impl MessageParts {
    /// Takes the first complete part.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.complete.pop_front()
    }

    /// Returns whether no part is complete.
    pub(super) fn is_empty(&self) -> bool {
        self.complete.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns a writer that appends a message of `size` bytes, with its prefix.
    pub(super) fn writer(&mut self, size: usize) -> PartsWriter<'_> {
        if self.buffer.capacity() - self.buffer.len() < FIELDS {
            self.complete_buffer();
            self.buffer.reserve_exact(FIELDS);
        }
        PartsWriter { parts: self, rest: None, left: size, scratch: [0; SCRATCH] }
    }

    fn complete_buffer(&mut self) {
        if !self.buffer.is_empty() {
            self.complete.push_back(mem::take(&mut self.buffer).into());
        }
    }
}

/// Appends one message.
#[derive(Debug)]
pub(super) struct PartsWriter<'a> {
    parts: &'a mut MessageParts,
    /// Bytes that follow the buffer. They are more than it has room for.
    rest: Option<MessageBuffer>,
    /// How many bytes of the message are not written yet.
    left: usize,
    /// What [`chunk_mut`](BufMut::chunk_mut) lends.
    scratch: [u8; SCRATCH],
}

impl PartsWriter<'_> {
    /// Completes the parts that are not in the buffer.
    pub(super) fn finish(mut self) {
        if self.rest.is_some() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.parts.complete_buffer();
        if let Some(rest) = self.rest.take().filter(|rest| !rest.is_empty()) {
            self.parts.complete.push_back(rest.into_bytes());
        }
    }

    /// Appends bytes for which the buffer has no room.
    #[cold]
    fn put_rest(&mut self, bytes: &[u8]) {
        if let Some(rest) = &mut self.rest {
            return rest.push(bytes);
        }
        let missing = bytes.len() + self.left;
        let buffer = &mut self.parts.buffer;
        if buffer.is_empty() && bytes.len() <= FIELDS {
            // Another large field may follow these bytes, which begin or end one.
            buffer.reserve_exact(FIELDS);
        } else if missing > SMALL
            && let Some(mut rest) = MessageBuffer::large(missing)
        {
            rest.push(bytes);
            self.rest = Some(rest);
            return;
        } else {
            buffer.reserve_exact(missing + FIELDS);
        }
        buffer.extend_from_slice(bytes);
    }
}

// SAFETY: `chunk_mut` lends initialised memory of its own, and `advance_mut` copies out of it, with a check
// of the bounds. Neither has an unsafe operation.
unsafe impl BufMut for PartsWriter<'_> {
    fn remaining_mut(&self) -> usize {
        usize::MAX
    }

    /// Copies what was written to the last chunk. prost does not do that: it calls the methods below.
    unsafe fn advance_mut(&mut self, count: usize) {
        let scratch = self.scratch;
        self.put_slice(&scratch[..count]);
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        UninitSlice::new(&mut self.scratch)
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.left = self.left.saturating_sub(bytes.len());
        let buffer = &mut self.parts.buffer;
        if self.rest.is_none() && bytes.len() <= buffer.capacity() - buffer.len() {
            buffer.extend_from_slice(bytes);
        } else {
            self.put_rest(bytes);
        }
    }

    #[inline]
    fn put<T: Buf>(&mut self, mut from: T) {
        let len = from.remaining();
        // Other types of this size are copied by `copy_to_bytes`.
        if len >= LARGE && size_of::<T>() == size_of::<Bytes>() {
            self.complete();
            self.left = self.left.saturating_sub(len);
            return self.parts.complete.push_back(from.copy_to_bytes(len));
        }
        while from.has_remaining() {
            let chunk = from.chunk();
            let len = chunk.len();
            self.put_slice(chunk);
            from.advance(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Files {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        shared: Vec<Bytes>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        own: Vec<Vec<u8>>,
        #[prost(message, optional, boxed, tag = "4")]
        inner: Option<Box<Self>>,
        #[prost(uint64, repeated, tag = "5")]
        numbers: Vec<u64>,
    }

    fn file(byte: u8, len: usize) -> Bytes {
        vec![byte; len].into()
    }

    fn write(message: &impl Message, parts: &mut MessageParts) {
        let mut writer = parts.writer(message.encoded_len());
        message.encode_raw(&mut writer);
        assert_eq!(writer.left, 0);
        writer.finish();
    }

    /// Returns the complete parts and the buffer.
    fn taken(mut parts: MessageParts) -> Vec<Bytes> {
        parts.complete_buffer();
        parts.complete.into()
    }

    #[test]
    fn large_fields_are_shared_and_all_fields_are_in_their_order() {
        let inner = Files { shared: vec![file(4, LARGE), file(5, 100)], ..Files::default() };
        let message = Files {
            name: "files".repeat(50),
            shared: vec![file(1, 5 * LARGE), file(2, LARGE - 1), file(3, LARGE)],
            own: vec![vec![6; 3 * LARGE], vec![7; 10]],
            inner: Some(Box::new(inner)),
            numbers: (0..9_000).collect(),
        };
        let mut parts = MessageParts::default();
        write(&message, &mut parts);
        parts.buffer.extend_from_slice(b"more");
        write(&message, &mut parts);
        let parts = taken(parts);
        let expected =
            [&message.encode_to_vec()[..], b"more", &message.encode_to_vec()[..]].concat();
        assert!(parts.concat() == expected);
        let inner = message.inner.as_deref().unwrap();
        for shared in [&message.shared[0], &message.shared[2], &inner.shared[0]] {
            let places = parts.iter().filter(|part| part.as_ptr() == shared.as_ptr());
            assert_eq!(places.count(), 2);
        }
        assert!(parts.len() <= 2 * 9, "{}", parts.len());
    }

    #[test]
    fn fields_between_large_ones_take_little_memory() {
        let message = Files { shared: vec![file(1, LARGE); 8], ..Files::default() };
        let mut parts = MessageParts::default();
        for _ in 0..4 {
            let mut writer = parts.writer(message.encoded_len());
            message.encode_raw(&mut writer);
            assert!(writer.rest.is_none());
            writer.finish();
            assert!(parts.buffer.capacity() <= 2 * FIELDS);
        }
        // The end of a message and the beginning of the next one share a part, where there is any.
        assert_eq!(taken(parts).len(), 4 * 8 * 2);
    }

    #[test]
    fn a_chunk_is_written_where_it_belongs() {
        let mut parts = MessageParts::default();
        let mut writer = parts.writer(200);
        writer.put_slice(b"before ");
        writer.put_bytes(7, 150);
        writer.put_slice(b" after");
        writer.finish();
        assert_eq!(taken(parts).concat(), [b"before ", &[7; 150][..], b" after"].concat());
    }
}
