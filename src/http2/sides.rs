//! [`ClientSide`] and [`ServerSide`]: the state that only one of a connection's ends has. [`ReceiveTurn`]:
//! what the peer has caused in one turn.

use super::draining::Notice;
use super::unopened::WholeRequests;
use super::unwritten::Unwritten;

/// How many streams a client may open in one turn of its connection, whatever becomes of them. It
/// limits what a turn costs, because a stream that is opened and reset at once advances nothing. It
/// is the default limit of open streams, so other clients do not notice it.
pub(super) const MAX_OPENED: u32 = 256;

/// How many fields are decoded in one turn. The rest waits for the next turn, because a small block
/// can stand for hundreds of fields. 256 ordinary heads have half as many in total, so other
/// clients do not notice it.
pub(super) const MAX_FIELDS: u32 = 4_096;

/// The state of a client.
#[derive(Debug)]
pub(super) struct ClientSide {
    /// The identifier of the next request, which is odd (RFC 9113 §5.1.1).
    pub(super) next_id: u32,
    /// Whether a request was turned away because there was no slot.
    pub(super) wants_slot: bool,
}

/// The state of a server.
#[derive(Debug)]
pub(super) struct ServerSide {
    /// The highest identifier that the peer has used.
    pub(super) last_id: u32,
    /// The highest identifier that was not refused.
    pub(super) last_accepted: u32,
    pub(super) notice: Notice,
    pub(super) unwritten: Unwritten,
    /// Requests that have arrived whole and have no streams.
    pub(super) whole: WholeRequests,
}

/// What the peer has caused since [`receive`](super::Connection::receive) was called.
#[derive(Debug, Default)]
pub(super) struct ReceiveTurn {
    /// Streams that it has opened.
    pub(super) opened: u32,
    /// Fields that were decoded.
    pub(super) fields: u32,
}

impl ReceiveTurn {
    /// Returns whether further requests have to wait for the next turn.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.opened == MAX_OPENED || self.fields > MAX_FIELDS
    }
}
