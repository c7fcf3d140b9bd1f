//! [`Block`]: a header block that spans several frames (RFC 9113 §4.3).

use std::time::Instant;

use super::passing::Attached;

/// A header block whose end has not arrived.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) since: Instant,
    pub(super) end_stream: bool,
    /// Whether its stream was made to depend on itself (§5.3.1 of RFC 7540).
    pub(super) depends_on_itself: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: u32,
    pub(super) attached: Attached,
}
