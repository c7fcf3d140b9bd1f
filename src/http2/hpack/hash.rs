//! A hash of a few dozen octets in a few nanoseconds, usable in constants.
//!
//! Not keyed and not collision-proof: whoever uses it compares the octets too, and keeps few
//! enough of them that a chain of collisions is short.

const K: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio

const fn mix(x: u64) -> u64 {
    let product = x as u128 * K as u128;
    (product >> 64) as u64 ^ product as u64
}

/// Hashes `octets` on top of `seed`; hashing a value on top of its name's hash hashes the field.
#[inline]
pub(super) const fn hash(seed: u64, octets: &[u8]) -> u64 {
    let len = octets.len();
    let mut state = mix(seed ^ len as u64 ^ K);
    let mut rest = octets;
    while rest.len() > 8
        && let Some((chunk, tail)) = rest.split_first_chunk::<8>()
    {
        state = mix(state ^ u64::from_le_bytes(*chunk));
        rest = tail;
    }
    // What is left, at most eight octets, in one word. Overlapping reads are fine.
    let last = if let Some(chunk) = octets.last_chunk::<8>() {
        u64::from_le_bytes(*chunk)
    } else if let (Some(head), Some(tail)) = (octets.first_chunk::<4>(), octets.last_chunk::<4>()) {
        (u32::from_le_bytes(*head) as u64) << 32 | u32::from_le_bytes(*tail) as u64
    } else if len > 0 {
        (octets[0] as u64) << 16 | (octets[len / 2] as u64) << 8 | octets[len - 1] as u64
    } else {
        0
    };
    mix(state ^ last)
}
