//! [`ClientSide`] and [`ServerSide`]: what only one of a connection's ends has.

use std::collections::VecDeque;

use super::event::GoAway;

/// How many streams a client may open in one turn of its connection, whatever becomes of them. It
/// bounds what a turn costs: a stream that is opened and reset at once advances nothing. As many as
/// may be open by default, so that no other client notices.
pub(super) const MAX_OPENED: u32 = 256;

/// How many fields are decoded in one turn before the rest is for the next one: a small block can stand
/// for hundreds of them. Twice as many as 256 ordinary heads have in all, so that no other client notices.
pub(super) const MAX_FIELDS: u32 = 4_096;

/// What only a client has.
#[derive(Debug)]
pub(super) struct ClientSide {
    /// Of the next request: odd (RFC 9113 §5.1.1).
    pub(super) next_id: u32,
    /// What the server's GOAWAY said.
    pub(super) go_away: Option<GoAway>,
    /// A request was turned away for want of a slot.
    pub(super) wants_slot: bool,
}

/// What only a server has.
#[derive(Debug)]
pub(super) struct ServerSide {
    /// The highest identifier that the peer has used.
    pub(super) last_id: u32,
    /// The highest one that was not refused.
    pub(super) last_accepted: u32,
    /// Where, in all that was ever sent, complete answers end that are not written yet.
    pub(super) unwritten: VecDeque<u64>,
    /// Streams that the peer has opened in this turn.
    pub(super) opened: u32,
    /// Fields that were decoded in this turn.
    pub(super) fields: u32,
}

impl ServerSide {
    /// Whether further requests are for the next turn.
    #[inline]
    pub(super) fn is_turn_over(&self) -> bool {
        self.opened == MAX_OPENED || self.fields > MAX_FIELDS
    }
}
