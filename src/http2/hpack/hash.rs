//! A hash of a few dozen bytes in a few nanoseconds, usable in constants.
//!
//! Not keyed and not collision-proof: whoever uses it compares the bytes too, and keeps few
//! enough of them that a chain of collisions is short.

const K: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio

/// Both halves of the product, so that every bit of either factor reaches every bit of the result.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

const fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// Hashes `bytes` on top of `seed`; hashing a value on top of its name's hash hashes the field.
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
    // The rest is at most sixteen bytes: two words, which may overlap each other or the loop's.
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
