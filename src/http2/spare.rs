//! How much memory tables and queues keep while they are empty.

use std::collections::VecDeque;

/// An empty table may keep room for this many entries.
pub(super) const FEW: usize = 8;

/// Gives back the memory of an empty queue that was longer before.
pub(super) fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > FEW && queue.is_empty() {
        *queue = VecDeque::new();
    }
}
