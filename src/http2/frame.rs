//! The nine bytes at the beginning of a frame (RFC 9113 §4.1), and the rules for payloads that need
//! no state.

use super::error::ConnectionError;

pub(super) const HEADER_LEN: usize = 9;

/// What a client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest frame that every endpoint accepts (RFC 9113 §4.2).
pub(super) const DEFAULT_MAX_SIZE: u32 = 16_384;

/// Frame types (RFC 9113 §6, RFC 9218 §7.1).
pub(super) mod kind {
    pub(in crate::http2) const DATA: u8 = 0x0;
    pub(in crate::http2) const HEADERS: u8 = 0x1;
    pub(in crate::http2) const PRIORITY: u8 = 0x2;
    pub(in crate::http2) const RST_STREAM: u8 = 0x3;
    pub(in crate::http2) const SETTINGS: u8 = 0x4;
    pub(in crate::http2) const PUSH_PROMISE: u8 = 0x5;
    pub(in crate::http2) const PING: u8 = 0x6;
    pub(in crate::http2) const GOAWAY: u8 = 0x7;
    pub(in crate::http2) const WINDOW_UPDATE: u8 = 0x8;
    pub(in crate::http2) const CONTINUATION: u8 = 0x9;
    /// A frame type of our own. See docs/descriptors.md.
    pub(in crate::http2) const DESCRIPTORS: u8 = 0xfd;
}

pub(super) mod flag {
    pub(in crate::http2) const END_STREAM: u8 = 0x1;
    pub(in crate::http2) const ACK: u8 = 0x1;
    pub(in crate::http2) const END_HEADERS: u8 = 0x4;
    pub(in crate::http2) const PADDED: u8 = 0x8;
    pub(in crate::http2) const PRIORITY: u8 = 0x20;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The length of the payload, in 24 bits.
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// The stream identifier, in 31 bits. 0 is the connection.
    pub(super) stream: u32,
}

impl FrameHeader {
    #[inline]
    pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The reserved bit is ignored (§4.1).
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    /// Returns the header at `from` if the frame there has this type and exactly these flags.
    #[inline]
    pub(super) fn find(bytes: &[u8], from: usize, kind: u8, flags: u8) -> Option<Self> {
        let header = Self::parse(*bytes.get(from..)?.first_chunk()?);
        (header.kind == kind && header.flags == flags).then_some(header)
    }

    #[inline]
    pub(super) fn bytes(self) -> [u8; HEADER_LEN] {
        let [_, a, b, c] = self.len.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, s0, s1, s2, s3]
    }

    #[inline]
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Sets the flags and the stream of a frame whose bytes begin with its header.
#[inline]
pub(super) fn readdress(frame: &mut [u8], flags: u8, stream: u32) {
    if let Some([_, _, _, _, own, id @ ..]) = frame.first_chunk_mut::<HEADER_LEN>() {
        *own = flags;
        *id = stream.to_be_bytes();
    }
}

/// Returns where the content of a padded payload begins and ends (RFC 9113 §6.1).
#[inline]
pub(super) fn unpad(
    header: FrameHeader,
    payload: &[u8],
) -> Result<(usize, usize), ConnectionError> {
    if !header.has(flag::PADDED) {
        return Ok((0, payload.len()));
    }
    let Some(&padding) = payload.first() else {
        return Err(ConnectionError::frame_size("a padded frame without a pad length"));
    };
    let end = payload.len().checked_sub(usize::from(padding));
    match end {
        Some(end) if end >= 1 => Ok((1, end)),
        _ => Err(ConnectionError::protocol("padding is longer than its frame")),
    }
}

/// Returns the number in four bytes, without the reserved bit.
#[inline]
pub(super) fn u31(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & 0x7fff_ffff
}
