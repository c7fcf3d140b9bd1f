//! [`Passing`]: descriptors on their way in and out, and which head each set belongs to. The format on
//! the wire is in docs/descriptors.md.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

use super::frame::{FrameHeader, HEADER_LEN, kind};
use super::key::StreamKey;
use super::spare::trim;
use crate::descriptors::{AnnouncedSet, ReceivedSet};

/// The size of a DESCRIPTORS frame in bytes.
const FRAME: usize = HEADER_LEN + 1;

#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Sets that were received and that no frame has claimed, oldest first.
    pub(super) sets: VecDeque<ReceivedSet>,
    /// The set that the last frame announced. The next frame is its head.
    pub(super) announced: Option<(u32, Attached)>,
    /// Sets to be sent, each with the position of its frame, counted in bytes ever sent.
    pub(super) outgoing: VecDeque<(u64, OutgoingSet)>,
}

/// The descriptors that come with a head.
#[derive(Debug, Default)]
pub(super) enum Attached {
    #[default]
    Nothing,
    Set(ReceivedSet),
    /// The peer could not send them, so the call must not begin.
    Void,
}

/// A set that waits to be sent, and its stream.
#[derive(Clone, Debug)]
pub(super) struct OutgoingSet {
    pub(super) key: StreamKey,
    pub(super) set: AnnouncedSet,
}

impl Passing {
    /// Returns whether `header` may come now.
    #[inline]
    pub(super) fn expects(&self, header: FrameHeader) -> bool {
        match &self.announced {
            None => true,
            Some((stream, _)) => header.kind == kind::HEADERS && header.stream == *stream,
        }
    }

    /// Returns whether descriptors have come and not the head that they belong to.
    #[inline]
    pub(super) fn is_receiving(&self) -> bool {
        self.announced.is_some() || !self.sets.is_empty()
    }

    /// Takes what was announced for the head that has just come.
    #[inline]
    pub(super) fn take_announced(&mut self) -> Attached {
        self.announced.take().map(|(_, attached)| attached).unwrap_or_default()
    }

    /// Returns whether the sets that no frame has claimed can still be claimed, by the one frame of
    /// which `rest` is the beginning.
    #[inline]
    pub(super) fn is_matched(&self, rest: &[u8]) -> bool {
        match self.sets.len() {
            0 => true,
            1 => !rest.is_empty() && rest.get(3).is_none_or(|kind| *kind == kind::DESCRIPTORS),
            _ => false,
        }
    }

    /// Writes the frame for `set`, which travels with its first byte. `place` is its position,
    /// counted in bytes ever sent.
    pub(super) fn announce(
        &mut self,
        key: StreamKey,
        set: AnnouncedSet,
        place: u64,
        out: &mut BytesMut,
    ) {
        let header = FrameHeader { len: 1, kind: kind::DESCRIPTORS, flags: 0, stream: key.id() };
        out.put_slice(&header.bytes());
        out.put_u8(set.count() as u8);
        self.outgoing.push_back((place, OutgoingSet { key, set }));
    }

    /// Returns whether sets wait to be sent.
    #[inline]
    pub(super) fn sends(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns the position of the next set's frame, counted in bytes ever sent.
    pub(super) fn place(&self) -> Option<u64> {
        self.outgoing.front().map(|(place, _)| *place)
    }

    /// Returns how many bytes may be written at once after `written`: those before the next set's
    /// frame, or that frame alone.
    pub(super) fn limit(&self, written: u64) -> usize {
        match self.place() {
            None => usize::MAX,
            Some(place) if place == written => FRAME,
            Some(place) => (place - written) as usize,
        }
    }

    /// Drops the sets to be sent whose frames begin at position `end` or behind it, counted in bytes ever
    /// sent.
    pub(super) fn drop_behind(&mut self, end: u64) {
        self.outgoing.retain(|(place, _)| *place < end);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.sets);
        trim(&mut self.outgoing);
    }
}
