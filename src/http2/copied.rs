//! Copies of payloads in buffers that are used again: [`copy`].

use std::cell::RefCell;

use bytes::Bytes;

/// An allocator keeps freed memory up to about this size at hand. What is larger takes it longer to
/// find and to give back.
const SMALL: usize = 1_024;

/// How many buffers a thread keeps. Each is smaller than [`CUT_OUT`](super::receive::CUT_OUT).
const MOST: usize = 32;

thread_local! {
    /// The buffers of payloads that were dropped on this thread.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Returns a copy of a payload that is smaller than [`CUT_OUT`](super::receive::CUT_OUT). It takes
/// at most a quarter more memory than its bytes.
#[inline]
pub(super) fn copy(payload: &[u8]) -> Bytes {
    if payload.len() <= SMALL {
        return Bytes::copy_from_slice(payload);
    }
    let mut bytes = take(payload.len());
    bytes.extend_from_slice(payload);
    Bytes::from_owner(Copied(bytes))
}

/// Returns an empty buffer for so many bytes.
fn take(len: usize) -> Vec<u8> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    match spare {
        Some(buffer) if buffer.capacity() >= len && buffer.capacity() <= len + len / 4 => buffer,
        // Messages of other sizes than before find no buffer, and leave theirs.
        _ => Vec::with_capacity(len),
    }
}

struct Copied(Vec<u8>);

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        // The thread may be ending.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST {
                buffer.clear();
                spare.push(buffer);
            }
        });
    }
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
        drop((other, part));
        let again = copy(&[3; 1_300]);
        assert_eq!((again.as_ptr(), &again[..]), (at, &[3; 1_300][..]));
        drop(again);
        assert_ne!(copy(&[4; 1_100]).as_ptr(), at, "it would keep too much memory");
    }

    #[test]
    fn a_thread_keeps_few_buffers() {
        drop((0..2 * MOST).map(|_| copy(&[7; 8_000])).collect::<Vec<_>>());
        assert_eq!(SPARE.with_borrow(Vec::len), MOST);
    }
}
