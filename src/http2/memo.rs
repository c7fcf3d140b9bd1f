//! Heads already decoded, by the octets of their header block.
//!
//! A caller's requests to one method, or a server's answers, become the same few fully indexed
//! octets once HPACK's table holds their fields. As long as the table has not changed, the same
//! octets are the same head. A block is kept from its second appearance on, so that blocks which
//! never come again cost a hash and no more.

use super::head::{Head, HeadKind};

const SLOTS: usize = 16;

/// Longer blocks are not fully indexed ones.
const MAX_BLOCK: usize = 256;

#[derive(Debug, Default)]
struct Slot {
    /// Of the last block that fell into this slot and was not found.
    candidate: u64,
    generation: u64,
    block: Vec<u8>,
    head: Option<Head>,
}

/// At most 16 heads; nothing until the first one is worth it.
#[derive(Debug, Default)]
pub(super) struct Memo {
    slots: Option<Box<[Slot; SLOTS]>>,
}

/// Where a block that was not found may be put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    hash: u64,
}

impl Memo {
    /// The head of these octets, or the place to put it.
    #[inline]
    pub(super) fn find(
        &self,
        kind: HeadKind,
        generation: u64,
        block: &[u8],
    ) -> Result<&Head, Place> {
        let hash = hash(block);
        if let Some(slots) = &self.slots {
            let slot = &slots[hash as usize % SLOTS];
            if slot.generation == generation
                && slot.block == block
                && let Some(head) = &slot.head
                && head.kind() == kind
            {
                return Ok(head);
            }
        }
        Err(Place { hash })
    }

    /// Keeps a head that was decoded without changing the table, if it was seen before.
    pub(super) fn keep(&mut self, place: Place, generation: u64, block: &[u8], head: &Head) {
        if block.len() > MAX_BLOCK {
            return;
        }
        let slots = self.slots.get_or_insert_with(Box::default);
        let slot = &mut slots[place.hash as usize % SLOTS];
        if slot.candidate != place.hash {
            slot.candidate = place.hash;
            return;
        }
        slot.generation = generation;
        slot.block.clear();
        slot.block.extend_from_slice(block);
        slot.head = Some(head.clone());
    }

    pub(super) fn clear(&mut self) {
        self.slots = None;
    }
}

/// Spreads the blocks over the slots. No more depends on it: the octets are compared.
fn hash(block: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = block.len() as u64;
    let (words, rest) = block.as_chunks::<8>();
    for word in words {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(K);
    }
    for octet in rest {
        hash = (hash.rotate_left(5) ^ u64::from(*octet)).wrapping_mul(K);
    }
    hash ^ hash >> 32
}
