//! [`StreamKey`]: the driver's name for a stream.

/// The name of one stream. It never becomes another stream's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(super) slot: u32,
    pub(super) id: u32,
}

impl StreamKey {
    /// Returns a small number that no other stream has until this one is forgotten. The driver uses
    /// it as an index of its tables.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.slot as usize
    }

    /// Returns the stream identifier on the wire.
    #[inline]
    pub(crate) fn id(self) -> u32 {
        self.id
    }
}
