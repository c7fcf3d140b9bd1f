//! HPACK (RFC 7541): header fields to bytes and back, with the table that both ends keep in step.
//!
//! Not here: what a list of fields means, its size limit, and which connection error a failure
//! becomes (always COMPRESSION_ERROR, RFC 9113 §4.3). That is the connection's business.

mod decoder;
mod encoder;
mod field;
mod hash;
mod huffman;
mod integer;
mod sent_table;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use decoder::{DecodeError, Decoder};
pub(crate) use encoder::{BlockEncoder, Encoder};
pub(crate) use field::{Field, Pseudo};

/// What a table entry costs beyond its bytes (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The table size both ends start with (RFC 9113 §6.5.2, SETTINGS_HEADER_TABLE_SIZE).
const DEFAULT_TABLE_SIZE: usize = 4096;
