//! The buffer that a thread's connections encode into, one after another.

use std::cell::Cell;

use bytes::BytesMut;

use crate::http2::Connection;

/// A larger buffer is not kept for the next connection. The messages of 64 calls of 1 KiB fit.
const MOST: usize = 128 * 1024;

thread_local! {
    static BUFFER: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// Lends the thread's buffer to a connection that has none.
#[inline]
pub(super) fn lend(h2: &mut Connection) {
    if !h2.has_buffer()
        // The thread may be ending.
        && let Some(buffer) = BUFFER.try_with(Cell::take).ok().flatten()
    {
        h2.lend_buffer(buffer);
    }
}

/// Takes the buffer of a connection with nothing to send. A connection may keep a buffer of up to
/// `kept` bytes.
pub(super) fn give_back(h2: &mut Connection, kept: usize) {
    if let Some(buffer) = h2.unused_buffer(kept)
        && buffer.capacity() <= MOST
    {
        let _ = BUFFER.try_with(|kept| kept.replace(Some(buffer)));
    }
}
