//! The Huffman code for string literals (RFC 7541 §5.2 and Appendix B).
//!
//! The code is canonical: codes of one length are consecutive in symbol order, and shorter codes
//! come before longer ones. So the lengths define the code; the codes and both lookup tables are
//! computed from them at compile time. The encoder decides when to use the code.

use bytes::{BufMut, BytesMut};

use super::error::DecodeError;

/// The number of symbols: the 256 bytes and EOS.
const SYMBOLS: usize = 257;
const EOS: u16 = 256;
const MAX_LENGTH: usize = 30;

/// Codes up to this many bits, which include most of the common ASCII, are decoded by one table
/// lookup.
const SHORT: u32 = 8;

/// The length in bits of each symbol's code: Appendix B, sixteen a line, EOS last.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, // 0x00
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, // 0x10
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, // 0x20
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, // 0x30
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // 0x40
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, // 0x50
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, // 0x60
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, // 0x70
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, // 0x80
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, // 0x90
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, // 0xa0
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, // 0xb0
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, // 0xc0
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, // 0xd0
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, // 0xe0
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, // 0xf0
    30,
];

/// The tables that are computed from [`LENGTHS`].
struct Code {
    /// Each symbol's code, in its low bits.
    codes: [u32; SYMBOLS],
    /// The symbols in code order.
    symbols: [u16; SYMBOLS],
    /// For the next eight bits of input: the symbol and the length of its code, or length 0 if the
    /// code is longer.
    short: [(u8, u8); 1 << SHORT],
    /// For each length: the end of its codes, aligned to bit 31. Input below it starts with a code
    /// of this length.
    end: [u64; MAX_LENGTH + 1],
    /// For each length: the number to add to a code to get its position in `symbols`, modulo 2^32.
    offset: [u32; MAX_LENGTH + 1],
}

static CODE: Code = derive(&LENGTHS);

const fn derive(lengths: &[u8; SYMBOLS]) -> Code {
    let mut code = Code {
        codes: [0; SYMBOLS],
        symbols: [0; SYMBOLS],
        short: [(0, 0); 1 << SHORT],
        end: [0; MAX_LENGTH + 1],
        offset: [0; MAX_LENGTH + 1],
    };
    let mut next = 0u32;
    let mut position = 0;
    let mut length = 1;
    while length <= MAX_LENGTH {
        next <<= 1;
        code.offset[length] = (position as u32).wrapping_sub(next);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if lengths[symbol] as usize == length {
                code.codes[symbol] = next;
                code.symbols[position] = symbol as u16;
                if length <= SHORT as usize {
                    let free = SHORT as usize - length;
                    let mut i = 0;
                    while i < 1 << free {
                        code.short[(next as usize) << free | i] = (symbol as u8, length as u8);
                        i += 1;
                    }
                }
                next += 1;
                position += 1;
            }
            symbol += 1;
        }
        code.end[length] = (next as u64) << (32 - length);
        length += 1;
    }
    // The last code of a complete prefix code is all ones. One of these checks fails at compile
    // time if a length above is wrong.
    assert!(position == SYMBOLS);
    assert!(next == 1 << MAX_LENGTH);
    code
}

/// Returns the number of bytes of the encoding of `bytes`.
pub(super) fn encoded_len(bytes: &[u8]) -> usize {
    let bits: usize = bytes.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the encoding of `bytes`, whose last byte is filled up with ones (§5.2).
pub(super) fn encode(bytes: &[u8], out: &mut BytesMut) {
    let mut bits = 0u64;
    let mut count = 0;
    for &byte in bytes {
        let length = u32::from(LENGTHS[usize::from(byte)]);
        bits = bits << length | u64::from(CODE.codes[usize::from(byte)]);
        count += length;
        if count >= 32 {
            count -= 32;
            out.put_u32((bits >> count) as u32);
        }
    }
    while count >= 8 {
        count -= 8;
        out.put_u8((bits >> count) as u8);
    }
    if count > 0 {
        let filler = 8 - count;
        out.put_u8((bits << filler) as u8 | ((1 << filler) - 1));
    }
}

/// Appends the bytes that `encoded` encodes. They are at most 8/5 of its length, since the shortest
/// code has five bits.
pub(super) fn decode(mut encoded: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    out.reserve(encoded.len() * 8 / 5);
    // Holds the next `count` bits of input, from bit 63 down, and zeros below.
    let mut bits = 0u64;
    let mut count = 0u32;
    loop {
        if count < 32 {
            if let Some((chunk, tail)) = encoded.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*chunk)) << (32 - count);
                count += 32;
                encoded = tail;
            } else {
                while let Some((&byte, tail)) = encoded.split_first() {
                    bits |= u64::from(byte) << (56 - count);
                    count += 8;
                    encoded = tail;
                }
            }
        }
        let (symbol, length) = next_symbol(bits);
        if length > count {
            // The input ends inside a code. Only padding of fewer than eight ones may do so (§5.2).
            return if count < 8 && bits.leading_ones() == count {
                Ok(())
            } else {
                Err(DecodeError::Huffman)
            };
        }
        if symbol == EOS {
            return Err(DecodeError::Huffman); // §5.2
        }
        out.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

/// Returns the symbol whose code `bits` start with, and the length of that code.
#[inline]
fn next_symbol(bits: u64) -> (u16, u32) {
    let (symbol, length) = CODE.short[(bits >> (64 - SHORT)) as usize];
    if length != 0 {
        return (u16::from(symbol), u32::from(length));
    }
    let next = bits >> 32;
    let mut length = SHORT as usize + 1;
    while next >= CODE.end[length] {
        length += 1; // ends at MAX_LENGTH at the latest: its end is 2^32, the code being complete
    }
    let code = (next >> (32 - length)) as u32;
    let position = code.wrapping_add(CODE.offset[length]);
    (CODE.symbols[position as usize], length as u32)
}
