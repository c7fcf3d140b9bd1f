//! Integers with an N-bit prefix (RFC 7541 §5.1).

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;

/// How many bytes may follow the prefix. Five bytes have 35 bits, which is enough for any u32.
const MAX_CONTINUATION: u32 = 5;

/// Reads an integer whose first byte is `first` and whose further bytes, if any, start `rest`. The
/// flag bits of `first` are ignored. An integer that exceeds a u32, or that is padded to more than
/// five further bytes, is an error: "excessively large ... in value or byte length" (§5.1).
#[inline]
pub(super) fn decode(first: u8, prefix_bits: u32, rest: &mut &[u8]) -> Result<usize, DecodeError> {
    let prefix_max = (1u8 << prefix_bits) - 1;
    let prefix = first & prefix_max;
    if prefix < prefix_max {
        return Ok(usize::from(prefix));
    }
    decode_continued(prefix, rest)
}

fn decode_continued(prefix: u8, rest: &mut &[u8]) -> Result<usize, DecodeError> {
    let mut value = u64::from(prefix);
    for i in 0..MAX_CONTINUATION {
        let (&byte, tail) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = tail;
        value += u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return u32::try_from(value)
                .ok()
                .and_then(|value| usize::try_from(value).ok())
                .ok_or(DecodeError::IntegerOverflow);
        }
    }
    Err(DecodeError::IntegerOverflow)
}

/// Appends `value` with `flags` in the bits above the prefix.
#[inline]
pub(super) fn encode(value: usize, prefix_bits: u32, flags: u8, out: &mut BytesMut) {
    let prefix_max = (1u8 << prefix_bits) - 1;
    if value < usize::from(prefix_max) {
        out.put_u8(flags | value as u8);
    } else {
        encode_continued(value - usize::from(prefix_max), flags | prefix_max, out);
    }
}

fn encode_continued(mut value: usize, first: u8, out: &mut BytesMut) {
    out.put_u8(first);
    while value >= 0x80 {
        out.put_u8(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
