//! [`WriteBuffer`]: the bytes that wait for the socket. Heads and small payloads are in one buffer,
//! so that a message is written at once. Large payloads are beside it and are never copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::spare::FEW;

/// A payload of this size or more that a caller has just encoded takes the memory of the caller's buffer.
/// A smaller one is copied out of it, so that the caller can use it again.
pub(crate) const LARGE: usize = 16 * 1024;

/// How much memory the buffer may keep while nothing waits.
const KEPT: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    buffer: BytesMut,
    /// How many bytes are being written: [`take`](Self::take). They are before those in `buffer`.
    taken: usize,
    /// The memory for the next frames while bytes are being written.
    other: BytesMut,
    /// The large payloads.
    payloads: VecDeque<Payload>,
    payload_bytes: usize,
    /// How many bytes the payloads keep that are not part of them.
    payload_kept: usize,
    /// How many bytes have ever left `buffer`.
    buffer_written: u64,
    /// How many bytes have ever left.
    written: u64,
    control: ControlBytes,
}

/// A large payload, beside the buffer.
#[derive(Debug)]
struct Payload {
    /// Its position in the buffer, counted from the connection's start.
    place: u64,
    bytes: Bytes,
    /// How many bytes its memory has besides.
    kept: usize,
}

/// How many of the waiting bytes are answers that the peer caused. The number is exact to within
/// one turn of the buffer: the bytes that `earlier` counts end before position `mark`, those that `recent`
/// counts may be on both sides.
#[derive(Debug, Default)]
struct ControlBytes {
    earlier: usize,
    recent: usize,
    mark: u64,
}

impl WriteBuffer {
    /// Returns the buffer for the next frame.
    #[inline]
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Appends a payload, whose memory has `kept` bytes besides.
    pub(super) fn push_payload(&mut self, bytes: Bytes, kept: usize) {
        self.payload_bytes += bytes.len();
        self.payload_kept += kept;
        let place = self.buffer_written + (self.taken + self.buffer.len()) as u64;
        self.payloads.push_back(Payload { place, bytes, kept });
    }

