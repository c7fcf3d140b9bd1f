//! [`EncodeBuffer`]: a buffer for encoding messages, one for each thread.

use std::cell::Cell;
use std::mem;
use std::ops::{Deref, DerefMut};

/// Larger buffers are not kept.
const KEPT: usize = 16 << 10;

thread_local! {
    /// The buffer that the thread's calls encode into, one after another.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty vector, which usually has the capacity for an ordinary message. Dropping it gives it
/// back to the thread.
#[derive(Debug)]
pub(crate) struct EncodeBuffer(Vec<u8>);

impl EncodeBuffer {
    /// Takes the thread's buffer, if it is not in use.
    pub(crate) fn take() -> Self {
        // The thread may be ending.
        Self(BUFFER.try_with(Cell::take).unwrap_or_default())
    }
}

impl Deref for EncodeBuffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for EncodeBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for EncodeBuffer {
    fn drop(&mut self) {
        let mut buffer = mem::take(&mut self.0);
        if buffer.capacity() <= KEPT {
            buffer.clear();
            let _ = BUFFER.try_with(|kept| kept.replace(buffer));
        }
    }
}
