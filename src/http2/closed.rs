//! Streams that have ended: what a frame for one of them means (RFC 9113 §5.1, §5.1.1).

use std::collections::VecDeque;

use super::spare::FEW;

/// How many of the streams that were reset are remembered one by one. Until a client knows our
/// SETTINGS it may have many more streams at a time than the limit.
pub(super) const MAX_REMEMBERED: usize = 1_024;

/// Tells what became of a stream that is not in the table.
#[derive(Debug, Default)]
pub(super) struct ClosedStreams {
    /// Streams that were reset, in the order of their identifiers.
    reset: VecDeque<Late>,
    /// Streams up to this one may have been reset and forgotten. Frames for them are tolerated.
    forgotten: u32,
    /// How many bytes the peer may have sent on these before it knew.
    late_bytes: u64,
    /// The newest range of identifiers the peer passed over, as (after, before).
    skipped: (u32, u32),
}

/// What the peer may still send on a stream until it knows that we reset it, or after it has reset it.
#[derive(Debug)]
struct Late {
    id: u32,
    window: u32,
    heads: u8,
    reset_by_us: bool,
    reset_by_peer: bool,
}

/// No honest message has more heads, even with informational responses.
const MAX_LATE_HEADS: u8 = 4;

/// What became of a stream that is not in the table and is not idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClosedStream {
    /// We reset it, and frames may have been under way (§5.1). They are ignored.
    Reset,
    /// The peer has reset it. netty, and so grpc-java, sends DATA that it had queued all the same.
    ResetByPeer,
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
        if let Some(late) = self.remember(id, window) {
            late.reset_by_us = true;
            late.heads = MAX_LATE_HEADS;
        }
    }

    /// Notes that the peer reset `id`, on which it may send up to `window` bytes all the same.
    pub(super) fn reset_by_peer(&mut self, id: u32, window: u32) {
        if let Some(late) = self.remember(id, window) {
            late.reset_by_peer = true;
        }
    }

    fn remember(&mut self, id: u32, window: u32) -> Option<&mut Late> {
        if let Some(at) = self.find(id) {
            return self.reset.get_mut(at);
        }
        if self.reset.len() == MAX_REMEMBERED
            && let Some(lowest) = self.reset.pop_front()
        {
            self.forget(&lowest);
        }
        let at = self.reset.partition_point(|late| late.id < id);
        let late = Late { id, window, heads: 0, reset_by_us: false, reset_by_peer: false };
        self.reset.insert(at, late);
        self.reset.get_mut(at)
    }

    /// Returns the place of a stream that was reset and is remembered.
    fn find(&self, id: u32) -> Option<usize> {
        self.reset.binary_search_by_key(&id, |late| late.id).ok()
    }

    fn find_mut(&mut self, id: u32) -> Option<&mut Late> {
        self.find(id).and_then(|at| self.reset.get_mut(at))
    }

    pub(super) fn what(&self, id: u32) -> ClosedStream {
        if let Some(late) = self.find(id).and_then(|at| self.reset.get(at)) {
            if late.reset_by_peer { ClosedStream::ResetByPeer } else { ClosedStream::Reset }
        } else if id > self.skipped.0 && id < self.skipped.1 {
            ClosedStream::Skipped
        } else if id <= self.forgotten {
            ClosedStream::Forgotten
        } else {
            ClosedStream::Ended
        }
    }

    /// Counts DATA that arrived on a stream that was reset. Returns false if it is more than the
    /// peer can have sent before it knew.
    pub(super) fn take(&mut self, id: u32, bytes: u32) -> bool {
        match self.find_mut(id) {
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

    fn forget(&mut self, late: &Late) {
        self.forgotten = self.forgotten.max(late.id);
        self.late_bytes += u64::from(late.window);
    }

    /// Counts DATA that arrived on a stream that was forgotten. Returns false if it is empty, or more than
    /// the peer can have sent on all of these before it knew.
    pub(super) fn take_forgotten(&mut self, bytes: u32) -> bool {
        match self.late_bytes.checked_sub(u64::from(bytes)) {
            Some(left) if bytes > 0 => {
                self.late_bytes = left;
                true
            }
            _ => false,
        }
    }

    /// Returns whether we have not reset a stream yet. From now on we have.
    pub(super) fn is_first_reset(&mut self, id: u32) -> bool {
        self.find_mut(id).is_some_and(|late| !std::mem::replace(&mut late.reset_by_us, true))
    }

    /// Counts a head that arrived on a stream that has ended. Returns false if it is one too many,
    /// or if the stream is not remembered.
    pub(super) fn take_head(&mut self, id: u32, end: bool) -> bool {
        let Some(late) = self.find_mut(id) else {
            return false;
        };
        let within = late.heads > 0;
        late.heads = late.heads.saturating_sub(1);
        if end {
            self.ended(id);
        }
        within
    }

    /// Notes that the peer ended a stream that was reset, so that nothing more can be under way.
    pub(super) fn ended(&mut self, id: u32) {
        if let Some(at) = self.find(id) {
            self.reset.remove(at);
        }
    }

    /// Gives back the memory if it is much. After that, less is known about these streams.
    pub(super) fn trim(&mut self) {
        if self.reset.len() > FEW {
            while let Some(late) = self.reset.pop_front() {
                self.forget(&late);
            }
        }
        if self.reset.capacity() > FEW {
            self.reset.shrink_to(FEW);
        }
    }

    /// Returns how much memory it takes.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.reset.capacity() * size_of::<Late>()
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.reset.len()
    }
}
