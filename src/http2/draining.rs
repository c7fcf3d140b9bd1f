//! [`Draining`]: how far a graceful end of the connection has come on this end (RFC 9113 §6.8).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draining {
    No,
    /// The end is announced. Streams that the peer opened before it knew are still taken.
    Announced,
    /// The last stream is named. No stream after it is taken.
    Final,
    /// Nothing was announced: the peer sends nothing more, so no more streams can come.
    Unneeded,
}

impl Draining {
    /// Returns whether streams that the peer opens are taken.
    pub(super) fn takes_streams(self) -> bool {
        matches!(self, Self::No | Self::Announced)
    }
}
