//! [`Room`]: a buffer for encoding messages, one for each thread.

use std::cell::Cell;
use std::mem;
use std::ops::{Deref, DerefMut};

/// Larger buffers are not kept.
const KEPT: usize = 16 << 10;

thread_local! {
    /// The buffer that the thread's calls encode into, one after another.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty vector, which usually has the capacity for an ordinary message. Dropping it gives it
/// back to the thread.
#[derive(Debug)]
pub(crate) struct Room(Vec<u8>);

impl Room {
    /// Takes the thread's buffer, if it is not in use.
    pub(crate) fn take() -> Self {
        Self(ROOM.take())
    }
}

impl Deref for Room {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut room = mem::take(&mut self.0);
        if room.capacity() <= KEPT {
            room.clear();
            ROOM.replace(room);
        }
    }
}
