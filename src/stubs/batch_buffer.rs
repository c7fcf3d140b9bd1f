//! Buffers of batches: messages of a stream that are sent together. A thread uses them again, because an
//! allocator merges and splits blocks of this size each time.

use std::cell::RefCell;
use std::mem;

use bytes::Bytes;

/// Messages that are ready one after the other are sent together up to this size in bytes. The last one
/// may end beyond it.
pub(super) const BATCH: usize = 16 << 10;

/// The size of a buffer in bytes. Longer batches get memory of their own.
pub(super) const ROOM: usize = 24 << 10;

/// How many buffers a thread keeps.
const MOST: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Returns an empty buffer with [`ROOM`].
pub(super) fn take() -> Vec<u8> {
    // The thread may be ending.
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    spare.unwrap_or_else(|| Vec::with_capacity(ROOM))
}

/// Keeps a buffer of that size for another batch.
fn give(mut buffer: Vec<u8>) {
    buffer.clear();
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MOST {
            spare.push(buffer);
        }
    });
}

/// Returns the content of a buffer. A buffer of the usual size is used again. It is not kept for a short
/// batch, which may wait for the peer.
pub(super) fn seal(buffer: Vec<u8>) -> Bytes {
    if buffer.capacity() != ROOM {
        return buffer.into();
    }
    if buffer.len() >= ROOM / 4 {
        return Bytes::from_owner(Batch(buffer));
    }
    let copied = Bytes::copy_from_slice(&buffer);
    give(buffer);
    copied
}

/// A batch on its way.
struct Batch(Vec<u8>);

impl AsRef<[u8]> for Batch {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        give(mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a batch of so many bytes.
    fn batch(len: usize) -> Bytes {
        let mut buffer = take();
        buffer.resize(len, 7);
        seal(buffer)
    }

    fn kept() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn a_buffer_is_used_again_once_its_batch_was_dropped() {
        let first = batch(BATCH);
        let at = first.as_ptr();
        let part = first.slice(100..200);
        drop(first);
        let second = batch(BATCH);
        assert_ne!(second.as_ptr(), at, "a part of the first one is still there");
        assert_eq!(part, [7; 100][..]);
        drop(part);
        assert_eq!(batch(BATCH).as_ptr(), at);
        let many: Vec<_> = (0..2 * MOST).map(|_| batch(BATCH)).collect();
        drop(many);
        assert_eq!(kept(), MOST);
    }

    #[test]
    fn a_short_batch_leaves_the_buffer() {
        let short = batch(ROOM / 4 - 1);
        assert_eq!((short.len(), kept()), (ROOM / 4 - 1, 1));
        // Another size is not kept.
        drop(seal(vec![7; BATCH]));
        assert_eq!(kept(), 1);
    }
}
