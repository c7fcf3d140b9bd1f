//! [`StreamKey`]: a stream as the driver names it.

/// Names one stream, and never another one, also after the stream is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(super) slot: u32,
    pub(super) id: u32,
}

impl StreamKey {
    /// Small, and no other stream's as long as this one is not forgotten: for tables beside ours.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.slot as usize
    }

    /// The stream identifier on the wire.
    #[inline]
    pub(crate) fn id(self) -> u32 {
        self.id
    }
}
