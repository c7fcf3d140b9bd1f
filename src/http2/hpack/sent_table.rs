//! The encoder's copy of the dynamic table that the peer's decoder has, searchable by content. Size
//! and eviction follow the same rules as in `table`.

use super::{ENTRY_OVERHEAD, static_table};

/// The smallest entry is a name of one byte, so a table of [`MAX_SIZE`] bytes holds at most 124
/// entries.
const SLOTS: usize = 128;

/// The largest size of this table in bytes.
pub(super) const MAX_SIZE: usize = 4096;

/// A multiple of SLOTS other than 0, which means "none" in the chains.
const FIRST_ID: u64 = SLOTS as u64;

/// The number of chains. With about thirty entries, most chains have one entry.
const BUCKETS: usize = 64;

/// Entries have ids in the order of insertion; the live entries are the last ones. Both kinds of
/// chains go from newer to older ids, so a search ends at the first id that is no longer live.
/// Evicting an entry only increases the oldest id; no entry is ever unlinked.
#[derive(Debug)]
pub(super) struct SentTable {
    /// Entry `id` is at `id % SLOTS`. The vector grows to SLOTS entries and never shrinks.
    slots: Vec<Entry>,
    oldest: u64,
    /// The id of the next entry.
    next: u64,
    size: usize,
    max_size: usize,
    /// The id that was found last.
    last_used: u64,
    /// The newest id of each chain, by the hash of the field and by the hash of the name.
    by_field: [u64; BUCKETS],
    by_name: [u64; BUCKETS],
    /// The names and values of the live entries in order, each name before its value. The bytes of
    /// some dead entries may come before them.
    bytes: Vec<u8>,
    /// How many bytes have been removed from the front of `bytes` in total.
    removed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    /// The next older id in each chain.
    older_field: u64,
    older_name: u64,
    /// The start of the entry's bytes, counted from the first byte that was ever added.
    start: u64,
    name_len: u16,
    value_len: u16,
    /// The id that was found next after this entry was found the last time.
    follower: u64,
    history: History,
}

/// What has happened to a name since an entry for it was added. `Encoder` describes the
/// consequences.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    /// Whether the entry has been sent as an indexed field.
    pub(super) used: bool,
    /// The hash of the last field with this name that was sent without being added, or 0.
    pub(super) passed_over: u64,
}

