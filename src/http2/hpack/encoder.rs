//! The encoder (RFC 7541 §6): turns fields into a header block, and chooses the representation of
//! each field.
//!
//! A gRPC peer sends about the same twelve fields with every call, and one or two that are new each
//! time. A repeated field should cost one byte and little time. A new one should not evict repeated
//! ones from a table of 4 KiB. The encoder has no list of names; it observes which fields repeat.
//! It adds the first value of a name to the table. It adds a further value only
//!
//! - if the value that was added last for the name has been used again since, so that the name's
//!   values repeat; or
//! - if the same value comes twice in a row, so that the value in the table was the exception.
//!
//! Otherwise the field (`grpc-timeout`, `grpc-message`, `content-length`, a trace or request id)
//! becomes a literal that refers to the name, and the table does not change. The same holds for a
//! field of more than a quarter of the table, which would evict too many others. A sensitive value
//! is never indexed, neither by us nor by an intermediary (§7.1.3). An `authorization` that is not
//! marked as sensitive is indexed like other fields: guessing it by compression (§7.1) takes an
//! attacker who adds fields to the same connection, and a connection here belongs to one process.

use bytes::{BufMut, BytesMut};

use super::field::Pseudo;
use super::hash::hash;
use super::sent_table::{self, SentTable};
use super::static_table::{self, Match};
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, huffman, integer};

/// The encoding state of one direction. Its table is at most 4 KiB, even if the peer allows more.
/// Its memory is a small multiple of that, and is allocated when the first field is added.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: SentTable,
    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    peer_max: usize,
    /// The smallest table size since the last block, if the next block must announce one.
    pending: Option<usize>,
    counts: EncoderCounts,
}

/// Counts the events after which the same fields may become another block.
#[derive(Clone, Copy, Debug, Default)]
struct EncoderCounts {
    /// Changes of the table.
    changes: u64,
    /// Fields that were not sent as an indexed field, and announcements of the table's size.
    literals: u64,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            table: SentTable::new(),
            peer_max: DEFAULT_TABLE_SIZE,
            pending: None,
            counts: EncoderCounts::default(),
        }
    }

    /// Sets the peer's SETTINGS_HEADER_TABLE_SIZE. The next block announces the table size if it
    /// has to change. It also announces it if the peer lowered a limit that we did not reach: a
    /// peer may require an update after any reduction (RFC 9113 §4.3.1).
    pub(crate) fn set_peer_max_table_size(&mut self, bytes: usize) {
        let size = bytes.min(sent_table::MAX_SIZE);
        if size != self.table.max_size() || bytes < self.peer_max {
            self.pending = Some(self.pending.map_or(size, |smallest| smallest.min(size)));
            self.table.set_max_size(size);
            self.counts.changes += 1;
        }
        self.peer_max = bytes;
    }

    /// Starts a header block at the end of `out`.
    pub(crate) fn begin<'a>(&'a mut self, out: &'a mut BytesMut) -> BlockEncoder<'a> {
        if let Some(smallest) = self.pending.take() {
            // §4.2: first the smallest size in between, so that the peer evicts as we did, then the
            // final size.
            let size = self.table.max_size();
            if smallest < size {
                integer::encode(smallest, 5, 0x20, out);
            }
            integer::encode(size, 5, 0x20, out);
            // A block that is sent again must not announce it again.
            self.counts.literals += 1;
        }
        BlockEncoder { table: &mut self.table, counts: &mut self.counts, out }
    }

    /// Returns the number of changes of the table. While it is the same, a block of indexed fields
    /// stands for the same fields. Returns `None` if the next block must announce the table's size.
    #[inline]
    pub(crate) fn changes(&self) -> Option<u64> {
        self.pending.is_none().then_some(self.counts.changes)
    }

    /// Returns the number of fields that were not sent as an indexed field, and of announcements of the
    /// table's size.
    #[inline]
    pub(crate) fn literals(&self) -> u64 {
        self.counts.literals
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &SentTable {
        &self.table
    }
}

