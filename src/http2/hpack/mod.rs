//! HPACK (RFC 7541): turns header fields into bytes and back, with the tables that both ends keep
//! equal.
//!
//! The connection interprets a list of fields, limits its size, and turns each failure into a
//! connection error (always COMPRESSION_ERROR, RFC 9113 §4.3).

mod decoder;
mod encoder;
mod error;
mod field;
mod hash;
mod huffman;
mod integer;
mod sent_table;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::{BlockEncoder, Encoder};
#[cfg(test)]
use error::DecodeError;
pub(crate) use field::{Field, Name, Pseudo};

/// How many bytes a table entry counts in addition to its own (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The table size that both ends start with, in bytes (RFC 9113 §6.5.2,
/// SETTINGS_HEADER_TABLE_SIZE).
const DEFAULT_TABLE_SIZE: usize = 4096;
