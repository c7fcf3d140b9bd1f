//! How much room tables and queues keep while they are empty.

use std::collections::VecDeque;

/// Entries that a table may keep room for while there are none.
pub(super) const FEW: usize = 8;

/// Gives back the memory of an empty queue that has been longer.
pub(super) fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > FEW {
        *queue = VecDeque::new();
    }
}
