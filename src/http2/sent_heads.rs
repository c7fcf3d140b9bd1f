//! [`SentHeads`]: header blocks that were sent before, found by what their heads consist of.
//!
//! Once the encoder's table holds the fields of a head, the same fields become the same few bytes
//! while the table does not change. So a head that never changes need not be encoded again.

use http::HeaderMap;

use super::frame::HEADER_LEN;
use super::hpack::Encoder;

/// How many blocks are kept.
const SLOTS: usize = 8;

/// A longer block does not consist of references to the table only.
const MAX_KEPT_BLOCK: usize = 64;

/// What a head consists of, if all of it stays the same as long as the connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadId {
    fields: usize,
    /// The address and length of a static value, which does not move.
    path: (usize, usize),
    /// Which of the additional fields are present.
    more: u8,
}

impl HeadId {
    /// Returns the id of a request to `path`. Everything else in it but `fields` belongs to the
    /// connection.
    pub(crate) fn request(path: &'static str, fields: &'static HeaderMap) -> Self {
        Self { path: (path.as_ptr() as usize, path.len()), ..Self::fields(fields) }
    }

    /// Returns the same id, with which of two additional fields are present.
    pub(super) fn with(self, [first, second]: [bool; 2]) -> Self {
        Self { more: u8::from(first) | u8::from(second) << 1, ..self }
    }

    /// Returns the id of a response with status 200, or of trailers.
    pub(crate) fn fields(fields: &'static HeaderMap) -> Self {
        Self { path: (0, 0), fields: std::ptr::from_ref(fields) as usize, more: 0 }
    }
}

#[derive(Debug)]
struct SentBlock {
    id: HeadId,
    /// The number of changes of the encoder's table.
    changes: u64,
    /// The size as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 §6.5.2).
    list_size: usize,
    /// The frame, whose stream and flags are written anew.
    frame: Box<[u8]>,
}

/// At most 8 blocks. It allocates nothing until the first one is kept.
#[derive(Debug, Default)]
pub(super) struct SentHeads(Option<Box<SentBlocks>>);

#[derive(Debug, Default)]
struct SentBlocks {
    entries: Vec<SentBlock>,
    next: usize,
}

impl SentHeads {
    /// Returns the HEADERS frame of a head that is no larger than `limit`, if the encoder would still
    /// make the same block.
    #[inline]
    pub(super) fn find(&self, id: Option<HeadId>, encoder: &Encoder, limit: u32) -> Option<&[u8]> {
        let id = id?;
        let entry = self.0.as_ref()?.entries.iter().find(|entry| entry.id == id)?;
        let fits = limit == u32::MAX || entry.list_size <= limit as usize;
        (fits && encoder.changes() == Some(entry.changes)).then_some(&entry.frame)
    }

    /// Keeps a frame whose block the encoder has just made, if it would make the same block again.
    pub(super) fn keep(&mut self, id: HeadId, encoder: &Encoder, list_size: usize, frame: &[u8]) {
        let Some(changes) = encoder.changes() else { return };
        if frame.len() > HEADER_LEN + MAX_KEPT_BLOCK {
            return;
        }
        let entry = SentBlock { id, changes, list_size, frame: frame.into() };
        let SentBlocks { entries, next } = &mut **self.0.get_or_insert_default();
        if let Some(old) = entries.iter_mut().find(|entry| entry.id == id) {
            *old = entry;
        } else if entries.len() < SLOTS {
            entries.push(entry);
        } else {
            entries[*next] = entry;
            *next = (*next + 1) % SLOTS;
        }
    }
}