impl SentTable {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            oldest: FIRST_ID,
            next: FIRST_ID,
            size: 0,
            max_size: MAX_SIZE,
            last_used: FIRST_ID,
            by_field: [0; BUCKETS],
            by_name: [0; BUCKETS],
            bytes: Vec::new(),
            removed: 0,
        }
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    /// Sets the size limit, which is at most [`MAX_SIZE`].
    pub(super) fn set_max_size(&mut self, max_size: usize) {
        debug_assert!(max_size <= MAX_SIZE);
        self.max_size = max_size;
        self.evict_to(max_size);
    }

    /// Returns the index of a field if it follows the same field as the last time. This is so when
    /// a call resembles the call before, and then the field need not be hashed.
    #[inline]
    pub(super) fn find_expected(&mut self, name: &[u8], value: &[u8]) -> Option<usize> {
        let id = self.slots.get(slot(self.last_used))?.follower;
        if id < self.oldest || !self.holds(id, name, value) {
            return None;
        }
        self.last_used = id;
        self.slots[slot(id)].history.used = true;
        Some(self.index(id))
    }

    /// Returns the index of a field, and marks it as used.
    pub(super) fn find(&mut self, hash: u64, name: &[u8], value: &[u8]) -> Option<usize> {
        let mut id = self.by_field[bucket(hash)];
        while id >= self.oldest {
            let entry = &self.slots[slot(id)];
            if entry.hash == hash && self.holds(id, name, value) {
                // The entry that was used last may be evicted and its slot reused. Then the new
                // entry gets a wrong follower, which is harmless: `find_expected` compares the
                // bytes.
                self.slots[slot(self.last_used)].follower = id;
                self.last_used = id;
                self.slots[slot(id)].history.used = true;
                return Some(self.index(id));
            }
            id = entry.older_field;
        }
        None
    }

    /// Returns whether a live entry is this field.
    #[inline]
    fn holds(&self, id: u64, name: &[u8], value: &[u8]) -> bool {
        let entry = &self.slots[slot(id)];
        if usize::from(entry.name_len) != name.len() || usize::from(entry.value_len) != value.len()
        {
            return false;
        }
        let bytes = &self.bytes[(entry.start - self.removed) as usize..];
        same(&bytes[..name.len()], name) && same(&bytes[name.len()..][..value.len()], value)
    }

    /// Returns the index and the history of the newest entry with this name.
    pub(super) fn find_name(
        &mut self,
        name_hash: u64,
        name: &[u8],
    ) -> Option<(usize, &mut History)> {
        let mut id = self.by_name[bucket(name_hash)];
        while id >= self.oldest {
            let entry = &self.slots[slot(id)];
            let start = (entry.start - self.removed) as usize;
            if self.bytes[start..][..usize::from(entry.name_len)] == *name {
                return Some((self.index(id), &mut self.slots[slot(id)].history));
            }
            id = entry.older_name;
        }
        None
    }

    /// Adds a field that fits the table, after evicting the oldest entries as needed (RFC 7541
    /// §4.4).
    pub(super) fn insert(&mut self, hash: u64, name_hash: u64, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        debug_assert!(size <= self.max_size);
        self.evict_to(self.max_size - size);
        self.compact();

        let id = self.next;
        let entry = Entry {
            hash,
            older_field: self.by_field[bucket(hash)],
            older_name: self.by_name[bucket(name_hash)],
            start: self.removed + self.bytes.len() as u64,
            name_len: name.len() as u16,
            value_len: value.len() as u16,
            follower: 0,
            history: History::default(),
        };
        if slot(id) == self.slots.len() {
            self.slots.push(entry);
        } else {
            self.slots[slot(id)] = entry;
        }
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.by_field[bucket(hash)] = id;
        self.by_name[bucket(name_hash)] = id;
        self.next += 1;
        self.size += size;
    }

    /// Returns the index of an entry. The newest entry comes right after the static table (§2.3.3).
    fn index(&self, id: u64) -> usize {
        static_table::LEN + (self.next - id) as usize
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let entry = &self.slots[slot(self.oldest)];
            self.size -=
                usize::from(entry.name_len) + usize::from(entry.value_len) + ENTRY_OVERHEAD;
            self.oldest += 1;
        }
    }

    /// Removes the bytes of dead entries when they are more than a table can hold. So the cost of
    /// moving the others is proportional to the bytes that were added.
    fn compact(&mut self) {
        let dead = if self.oldest == self.next {
            self.bytes.len()
        } else {
            (self.slots[slot(self.oldest)].start - self.removed) as usize
        };
        if dead >= MAX_SIZE {
            self.bytes.drain(..dead);
            self.removed += dead as u64;
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns names and values, the newest first.
    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (self.oldest..self.next).rev().map(|id| {
            let entry = &self.slots[slot(id)];
            let start = (entry.start - self.removed) as usize;
            let (name, rest) = self.bytes[start..].split_at(usize::from(entry.name_len));
            (name, &rest[..usize::from(entry.value_len)])
        })
    }
}

/// Compares slices of equal length, usually of ten to twenty bytes. It is inlined, where `==` would
/// call memcmp.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    debug_assert_eq!(a.len(), b.len());
    let (mut a_rest, mut b_rest) = (a, b);
    while let (Some((a_word, a_tail)), Some((b_word, b_tail))) =
        (a_rest.split_first_chunk::<8>(), b_rest.split_first_chunk::<8>())
    {
        if a_word != b_word {
            return false;
        }
        (a_rest, b_rest) = (a_tail, b_tail);
    }
    if let (Some(a_word), Some(b_word)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        return a_word == b_word;
    }
    if let (Some(a_half), Some(b_half)) = (a.first_chunk::<4>(), b.first_chunk::<4>()) {
        return a_half == b_half && a.last_chunk::<4>() == b.last_chunk::<4>();
    }
    a.iter().eq(b)
}

fn slot(id: u64) -> usize {
    id as usize % SLOTS
}

fn bucket(hash: u64) -> usize {
    hash as usize % BUCKETS
}