    /// Returns how much memory all that waits takes, in bytes.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        self.len() + self.payload_kept
    }

    /// Counts `bytes` that were just written to the buffer as an answer.
    #[inline]
    pub(super) fn count_control(&mut self, bytes: usize) {
        self.control.recent += bytes;
    }

    /// Returns how many bytes of answers wait.
    #[inline]
    pub(super) fn control_waiting(&self) -> usize {
        self.control.earlier + self.control.recent
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.taken + self.buffer.len() + self.payload_bytes
    }

    /// Returns whether bytes are being written.
    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        self.taken > 0
    }

    /// Takes all waiting bytes out, to be written while more are added, if no payload is beside the
    /// buffer. They are waiting bytes until [`put_back`](Self::put_back) says how many were written.
    pub(super) fn take(&mut self) -> Option<BytesMut> {
        debug_assert!(!self.is_taken());
        if self.buffer.is_empty() || !self.payloads.is_empty() {
            return None;
        }
        self.taken = self.buffer.len();
        Some(std::mem::replace(&mut self.buffer, std::mem::take(&mut self.other)))
    }

    /// Puts back what was taken out, without the bytes that were written.
    pub(super) fn put_back(&mut self, mut rest: BytesMut) {
        let taken = std::mem::take(&mut self.taken);
        if taken == 0 {
            // They were dropped meanwhile.
            return;
        }
        let written = taken - rest.len();
        if rest.is_empty() {
            self.other = rest;
            if self.buffer.is_empty() {
                std::mem::swap(&mut self.buffer, &mut self.other);
            }
        } else {
            rest.extend_from_slice(&self.buffer);
            self.other = std::mem::replace(&mut self.buffer, rest);
            self.other.clear();
        }
        self.written += written as u64;
        self.buffer_written += written as u64;
        self.note_control_sent();
    }

    /// Returns how many bytes have ever left.
    #[inline]
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Returns the position behind the bytes that have left or are being written, counted in bytes ever
    /// sent.
    #[inline]
    pub(super) fn handed_over(&self) -> u64 {
        self.written + self.taken as u64
    }

    /// Drops the waiting bytes from position `end` on, which is not before
    /// [`handed_over`](Self::handed_over). A frame begins there. Dropped control frames still count as
    /// waiting.
    pub(super) fn truncate(&mut self, end: u64) {
        let mut left = end.saturating_sub(self.handed_over()) as usize;
        let mut at = self.buffer_written + self.taken as u64;
        let (mut inline, mut payloads) = (0, 0);
        for Payload { place, bytes, .. } in &self.payloads {
            let before = (*place - at) as usize;
            if left <= before {
                break;
            }
            inline += before;
            left = left.saturating_sub(before + bytes.len());
            at = *place;
            payloads += 1;
        }
        self.buffer.truncate(inline + left);
        for Payload { bytes, kept, .. } in self.payloads.drain(payloads..) {
            self.payload_bytes -= bytes.len();
            self.payload_kept -= kept;
        }
    }

    /// Returns the position of the next byte, counted in bytes ever sent.
    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.written + self.len() as u64
    }

    /// Returns all waiting bytes if no payload is beside the buffer.
    #[inline]
    pub(super) fn contiguous(&self) -> Option<&[u8]> {
        self.payloads.is_empty().then_some(&self.buffer[..])
    }

    /// Fills `slices` with the bytes to be written first, at most `limit` of them. Returns how many
    /// it filled.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>], limit: usize) -> usize {
        let mut count = 0;
        let mut left = limit;
        let mut buffer = &self.buffer[..];
        let mut at = self.buffer_written;
        let mut push = |bytes: &'a [u8]| {
            if bytes.is_empty() {
                return true;
            }
            let Some(slot) = slices.get_mut(count).filter(|_| left > 0) else {
                return false;
            };
            let bytes = &bytes[..bytes.len().min(left)];
            *slot = IoSlice::new(bytes);
            left -= bytes.len();
            count += 1;
            true
        };
        for Payload { place, bytes: payload, .. } in &self.payloads {
            let (before, after) = buffer.split_at((*place - at) as usize);
            if !push(before) || !push(payload) {
                return count;
            }
            buffer = after;
            at = *place;
        }
        push(buffer);
        count
    }

    /// Removes `bytes` that were written.
    pub(super) fn advance(&mut self, mut bytes: usize) {
        debug_assert!(bytes <= self.len());
        self.written += bytes as u64;
        while let Some(Payload { place, bytes: payload, kept }) = self.payloads.front_mut() {
            let before = (*place - self.buffer_written) as usize;
            let inline = before.min(bytes);
            self.buffer.advance(inline);
            self.buffer_written += inline as u64;
            bytes -= inline;
            if inline < before {
                return self.note_control_sent();
            }
            let taken = payload.len().min(bytes);
            payload.advance(taken);
            self.payload_bytes -= taken;
            bytes -= taken;
            if !payload.is_empty() {
                return self.note_control_sent();
            }
            self.payload_kept -= *kept;
            self.payloads.pop_front();
        }
        let inline = bytes.min(self.buffer.len());
        if inline == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.advance(inline);
        }
        self.buffer_written += inline as u64;
        self.note_control_sent();
    }

    /// Starts to count anew, because all bytes that `earlier` counts have left.
    #[inline]
    fn note_control_sent(&mut self) {
        if self.control.earlier | self.control.recent != 0 && self.written >= self.control.mark {
            self.control =
                ControlBytes { earlier: self.control.recent, recent: 0, mark: self.end() };
            if self.len() == 0 {
                self.control = ControlBytes { mark: self.written, ..ControlBytes::default() };
            }
        }
    }

    /// Drops all waiting bytes, because the socket takes no more.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.taken = 0;
        self.payloads.clear();
        self.payload_bytes = 0;
        self.payload_kept = 0;
        self.control = ControlBytes::default();
    }

    pub(super) fn has_buffer(&self) -> bool {
        self.buffer.capacity() > 0
    }

    pub(super) fn lend(&mut self, buffer: BytesMut) {
        debug_assert!(buffer.is_empty() && !self.has_buffer());
        self.buffer = buffer;
    }

    /// Takes the buffer if it is empty and larger than `kept` bytes.
    pub(super) fn unused(&mut self, kept: usize) -> Option<BytesMut> {
        (self.buffer.is_empty() && self.buffer.capacity() > kept)
            .then(|| std::mem::take(&mut self.buffer))
    }

    /// Gives back the memory if nothing waits and the buffer is larger than a message or two.
    pub(super) fn trim(&mut self) {
        if self.len() == 0 && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
        if self.other.capacity() > 0 {
            self.other = BytesMut::new();
        }
        if self.payloads.is_empty() && self.payloads.capacity() > FEW {
            self.payloads = VecDeque::new();
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity() + self.other.capacity()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn with(bytes: &[u8]) -> WriteBuffer {
        let mut waiting = WriteBuffer::default();
        waiting.buffer().put_slice(bytes);
        waiting
    }

    fn rest(waiting: &WriteBuffer) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 5];
        let count = waiting.slices(&mut slices, usize::MAX);
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn what_is_added_while_bytes_are_written_comes_after_those_that_were_not() {
        let mut waiting = with(b"first");
        let mut taken = waiting.take().unwrap();
        waiting.buffer().put_slice(b"second");
        waiting.push_payload(Bytes::from_static(b"large"), 0);
        waiting.buffer().put_slice(b"third");
        assert_eq!((waiting.len(), waiting.end(), waiting.written()), (21, 21, 0));
        taken.advance(2);
        waiting.put_back(taken);
        assert_eq!(rest(&waiting), b"rstsecondlargethird");
        assert_eq!((waiting.len(), waiting.end(), waiting.written()), (19, 21, 2));
        assert!(waiting.take().is_none(), "a payload is beside the buffer");
        waiting.advance(15);
        assert_eq!(rest(&waiting), b"hird");
        assert_eq!(waiting.take().unwrap(), &b"hird"[..]);
    }

    #[test]
    fn the_memory_is_used_in_turn_and_given_back() {
        let mut waiting = with(&[1; 10_000]);
        let first = waiting.buffer.as_ptr();
        for _ in 0..3 {
            let mut taken = waiting.take().unwrap();
            waiting.buffer().put_slice(&[2; 10_000]);
            taken.clear();
            waiting.put_back(taken);
        }
        // The other one was made once.
        assert_ne!(waiting.buffer.as_ptr(), first);
        assert!(waiting.capacity() < 30_000);
        let mut taken = waiting.take().unwrap();
        taken.clear();
        waiting.put_back(taken);
        waiting.trim();
        assert_eq!(waiting.capacity(), 0);
    }

    #[test]
    fn what_waits_behind_a_position_is_dropped() {
        for (end, kept) in [(3, &b""[..]), (5, b"st"), (11, b"stsecond"), (18, b"stsecondlargeth")]
        {
            let mut waiting = with(b"first");
            waiting.advance(3);
            waiting.buffer().put_slice(b"second");
            waiting.push_payload(Bytes::from_static(b"large"), 7);
            waiting.buffer().put_slice(b"third");
            waiting.push_payload(Bytes::from_static(b"larger"), 0);
            waiting.truncate(end);
            assert_eq!((rest(&waiting), waiting.len()), (kept.to_vec(), kept.len()));
            assert_eq!(waiting.kept(), kept.len() + if end > 11 { 7 } else { 0 });
        }
        let mut waiting = with(b"first");
        let taken = waiting.take().unwrap();
        waiting.buffer().put_slice(b"second");
        waiting.truncate(waiting.handed_over() + 3);
        waiting.put_back(taken);
        assert_eq!(rest(&waiting), b"firstsec");
    }

    #[test]
    fn bytes_that_were_dropped_while_they_are_written_do_not_count() {
        let mut waiting = with(b"first");
        let mut taken = waiting.take().unwrap();
        waiting.clear();
        assert_eq!(waiting.len(), 0);
        waiting.buffer().put_slice(b"last");
        taken.advance(2);
        waiting.put_back(taken);
        assert_eq!(rest(&waiting), b"last");
        assert_eq!(waiting.written(), 0);
    }
}
