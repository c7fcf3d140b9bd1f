//! Streams that have ended: what a frame for one of them means (RFC 9113 §5.1, §5.1.1).

use std::collections::{HashMap, VecDeque};

use super::id_hash::IdHash;
use super::spare::FEW;

/// How many of the streams that we reset are remembered one by one.
pub(super) const MAX_REMEMBERED: usize = 1_024;

/// Tells what became of a stream that is not in the table.
#[derive(Debug, Default)]
pub(super) struct ClosedStreams {
    /// Streams that we reset.
    reset: HashMap<u32, Late, IdHash>,
    order: VecDeque<u32>,
    /// Streams up to this one may have been reset and forgotten. Frames for them are tolerated.
    forgotten: u32,
    /// The newest range of identifiers the peer passed over, as (after, before).
    skipped: (u32, u32),
}

/// What the peer may still send on a stream until it knows that we reset it.
#[derive(Debug)]
struct Late {
    window: u32,
    heads: u8,
}

/// No honest message has more heads, even with informational responses.
const MAX_LATE_HEADS: u8 = 4;

/// What became of a stream that is not in the table and is not idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// We reset it, and frames may have been under way (§5.1). They are ignored.
    Reset,
    /// We may have reset it.
    Forgotten,
    /// The peer never used it, but used a higher one (§5.1.1).
    Skipped,
    /// It ended, and both ends know that.
    Ended,
}

impl ClosedStreams {
    /// Notes that the peer opened `next` after `last`.
    #[inline]
    pub(super) fn opened(&mut self, last: u32, next: u32) {
        if next - last > 2 {
            self.skipped = (last, next);
        }
    }

    /// Notes that we reset `id`, on which the peer may have sent up to `window` bytes by now.
    pub(super) fn reset(&mut self, id: u32, window: u32) {
        let late = Late { window, heads: MAX_LATE_HEADS };
        if self.reset.insert(id, late).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
            && self.reset.remove(&oldest).is_some()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
    }

    pub(super) fn what(&self, id: u32) -> Gone {
        if self.reset.contains_key(&id) {
            Gone::Reset
        } else if id > self.skipped.0 && id < self.skipped.1 {
            Gone::Skipped
        } else if id <= self.forgotten {
            Gone::Forgotten
        } else {
            Gone::Ended
        }
    }

    /// Counts DATA that arrived on a stream that we reset. Returns false if it is more than the
    /// peer can have sent before it knew.
    pub(super) fn take(&mut self, id: u32, bytes: u32) -> bool {
        match self.reset.get_mut(&id) {
            Some(late) => match late.window.checked_sub(bytes) {
                Some(left) => {
                    late.window = left;
                    true
                }
                None => false,
            },
            None => true,
        }
    }

    /// Counts a head that arrived on a stream that has ended. Returns false if it is one too many,
    /// or if the stream is not remembered.
    pub(super) fn take_head(&mut self, id: u32, end: bool) -> bool {
        let Some(late) = self.reset.get_mut(&id) else {
            return false;
        };
        let within = late.heads > 0;
        late.heads = late.heads.saturating_sub(1);
        if end {
            self.ended(id);
        }
        within
    }

    /// Notes that the peer ended a stream that we reset, so that nothing more can be under way.
    pub(super) fn ended(&mut self, id: u32) {
        // Its entry in `order` stays, because finding it would take a search.
        self.reset.remove(&id);
    }

    /// Gives back the memory if it is much. After that, less is known about these streams.
    pub(super) fn trim(&mut self) {
        if self.order.len() <= FEW {
            return;
        }
        if let Some(newest) = self.order.iter().max() {
            self.forgotten = self.forgotten.max(*newest);
        }
        self.reset = HashMap::default();
        self.order = VecDeque::new();
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.order.len().max(self.reset.len())
    }
}
