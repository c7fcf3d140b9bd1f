//! The decoder (RFC 7541 §3, §6): takes a header block and returns its fields one by one.
//!
//! It takes whole blocks. The connection puts HEADERS and CONTINUATION together and limits their
//! size.

use super::DEFAULT_TABLE_SIZE;
use super::error::DecodeError;
use super::field::{Field, Name};
use super::huffman;
use super::integer;
use super::static_table;
use super::table::DynamicTable;

/// How many bytes of scratch space are reused for the next block.
const SCRATCH_KEPT: usize = 4096;

/// The decoding state of one direction. It takes little more memory than the table's size limit.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: DynamicTable,
    /// The largest table size that the peer may choose: our acknowledged
    /// SETTINGS_HEADER_TABLE_SIZE.
    limit: usize,
    /// If set, the next block must start by lowering the table size to this value or less.
    required: Option<usize>,
    /// Holds a decoded Huffman string until it is copied at its exact size.
    scratch: Vec<u8>,
}

impl Decoder {
    /// Returns a decoder. `max_table_size` is the table size in bytes that
    /// SETTINGS_HEADER_TABLE_SIZE allows at the start. On a connection this is 4096 until our
    /// SETTINGS is acknowledged, whatever it contains (RFC 9113 §6.5.3). More than 4096 has an
    /// effect only when the peer announces that it uses more.
    pub(crate) fn new(max_table_size: usize) -> Self {
        Self {
            table: DynamicTable::new(max_table_size.min(DEFAULT_TABLE_SIZE)),
            limit: max_table_size,
            required: None,
            scratch: Vec::new(),
        }
    }

    /// Sets the largest table size after our SETTINGS is acknowledged. If the peer uses more, its
    /// next block must start with a size update (RFC 7541 §4.2, RFC 9113 §4.3.1). After several
    /// calls before that block, the smallest size counts.
    #[cfg_attr(
        not(any(test, fuzzing)),
        expect(dead_code, reason = "our SETTINGS leave the table its default size")
    )]
    pub(crate) fn set_max_table_size(&mut self, bytes: usize) {
        if bytes == self.limit {
            return;
        }
        self.limit = bytes;
        if bytes < self.table.max_size() {
            self.required = Some(self.required.map_or(bytes, |required| required.min(bytes)));
        }
        self.table.advance_generation();
    }

    /// Returns a number that changes whenever the table's content, size or limit changes. While it
    /// is the same, the same block decodes to the same fields and does not change the table, so
    /// that a cached result may be used.
    pub(crate) fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// Returns how much memory it takes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes() + self.scratch.capacity()
    }

    /// Decodes one whole header block and calls `sink` with each field in order. After an error the
    /// decoder must not be used any more.
    ///
    /// Fields are passed by reference, most of them directly from a table, so that a block of a
    /// thousand one-byte references copies nothing.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        mut sink: impl FnMut(&Field),
    ) -> Result<(), DecodeError> {
        let mut rest = block;
        self.size_updates(&mut rest)?;
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first & 0x80 != 0 {
                // §6.1: indexed field.
                let index = integer::decode(first, 7, &mut rest)?;
                sink(lookup(&self.table, index)?);
            } else if first & 0x40 != 0 {
                // §6.2.1: literal with incremental indexing. Its name is copied before any entry is
                // evicted (§4.4).
                let field = self.literal(first, 6, &mut rest)?;
                self.table.insert(field, &mut sink);
            } else if first & 0x20 != 0 {
                return Err(DecodeError::SizeUpdateMisplaced); // §4.2
            } else {
                // §6.2.2, §6.2.3: literal without indexing, or never indexed.
                let field = self.literal(first, 4, &mut rest)?;
                sink(&field);
            }
        }
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Handles size updates (§6.3), which may only be at the start of a block (§4.2).
    fn size_updates(&mut self, rest: &mut &[u8]) -> Result<(), DecodeError> {
        while let Some((&first, tail)) = rest.split_first()
            && first & 0xe0 == 0x20
        {
            *rest = tail;
            let size = integer::decode(first, 5, rest)?;
            if size > self.limit {
                return Err(DecodeError::SizeUpdateTooLarge);
            }
            if self.required.is_some_and(|required| size > required) {
                return Err(DecodeError::SizeUpdateMissing);
            }
            self.required = None;
            self.table.set_max_size(size);
        }
        if self.required.is_some() {
            return Err(DecodeError::SizeUpdateMissing);
        }
        Ok(())
    }

    fn literal(
        &mut self,
        first: u8,
        prefix_bits: u32,
        rest: &mut &[u8],
    ) -> Result<Field, DecodeError> {
        let index = integer::decode(first, prefix_bits, rest)?;
        let name = if index == 0 {
            Name::parse(string(rest, &mut self.scratch)?)
        } else {
            Name::of(lookup(&self.table, index)?)
        };
        let value = string(rest, &mut self.scratch)?;
        let never_indexed = prefix_bits == 4 && first & 0x10 != 0;
        Ok(name.with_value(value, never_indexed))
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &DynamicTable {
        &self.table
    }

    #[cfg(test)]
    pub(super) fn scratch_capacity(&self) -> usize {
        self.scratch.capacity()
    }
}

/// Looks up an index. The static table comes first, then the dynamic table (§2.3.3).
#[inline]
fn lookup(table: &DynamicTable, index: usize) -> Result<&Field, DecodeError> {
    if index == 0 {
        return Err(DecodeError::InvalidIndex); // §6.1
    }
    match index.checked_sub(static_table::LEN + 1) {
        None => static_table::get(index),
        Some(age) => table.get(age),
    }
    .ok_or(DecodeError::InvalidIndex)
}

/// Returns a string literal (§5.2): a part of the block, or the result of Huffman decoding in
/// `scratch`.
fn string<'s, 'b: 's>(
    rest: &mut &'b [u8],
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8], DecodeError> {
    let (&first, tail) = rest.split_first().ok_or(DecodeError::Truncated)?;
    *rest = tail;
    let length = integer::decode(first, 7, rest)?;
    let (bytes, tail) = rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *rest = tail;
    if first & 0x80 == 0 {
        return Ok(bytes);
    }
    scratch.clear();
    huffman::decode(bytes, scratch)?;
    Ok(scratch)
}
