//! Limits the work that a peer causes without any use.
//!
//! HTTP/2 has many frames that cost their sender a few bytes and do not advance a call. Each of
//! them spends budget. Completed calls, delivered data and time earn budget. A peer that spends
//! faster than it earns gets ENHANCE_YOUR_CALM (RFC 9113 §10.5). This file has the price of each
//! frame.
//!
//! A call that its caller cancels spends nothing, however early. "Rapid reset" (CVE-2023-44487) has
//! other limits: a cancelled call counts as a stream until its handler has ended, and one turn of a
//! connection opens a limited number of streams ([`MAX_OPENED`](super::sides::MAX_OPENED)).

use std::time::Instant;

use super::error::ConnectionError;

/// What a connection has at its start, and its maximum.
pub(super) const CAPACITY: u32 = 8_192;

/// What a second earns.
pub(super) const PER_SECOND: u32 = 2_048;

/// What a stream that ended normally earns. It pays for the PING, the WINDOW_UPDATEs and
/// other frames that peers send with every call. A server takes it back beforehand if the header list
/// is too large.
pub(super) const CALL_COMPLETED: u32 = 8;

/// What a DATA frame that we sent earns. However small it is, the peer may answer it with a
/// WINDOW_UPDATE for the stream and one for the connection.
pub(super) const DATA_SENT: u32 = 2;

/// This many bytes of payload, in either direction, earn one unit.
pub(super) const BYTES_PER_UNIT: u32 = 2_048;

/// WINDOW_UPDATEs from this size on are free.
pub(super) const TINY_WINDOW_UPDATE: u32 = 1_024;

/// The price of what a peer sends.
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

/// Returns the price of a header block whose head is malformed or too large. It pays for decoding
/// the block, and for the fields after the error, because a few bytes can stand for many fields.
pub(super) const fn decoded_in_vain(block: usize, fields: u32) -> u32 {
    (block / 4_096) as u32 + fields / 256
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u32,
    /// When `left` was last updated.
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

    /// Earns the units for the time since the last call.
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
