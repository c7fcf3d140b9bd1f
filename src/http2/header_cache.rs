//! Heads that were decoded before, found by the bytes of their header block.
//!
//! Once HPACK's table holds their fields, a caller's requests to one method, or a server's
//! responses, become the same few fully indexed bytes. While the table does not change, the same
//! bytes mean the same head. A block is kept when it appears a second time, so that a block that
//! appears once costs only a hash.

use super::head::{Head, HeadKind};

/// How many heads are kept, and how many hashes of blocks that appeared once.
const SLOTS: usize = 8;

/// A longer block is not fully indexed.
const MAX_KEPT_BLOCK: usize = 256;

/// A block with more fields is not kept, because a few bytes can refer to one large field many
/// times.
const MAX_FIELDS: usize = 32;

#[derive(Debug)]
struct CachedHead {
    block: Vec<u8>,
    head: Head,
}

impl CachedHead {
    fn bytes(&self) -> usize {
        /// The parts of a head that are not header fields.
        const HEAD: usize = 256;
        size_of::<Self>() + HEAD + self.block.len() + self.head.bytes()
    }
}

/// At most 8 heads of one generation. It allocates nothing until the first one is kept.
#[derive(Debug, Default)]
pub(super) struct HeaderCache(Option<Box<Slots>>);

/// The hashes are next to each other, so that a search takes a few instructions.
#[derive(Debug, Default)]
struct Slots {
    hashes: [u64; SLOTS],
    /// The entries, in the order of the hashes.
    entries: Vec<CachedHead>,
    generation: u64,
    /// How much memory the entries take.
    bytes: usize,
    /// The hashes of blocks that were decoded and not kept.
    seen: [u64; SLOTS],
    next: usize,
    next_seen: usize,
}

impl Slots {
    /// Drops the entries of an earlier generation, with the values that they keep. They were seen.
    fn begin(&mut self, generation: u64) {
        if self.generation == generation {
            return;
        }
        self.generation = generation;
        self.entries = Vec::new();
        (self.bytes, self.next) = (0, 0);
        for hash in std::mem::take(&mut self.hashes).into_iter().filter(|hash| *hash != 0) {
            self.note_seen(hash);
        }
    }

    fn note_seen(&mut self, hash: u64) {
        self.next_seen = (self.next_seen + 1) % SLOTS;
        self.seen[self.next_seen] = hash;
    }

    fn put(&mut self, at: usize, hash: u64, entry: CachedHead) {
        self.hashes[at] = hash;
        self.bytes += entry.bytes();
        match self.entries.get_mut(at) {
            Some(old) => self.bytes -= std::mem::replace(old, entry).bytes(),
            None => {
                self.entries.reserve_exact(1);
                self.entries.push(entry);
            }
        }
    }
}

/// The place for a block that was not found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    hash: u64,
}

impl HeaderCache {
    /// Returns the head of these bytes, or the place to put it.
    #[inline]
    pub(super) fn find(
        &self,
        kind: HeadKind,
        generation: u64,
        block: &[u8],
    ) -> Result<&Head, Place> {
        let hash = hash(block, kind);
        if let Some(slots) = &self.0
            && let Some(at) = slots.hashes.iter().position(|other| *other == hash)
            && let Some(entry) = slots.entries.get(at)
            && slots.generation == generation
            && entry.block == block
            && entry.head.kind() == kind
        {
            return Ok(&entry.head);
        }
        Err(Place { hash })
    }

    /// Keeps a head that was decoded without changing the table, if its block has appeared before.
    pub(super) fn keep(&mut self, place: Place, generation: u64, block: &[u8], head: &Head) {
        if block.len() > MAX_KEPT_BLOCK || head.fields() > MAX_FIELDS {
            return;
        }
        let Place { hash } = place;
        let slots = self.0.get_or_insert_with(Box::default);
        slots.begin(generation);
        // A new entry replaces another one with the same hash.
        let at = match slots.hashes.iter().position(|other| *other == hash) {
            Some(at) => at,
            None if slots.seen.contains(&hash) => {
                let at = slots.next;
                slots.next = (slots.next + 1) % SLOTS;
                at
            }
            None => {
                slots.note_seen(hash);
                return;
            }
        };
        // A copy has exactly the size that it needs. A head that grew may have more.
        slots.put(at, hash, CachedHead { block: block.to_vec(), head: head.copy() });
    }

    /// Returns how much memory the heads take.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |slots| slots.bytes)
    }
}

/// Returns a hash of a block. It only saves time, because the bytes are compared as well.
#[inline]
fn hash(block: &[u8], kind: HeadKind) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(K);
    let hash = (block.len() * 4 + kind as usize + 1) as u64;
    let hash = match (block.first_chunk::<4>(), block.last_chunk::<4>()) {
        // The usual block.
        (Some(first), Some(last)) if block.len() <= 8 => {
            let [first, last] = [first, last].map(|half| u64::from(u32::from_le_bytes(*half)));
            mix(hash, first << 32 | last)
        }
        _ => {
            let (words, rest) = block.as_chunks::<8>();
            let words = words.iter().map(|word| u64::from_le_bytes(*word));
            words.chain(rest.iter().map(|byte| u64::from(*byte))).fold(hash, mix)
        }
    };
    hash ^ hash >> 32
}
