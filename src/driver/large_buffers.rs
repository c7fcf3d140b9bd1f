//! The memory of large messages, which is used again: [`take`] and [`give`].
//!
//! Fresh memory costs a page fault for each 4 KiB that are written to it, which takes about as long as to
//! fill it. The C library's allocator gives large blocks back to the system, whole or in part.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many bytes are kept, for the whole process.
const MOST: usize = 4 << 20;

/// Smaller buffers are not kept, because an allocator keeps them by itself.
const SMALL: usize = 64 << 10;

/// Larger ones are not kept either, because usually two are in use.
const LARGE: usize = MOST / 2;

/// Buffers that are not in use, the latest last.
#[derive(Debug)]
struct Spare(Vec<Vec<u8>>);

static SPARE: Mutex<Spare> = Mutex::new(Spare(Vec::new()));

fn spare() -> MutexGuard<'static, Spare> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns an empty buffer with room for `size` bytes, and at most an eighth more, if there is one.
pub(crate) fn take(size: usize) -> Option<Vec<u8>> {
    spare().take(size)
}

/// Keeps a buffer for another message. Older ones are freed for it.
pub(crate) fn give(buffer: Vec<u8>) {
    // Memory is freed without the lock.
    let freed = spare().give(buffer);
    drop(freed);
}

/// Frees what is kept.
pub(super) fn clear() {
    let kept = std::mem::take(&mut spare().0);
    drop(kept);
}

impl Spare {
    fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| (size..=size + size / 8).contains(&buffer.capacity());
        self.0.iter().rposition(fits).map(|at| self.0.remove(at))
    }

    /// Returns the buffers that are not kept.
    fn give(&mut self, mut buffer: Vec<u8>) -> Vec<Vec<u8>> {
        if !(SMALL..=LARGE).contains(&buffer.capacity()) {
            return vec![buffer];
        }
        buffer.clear();
        self.0.push(buffer);
        let mut kept = self.kept();
        let mut freed = Vec::new();
        while kept > MOST {
            let oldest = self.0.remove(0);
            kept -= oldest.capacity();
            freed.push(oldest);
        }
        freed
    }

    fn kept(&self) -> usize {
        self.0.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_a_message_of_about_its_size() {
        let mut spare = Spare(Vec::new());
        let mut buffer = Vec::with_capacity(1_000_000);
        buffer.extend_from_slice(b"secret");
        let at = buffer.as_ptr();
        assert!(spare.give(buffer).is_empty());
        assert_eq!((spare.take(1_000_001), spare.take(880_000)), (None, None));
        let again = spare.take(900_000).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        assert_eq!(spare.take(900_000), None);
    }

    #[test]
    fn little_is_kept_and_the_oldest_is_freed_first() {
        let mut spare = Spare(Vec::new());
        let sizes: Vec<_> = (0..40).map(|count| SMALL + count * (LARGE - SMALL) / 39).collect();
        let mut freed = Vec::new();
        for size in &sizes {
            freed.extend(spare.give(Vec::with_capacity(*size)));
            assert!(spare.kept() <= MOST);
        }
        freed.append(&mut spare.0);
        assert!(freed.iter().map(Vec::capacity).eq(sizes));
        for size in [SMALL - 1, LARGE + 1] {
            assert_eq!(spare.give(Vec::with_capacity(size)).len(), 1);
        }
        assert_eq!(spare.kept(), 0);
    }
}
