//! What a peer may make us do for nothing.
//!
//! HTTP/2 has many frames that cost the sender a few bytes and bring no call forward. Each spends;
//! calls completed, data delivered and time earn. A peer that spends faster than that is told
//! ENHANCE_YOUR_CALM (RFC 9113 §10.5). Which frame costs what is in one place: here.
//!
//! A call that its caller cancels spends nothing, however early. "Rapid reset" (CVE-2023-44487) is
//! bounded by what it costs: a cancelled call counts against the advertised number of streams until
//! its handler has ended, and one turn of a connection opens a bounded number of streams
//! ([`MAX_OPENED`](super::sides::MAX_OPENED)).

use std::time::Instant;

use super::error::ConnectionError;

/// What a connection starts with, and the most it can hold.
pub(super) const CAPACITY: u32 = 8_192;

/// What a second earns.
pub(super) const PER_SECOND: u32 = 2_048;

/// A stream that ended as both ends wished. Pays for the PING, the WINDOW_UPDATEs and the rest that
/// peers send along with every call.
pub(super) const CALL_COMPLETED: u32 = 8;

/// A DATA frame that we sent: the peer may answer it with a WINDOW_UPDATE for the stream and one
/// for the connection, however small.
pub(super) const DATA_SENT: u32 = 2;

/// Payload, either way, is worth one for so many bytes.
pub(super) const BYTES_PER_UNIT: u32 = 2_048;

/// WINDOW_UPDATEs from this size on are free.
pub(super) const TINY_WINDOW_UPDATE: u32 = 1_024;

/// What a peer spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Cost {
    /// PING, PRIORITY, PRIORITY_UPDATE, unknown frames, frames for streams that are gone, DATA
    /// without payload, tiny WINDOW_UPDATEs, superfluous acknowledgements.
    Idle = 1,
    /// An informational response.
    Informational = 2,
    /// A stream above the advertised number.
    Refused = 3,
    /// A stream that we had to reset because the peer broke a rule on it.
    Violation = 8,
    /// Settings to apply and acknowledge.
    Settings = 16,
}

/// What a header list costs that is too large to keep: what its call earns once it is answered, and
/// what it takes to decode the block and the fields beyond the limit, which a few bytes can stand for.
pub(super) const fn too_large(block: usize, fields: u32) -> u32 {
    CALL_COMPLETED + (block / 4_096) as u32 + fields / 256
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u32,
    /// When `left` was last brought up to date with the time.
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: CAPACITY, at: now }
    }

    #[inline]
    pub(super) fn earn(&mut self, units: u32) {
        self.left = self.left.saturating_add(units).min(CAPACITY);
    }

    #[inline]
    pub(super) fn spend(&mut self, cost: Cost) -> Result<(), ConnectionError> {
        self.spend_units(cost as u32)
    }

    #[inline]
    pub(super) fn spend_units(&mut self, units: u32) -> Result<(), ConnectionError> {
        match self.left.checked_sub(units) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ConnectionError::limit("too many frames that advance no call")),
        }
    }

    /// Earns what the time since the last call is worth.
    #[inline]
    pub(super) fn pass_time(&mut self, now: Instant) {
        if self.left == CAPACITY {
            self.at = now;
            return;
        }
        let millis = now.saturating_duration_since(self.at).as_millis();
        let units = millis.saturating_mul(u128::from(PER_SECOND)) / 1_000;
        if units > 0 {
            self.at = now;
            self.earn(u32::try_from(units).unwrap_or(u32::MAX));
        }
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> u32 {
        self.left
    }
}
