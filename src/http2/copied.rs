//! Copies of payloads in buffers that are used again: [`copy`].

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// An allocator keeps freed memory up to about this size at hand. What is larger takes it longer to
/// find and to give back.
const SMALL: usize = 1_024;

/// A payload of this size or more is no usual one.
const LARGE: usize = 8 * 1024;

/// How many buffers a thread keeps.
const MOST: usize = 64;

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers { all: Vec::new(), next: 0 }) };
}

/// The buffers that the thread has copied payloads into. Each can be used again when its payload has
/// been dropped.
struct Buffers {
    /// The one that was used last comes first.
    all: Vec<BytesMut>,
    /// The one that was tried last while the first one was in use.
    next: usize,
}

/// Returns a copy of a payload. It takes at most a quarter more memory than its bytes.
#[inline]
pub(crate) fn copy(payload: &[u8]) -> Bytes {
    if payload.len() <= SMALL || payload.len() >= LARGE {
        return Bytes::copy_from_slice(payload);
    }
    let copied = BUFFERS.try_with(|buffers| buffers.borrow_mut().copy(payload));
    // The thread may be ending.
    copied.unwrap_or_else(|_| Bytes::copy_from_slice(payload))
}

impl Buffers {
    fn copy(&mut self, payload: &[u8]) -> Bytes {
        let len = payload.len();
        if !self.all.first_mut().is_some_and(|buffer| is_usable(buffer, len)) {
            self.put_another_first(len);
        }
        self.all[0].extend_from_slice(payload);
        self.all[0].split().freeze()
    }

    /// Puts a buffer for so many bytes into the first place.
    fn put_another_first(&mut self, len: usize) {
        self.next = if self.next + 1 < self.all.len() { self.next + 1 } else { 1 };
        match self.all.get_mut(self.next).map(|buffer| is_usable(buffer, len)) {
            Some(true) => {}
            Some(false) if self.all.len() == MOST => {
                self.all[self.next] = BytesMut::with_capacity(len);
            }
            _ => {
                self.next = self.all.len();
                self.all.push(BytesMut::with_capacity(len));
            }
        }
        self.all.swap(0, self.next);
    }
}

/// Returns whether no payload is in a buffer, and its size is right for so many bytes.
#[inline]
fn is_usable(buffer: &mut BytesMut, len: usize) -> bool {
    buffer.try_reclaim(len) && buffer.capacity() <= len + len / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_a_payload_of_about_its_size() {
        let first = copy(&[1; 1_500]);
        let at = first.as_ptr();
        let part = first.slice(100..);
        drop(first);
        let other = copy(&[2; 1_500]);
        assert_ne!(other.as_ptr(), at, "a part of it is still there");
        assert_eq!(&part[..], &[1; 1_400]);
        drop((other, part));
        let again = copy(&[3; 1_300]);
        assert_eq!(&again[..], &[3; 1_300]);
        let both = [again.as_ptr(), copy(&[3; 1_300]).as_ptr()];
        assert!(both.contains(&at) && both[0] != both[1]);
        drop(again);
        assert!(!both.contains(&copy(&[4; 1_100]).as_ptr()), "it would keep too much memory");
    }

    #[test]
    fn a_thread_keeps_few_buffers() {
        let payloads: Vec<_> = (0..3 * MOST).map(|n| copy(&[n as u8; 8_000])).collect();
        for (n, payload) in payloads.iter().enumerate() {
            assert_eq!(payload[..], [n as u8; 8_000], "no other payload is in its buffer");
        }
        drop(payloads);
        assert_eq!(BUFFERS.with_borrow(|buffers| buffers.all.len()), MOST);
    }
}
