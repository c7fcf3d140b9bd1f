//! [`Pinned`]: read buffers that payloads were cut out of. The whole buffer stays in memory until
//! the last of its payloads is dropped, and it counts in full until then.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

/// The smallest and the largest buffer that is kept for the thread's next read. A smaller one would have to
/// grow for it. While a small message in it is lent, only the free rest of a buffer counts.
const SPARE_SIZE: RangeInclusive<usize> = 4 * 1024..=512 * 1024;

/// What the pinned buffers of a connection take, in bytes.
#[derive(Debug, Default)]
pub(super) struct Pinned(Option<Arc<AtomicUsize>>);

impl Pinned {
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |sum| sum.load(Ordering::Relaxed))
    }

    /// Returns the content of a buffer. The buffer counts until all parts of it are dropped.
    pub(super) fn pin(&mut self, buffer: BytesMut) -> Bytes {
        let capacity = buffer.capacity();
        let sum = Arc::clone(self.0.get_or_insert_default());
        sum.fetch_add(capacity, Ordering::Relaxed);
        Bytes::from_owner(Buffer { bytes: buffer, capacity, sum })
    }
}

struct Buffer {
    bytes: BytesMut,
    capacity: usize,
    sum: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.capacity, Ordering::Relaxed);
        give_spare(std::mem::take(&mut self.bytes));
    }
}

thread_local! {
    /// The buffer that the thread's connections read into, one after another.
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// Returns an empty buffer. It has room if the thread has kept one.
pub(crate) fn take_spare() -> BytesMut {
    SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default()
}

/// Keeps a buffer for the thread's next read, unless the thread has kept a larger one.
pub(crate) fn give_spare(mut buffer: BytesMut) {
    buffer.clear();
    let capacity = buffer.capacity();
    if SPARE_SIZE.contains(&capacity) {
        // The thread may be ending.
        let _ = SPARE.try_with(|spare| match spare.take() {
            Some(larger) if larger.capacity() > capacity => spare.set(Some(larger)),
            _ => spare.set(Some(buffer)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_counts_whole_until_the_last_part_of_it_is_dropped() {
        let mut pinned = Pinned::default();
        let mut buffer = BytesMut::with_capacity(100_000);
        buffer.extend_from_slice(&[7; 50_000]);
        let capacity = buffer.capacity();
        let content = pinned.pin(buffer);
        let part = content.slice(10..20);
        drop(content);
        assert_eq!(pinned.bytes(), capacity);
        drop(part);
        assert_eq!(pinned.bytes(), 0);
        for smaller in [1_000, 8_000] {
            give_spare(BytesMut::with_capacity(smaller));
        }
        assert_eq!(take_spare().capacity(), capacity, "it is the next one's");
    }

    #[test]
    fn a_buffer_of_which_a_message_is_lent_is_used_again_when_that_is_dropped() {
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        buffer.extend_from_slice(&[7; 2_000]);
        let at = buffer.as_ptr();
        let lent = buffer.split().freeze();
        give_spare(buffer);
        drop(lent);
        let mut buffer = take_spare();
        assert!(buffer.try_reclaim(16 * 1024));
        assert_eq!(buffer.as_ptr(), at);
    }
}
