//! Streams that are no more: what a frame for one of them means (RFC 9113 §5.1, §5.1.1).

use std::collections::{HashMap, VecDeque};

use super::id_hash::IdHash;
use super::spare::FEW;

/// How many streams that we reset are remembered one by one.
pub(super) const MAX_REMEMBERED: usize = 1_024;

/// Says of a stream that is not in the table what it is.
#[derive(Debug, Default)]
pub(super) struct ClosedStreams {
    /// Streams that we reset.
    reset: HashMap<u32, Late, IdHash>,
    order: VecDeque<u32>,
    /// Up to here streams may have been reset and forgotten: they get the benefit of the doubt.
    forgotten: u32,
    /// The newest range of identifiers the peer passed over, as (after, before).
    skipped: (u32, u32),
}

/// What the peer may still have sent on a stream before it knew that we reset it.
#[derive(Debug)]
struct Late {
    window: u32,
    heads: u8,
}

/// Informational responses included, no honest message has more.
const MAX_LATE_HEADS: u8 = 4;

/// A stream that is not in the table, and is not idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// We reset it, and frames may have been under way (§5.1): ignored.
    Reset,
    /// We may have reset it.
    Forgotten,
    /// The peer never used it, but a higher one (§5.1.1).
    Skipped,
    /// It ended as both ends know.
    Ended,
}

impl ClosedStreams {
    /// The peer opened `next` after `last`.
    #[inline]
    pub(super) fn opened(&mut self, last: u32, next: u32) {
        if next - last > 2 {
            self.skipped = (last, next);
        }
    }

    /// We reset `id`, on which the peer may have sent up to `window` bytes by now.
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

    /// DATA arrived on a stream that we reset. False: more than the peer could have sent in
    /// ignorance.
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

    /// A head arrived, on any stream that is gone. False: it is one too many, or the stream is not
    /// remembered.
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

    /// The peer ended a stream that we reset, so that nothing more can be under way.
    pub(super) fn ended(&mut self, id: u32) {
        // Its place in `order` stays: removing it would take a search.
        self.reset.remove(&id);
    }

    /// Gives the memory of many back, at the price of certainty.
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
