//! [`DecodeError`]: why a header block cannot be decoded.

/// Why a block cannot be decoded. After it, our table and the peer's differ, so the connection ends
/// with COMPRESSION_ERROR in every case (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("header block ends within a field")]
    Truncated,
    #[error("integer does not fit 32 bits")]
    IntegerOverflow,
    #[error("index 0, or one beyond both tables")]
    InvalidIndex,
    #[error("invalid Huffman code or padding")]
    Huffman,
    #[error("dynamic table size update after a field")]
    SizeUpdateMisplaced,
    #[error("dynamic table size update exceeds what was allowed")]
    SizeUpdateTooLarge,
    #[error("dynamic table size was not lowered as acknowledged")]
    SizeUpdateMissing,
}
