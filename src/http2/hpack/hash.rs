//! A hash that takes a few nanoseconds for a few dozen bytes, and can be computed in constants.
//!
//! It has no key and does not prevent collisions. Its users also compare the bytes, and store so
//! few entries that a chain of collisions is short.

const K: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio

/// Combines both halves of the product, so that every bit of either factor affects every bit of the
/// result.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

const fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// Hashes `bytes` with `seed`. The hash of a field is the hash of its value with the hash of its
/// name as seed.
#[inline]
pub(super) const fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let mut state = seed ^ K;
    let mut rest = bytes;
    while rest.len() > 16
        && let Some((a, tail)) = rest.split_first_chunk::<8>()
        && let Some((b, tail)) = tail.split_first_chunk::<8>()
    {
        state = fold(state ^ word(a), K ^ word(b));
        rest = tail;
    }
    // The rest is at most sixteen bytes. The two words may overlap each other, or those of the
    // loop.
    let (a, b) = if let (Some(a), Some(b)) = (rest.first_chunk(), bytes.last_chunk()) {
        (word(a), word(b))
    } else if let (Some(a), Some(b)) = (bytes.first_chunk(), bytes.last_chunk()) {
        (u32::from_le_bytes(*a) as u64, u32::from_le_bytes(*b) as u64)
    } else if let (Some(a), Some(b)) = (bytes.first(), bytes.last()) {
        ((*a as u64) << 8 | bytes[len / 2] as u64, *b as u64)
    } else {
        (0, 0)
    };
    fold(state ^ a, K ^ b ^ ((len as u64) << 56))
}
