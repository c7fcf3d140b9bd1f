//! The decoder's dynamic table (RFC 7541 §2.3.2, §4), which the peer's encoder fills.

use std::collections::VecDeque;

use super::field::Field;

/// The newest entry is first, as in the indexes of §2.3.3.
#[derive(Debug)]
pub(super) struct DynamicTable {
    entries: VecDeque<Field>,
    /// The sum of the entries' sizes (§4.1), which is never above `max_size`.
    size: usize,
    max_size: usize,
    /// See [`Decoder::generation`](super::Decoder::generation).
    generation: u64,
}

impl DynamicTable {
    pub(super) fn new(max_size: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size, generation: 0 }
    }

    /// Returns the entry that has `age` newer ones.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<&Field> {
        self.entries.get(age)
    }

    /// Adds an entry and passes it to `sink`, from the table if it fits there.
    ///
    /// Old entries are evicted first, to make room for the whole new one. So an entry that is
    /// larger than the table empties the table and is not added (§4.4).
    pub(super) fn insert(&mut self, field: Field, sink: impl FnOnce(&Field)) {
        self.generation += 1;
        let size = field.size();
        self.evict_to(self.max_size.saturating_sub(size));
        if size > self.max_size {
            sink(&field);
            return;
        }
        self.size += size;
        self.entries.push_front(field);
        sink(&self.entries[0]);
    }

    /// Returns how much memory it takes.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.size + self.entries.capacity() * size_of::<Field>()
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    /// Sets the size limit, and evicts the entries that no longer fit (§4.3).
    pub(super) fn set_max_size(&mut self, max_size: usize) {
        if max_size != self.max_size {
            self.generation += 1;
            self.max_size = max_size;
            self.evict_to(max_size);
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes header caches invalid without a change of the entries.
    pub(super) fn advance_generation(&mut self) {
        self.generation += 1;
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = &Field> {
        self.entries.iter()
    }
}
