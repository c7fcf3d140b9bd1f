//! The decoder (RFC 7541 §3, §6): a header block in, its fields out, one by one.
//!
//! It takes whole blocks: putting HEADERS and CONTINUATION together, and bounding what that takes,
//! is the connection's.

use super::DEFAULT_TABLE_SIZE;
use super::field::{Field, Name};
use super::huffman;
use super::integer;
use super::static_table;
use super::table::DynamicTable;

/// The scratch space kept from one block to the next.
const SCRATCH_KEPT: usize = 4096;

/// Why a block cannot be decoded. Table and peer are out of step from here on, so the connection
/// ends: COMPRESSION_ERROR, whichever it is (RFC 9113 §4.3).
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

/// One direction's decoding state. Memory: the table's size limit, and little else.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: DynamicTable,
    /// What the peer may raise its table to: our acknowledged SETTINGS_HEADER_TABLE_SIZE.
    limit: usize,
    /// The next block has to start by lowering the table to this or less.
    required: Option<usize>,
    /// Where Huffman-coded strings are unfolded before they are copied at their exact size.
    scratch: Vec<u8>,
}

impl Decoder {
    /// `max_table_size` is what SETTINGS_HEADER_TABLE_SIZE allows at the start. On a connection
    /// that is 4096 until our SETTINGS is acknowledged, whatever it says (RFC 9113 §6.5.3). More
    /// than 4096 has effect only once the peer announces that it uses more.
    pub(crate) fn new(max_table_size: usize) -> Self {
        Self {
            table: DynamicTable::new(max_table_size.min(DEFAULT_TABLE_SIZE)),
            limit: max_table_size,
            required: None,
            scratch: Vec::new(),
        }
    }

    /// Call when our SETTINGS is acknowledged. If it allows less than the peer uses, the peer's
    /// next block has to start with a size update (RFC 7541 §4.2, RFC 9113 §4.3.1). Several calls
    /// before that block: the smallest counts.
    #[cfg_attr(
        not(test),
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

    /// Changes whenever the same block could decode to something else than before, or do
    /// something else to the table: its content, its size or its limit changed. If it is the same
    /// before and after a block, that block may be answered from memory for as long as it is.
    pub(crate) fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// Decodes one whole header block and calls `sink` with each field in order.
    ///
    /// Fields come by reference, most of them straight from a table: a block of a thousand
    /// one-byte references copies nothing. After an error the decoder is of no further use.
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
                // §6.1: indexed.
                let index = integer::decode(first, 7, &mut rest)?;
                sink(lookup(&self.table, index)?);
            } else if first & 0x40 != 0 {
                // §6.2.1: literal, to be added to the table. The name is taken out of the table
                // before anything is evicted from it (§4.4).
                let field = self.literal(first, 6, &mut rest)?;
                self.table.insert(field, &mut sink);
            } else if first & 0x20 != 0 {
                return Err(DecodeError::SizeUpdateMisplaced); // §4.2
            } else {
                // §6.2.2, §6.2.3: literal, not to be added; the latter never, by nobody.
                let field = self.literal(first, 4, &mut rest)?;
                sink(&field);
            }
        }
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// §6.3, and §4.2: these stand at the start of a block or nowhere.
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

/// §2.3.3: one address space, the static table first.
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

/// A string literal (§5.2): where it stands, or unfolded into `scratch`.
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
