//! The encoder's side of the dynamic table: what the peer's decoder remembers of what we sent, made
//! to be searched by content. The rules of size and eviction are those of `table`.

use super::{ENTRY_OVERHEAD, static_table};

/// The smallest entry is a name of one byte, so no table of [`MAX_SIZE`] holds more than 124.
const SLOTS: usize = 128;

/// The most that this table is ever used with.
pub(super) const MAX_SIZE: usize = 4096;

/// Any multiple of SLOTS but 0, which the chains have for "none".
const FIRST_ID: u64 = SLOTS as u64;

/// Chain heads. With some thirty entries most chains are one entry long.
const BUCKETS: usize = 64;

/// Entries have ids in the order of insertion; the live ones are the last few. Both kinds
/// of chain go from newer to older ids, so following one ends at the first id that is no longer
/// alive, and evicting an entry is forgetting the oldest id: nothing is ever unlinked.
#[derive(Debug)]
pub(super) struct SentTable {
    /// Entry `id` is at `id % SLOTS`; grows to SLOTS and stays.
    slots: Vec<Entry>,
    oldest: u64,
    /// The next id to be given.
    next: u64,
    size: usize,
    max_size: usize,
    /// The id found last.
    last_used: u64,
    /// Newest id by hash of the field, and by hash of the name.
    by_field: [u64; BUCKETS],
    by_name: [u64; BUCKETS],
    /// Names and values of the live entries in order, each name followed by its value; before
    /// them, until there are too many, those of dead ones.
    bytes: Vec<u8>,
    /// How many bytes have been removed from the front of `bytes`, ever.
    removed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    /// Next older id in either chain.
    older_field: u64,
    older_name: u64,
    /// Where its bytes start, counted from the first byte ever.
    start: u64,
    name_len: u16,
    value_len: u16,
    /// The id found after this one was, the last time it was.
    follower: u64,
    history: History,
}

/// What became of a name since an entry for it was added; see `Encoder` for what follows from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    /// The entry has been referred to as a whole.
    pub(super) used: bool,
    /// Hash of the field with this name that was last sent without being added, or 0.
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

    /// At most [`MAX_SIZE`].
    pub(super) fn set_max_size(&mut self, max_size: usize) {
        debug_assert!(max_size <= MAX_SIZE);
        self.max_size = max_size;
        self.evict_to(max_size);
    }

    /// The index of a field, if it comes after the field that it came after the last time: so it
    /// does when one call is like the one before, and then there is no need to hash it.
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

    /// The index of a field, which is thereby used.
    pub(super) fn find(&mut self, hash: u64, name: &[u8], value: &[u8]) -> Option<usize> {
        let mut id = self.by_field[bucket(hash)];
        while id >= self.oldest {
            let entry = &self.slots[slot(id)];
            if entry.hash == hash && self.holds(id, name, value) {
                // The entry last used may be gone and its slot another's, which then gets a wrong
                // expectation: no harm, expectations are checked.
                self.slots[slot(self.last_used)].follower = id;
                self.last_used = id;
                self.slots[slot(id)].history.used = true;
                return Some(self.index(id));
            }
            id = entry.older_field;
        }
        None
    }

    /// Whether a live entry is this field.
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

    /// The index and the history of the newest entry with this name.
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

    /// Adds a field that fits the table, evicting what has to go first (RFC 7541 §4.4).
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

    /// §2.3.3: the newest entry comes right after the static table.
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

    /// Drops the bytes of dead entries once they are more than a table can hold, so that what is
    /// moved is paid for by what was added.
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

    /// Names and values, newest first.
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

/// Equality of slices of one length, a dozen or two bytes long as a rule: in line, where `==`
/// would call memcmp.
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
