//! Heads already decoded, by the bytes of their header block.
//!
//! A caller's requests to one method, or a server's answers, become the same few fully indexed
//! bytes once HPACK's table holds their fields. As long as the table has not changed, the same
//! bytes are the same head. A block is kept from its second appearance on, so that blocks which
//! never come again cost a hash and no more.

use super::head::{Head, HeadKind};

/// How many heads are kept, and how many hashes of blocks seen once.
const SLOTS: usize = 8;

/// Longer blocks are not fully indexed ones.
const MAX_BLOCK: usize = 256;

/// A few bytes can refer to one large field again and again.
const MAX_FIELDS: usize = 32;

#[derive(Debug)]
struct Entry {
    generation: u64,
    block: Vec<u8>,
    head: Head,
}

/// At most 8 heads; nothing until the first one is worth it.
#[derive(Debug, Default)]
pub(super) struct HeaderCache(Option<Box<Slots>>);

/// The hashes lie together: looking for one among them is a matter of a few instructions.
#[derive(Debug, Default)]
struct Slots {
    hashes: [u64; SLOTS],
    /// As far as there are any, in the hashes' order.
    entries: Vec<Entry>,
    /// Of blocks that were decoded, and not kept.
    seen: [u64; SLOTS],
    next: usize,
    next_seen: usize,
}

/// Where a block that was not found may be put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    hash: u64,
}

impl HeaderCache {
    /// The head of these bytes, or the place to put it.
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
            && entry.generation == generation
            && entry.block == block
            && entry.head.kind() == kind
        {
            return Ok(&entry.head);
        }
        Err(Place { hash })
    }

    /// Keeps a head that was decoded without changing the table, if it was seen before.
    pub(super) fn keep(&mut self, place: Place, generation: u64, block: &[u8], head: &Head) {
        if block.len() > MAX_BLOCK || head.fields() > MAX_FIELDS {
            return;
        }
        let Place { hash } = place;
        let slots = self.0.get_or_insert_with(Box::default);
        // An outdated entry of the same bytes is replaced by the new one at once.
        let at = match slots.hashes.iter().position(|other| *other == hash) {
            Some(at) => at,
            None if slots.seen.contains(&hash) => {
                let at = slots.next;
                slots.next = (slots.next + 1) % SLOTS;
                at
            }
            None => {
                slots.next_seen = (slots.next_seen + 1) % SLOTS;
                slots.seen[slots.next_seen] = hash;
                return;
            }
        };
        // A copy is exactly as large as it has to be, which a head that grew is not.
        let entry = Entry { generation, block: block.to_vec(), head: head.copy() };
        slots.hashes[at] = hash;
        match slots.entries.get_mut(at) {
            Some(old) => *old = entry,
            None => {
                slots.entries.reserve_exact(1);
                slots.entries.push(entry);
            }
        }
    }
}

/// Tells blocks apart. Nothing depends on it but time: the bytes are compared.
fn hash(block: &[u8], kind: HeadKind) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = (block.len() * 4 + kind as usize + 1) as u64;
    let (words, rest) = block.as_chunks::<8>();
    for word in words {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(K);
    }
    for byte in rest {
        hash = (hash.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(K);
    }
    hash ^ hash >> 32
}