/// A header block that is being written. The caller passes pseudo-headers first (RFC 9113 §8.3):
/// the order is not changed.
#[derive(Debug)]
pub(crate) struct BlockEncoder<'a> {
    table: &'a mut SentTable,
    counts: &'a mut EncoderCounts,
    out: &'a mut BytesMut,
}

impl BlockEncoder<'_> {
    pub(crate) fn pseudo(&mut self, name: Pseudo, value: &[u8]) {
        // These occur in every call. `new_field` finds the other fields of the static table.
        match (name, value) {
            (Pseudo::Method, b"GET") => return self.indexed(2),
            (Pseudo::Method, b"POST") => return self.indexed(3),
            (Pseudo::Scheme, b"http") => return self.indexed(6),
            (Pseudo::Status, b"200") => return self.indexed(8),
            _ => {}
        }
        self.field(name.as_str().as_bytes(), value, false);
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn header(&mut self, name: &http::HeaderName, value: &http::HeaderValue) {
        let name = name.as_str().as_bytes();
        self.field(name, value.as_bytes(), value.is_sensitive());
    }

    /// Writes a field. Its name and value must be valid in HTTP/2.
    #[inline]
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8], sensitive: bool) {
        if !sensitive && let Some(index) = self.table.find_expected(name, value) {
            return self.indexed(index);
        }
        let name_hash = hash(0, name);
        let hash = hash(name_hash, value);
        if !sensitive && let Some(index) = self.table.find(hash, name, value) {
            return self.indexed(index);
        }
        self.new_field(name, name_hash, value, hash, sensitive);
    }

    /// Writes a field that is not in the dynamic table.
    #[cold]
    fn new_field(&mut self, name: &[u8], name_hash: u64, value: &[u8], hash: u64, sensitive: bool) {
        let in_static = static_table::find(name, name_hash, value);
        if !sensitive && let Match::Field(index) = in_static {
            return self.indexed(index);
        }
        self.counts.literals += 1;
        let fits = name.len() + value.len() + ENTRY_OVERHEAD <= self.table.max_size() / 4;
        let in_sent = self.table.find_name(name_hash, name);
        let sent_index = in_sent.as_ref().map(|(index, _)| *index);
        let add = !sensitive
            && fits
            && in_sent.is_none_or(|(_, history)| {
                let repeats = history.used || history.passed_over == hash;
                history.passed_over = hash;
                repeats
            });
        let name_index = match in_static {
            Match::Field(index) | Match::Name(index) => Some(index),
            Match::None => sent_index,
        };
        let (prefix_bits, flags) = match (add, sensitive) {
            (true, _) => (6, 0x40),     // §6.2.1: with incremental indexing
            (false, false) => (4, 0),   // §6.2.2: without indexing
            (false, true) => (4, 0x10), // §6.2.3: never indexed
        };
        integer::encode(name_index.unwrap_or(0), prefix_bits, flags, self.out);
        if name_index.is_none() {
            self.string(name);
        }
        self.string(value);
        if add {
            self.table.insert(hash, name_hash, name, value);
            self.counts.changes += 1;
        }
    }

    /// Writes an indexed field (§6.1).
    #[inline]
    fn indexed(&mut self, index: usize) {
        integer::encode(index, 7, 0x80, self.out);
    }

    /// Writes a string (§5.2), Huffman-coded if that is shorter.
    fn string(&mut self, bytes: &[u8]) {
        let encoded_len = huffman::encoded_len(bytes);
        if encoded_len < bytes.len() {
            integer::encode(encoded_len, 7, 0x80, self.out);
            self.out.reserve(encoded_len);
            huffman::encode(bytes, self.out);
        } else {
            integer::encode(bytes.len(), 7, 0, self.out);
            self.out.put_slice(bytes);
        }
    }
}
