//! [`Draining`]: how far a graceful end of the connection has come on this end (RFC 9113 §6.8).

use std::time::Duration;

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

/// How much time a client without streams has to see that the connection ends, before a server names the
/// last stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Little: somebody waits for the end.
    #[default]
    Short,
    /// More: nobody waits for the end, and the client may be sending its next request.
    Long,
}

impl Notice {
    /// How much time [`Self::Long`] gives. A peer may also take as long to answer the PING that follows the
    /// announcement of the end.
    pub(crate) const LONG: Duration = Duration::from_secs(5);
    /// How much [`Self::Short`] gives. The peer may be a process that reads nothing between its calls. Its
    /// last stream is named and the connection closed then, so that a request which it sends meanwhile is
    /// not processed, and the peer knows that (RFC 9113 §6.8). On one host this is many round trips.
    pub(crate) const SHORT: Duration = Duration::from_millis(100);
}
