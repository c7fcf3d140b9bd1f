//! [`Reopening`]: how often a connection is opened again after servers that ended before they were
//! ready.

use std::time::Duration;

use crate::backoff::{Backoff, jittered};
use crate::driver::CloseReason;

/// How often a connection is opened again at once. The server's successor may already be there, so
/// that no call fails.
const SUCCESSORS: u32 = 2;

/// How often a connection is opened again after a wait, if the server spoke and then announced its
/// end. The server's idle timeout may be shorter than the time that this process had to wait for a
/// CPU.
const ANNOUNCED_ENDS: u32 = 4;

/// The tries that one attempt to connect has left. Those without a wait are used up first.
pub(crate) struct Reopening {
    at_once: u32,
    after_wait: u32,
    backoff: Backoff,
}

impl Reopening {
    pub(crate) fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(100));
        Self { at_once: SUCCESSORS, after_wait: ANNOUNCED_ENDS, backoff }
    }

    /// Uses up a try, and returns how long to wait before it. `close_reason` is why the server's
    /// connection ended, or `None` if the server announced its end. Returns `None` if the
    /// connection is not to be opened again.
    pub(crate) fn next(&mut self, close_reason: Option<&CloseReason>) -> Option<Duration> {
        match close_reason {
            None | Some(CloseReason::Closed | CloseReason::Io(_)) if self.at_once > 0 => {
                self.at_once -= 1;
                Some(Duration::ZERO)
            }
            None if self.after_wait > 0 => {
                self.after_wait -= 1;
                Some(jittered(self.backoff.next()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(close_reason: Option<&CloseReason>) -> Vec<bool> {
        let mut reopening = Reopening::new();
        let waits = std::iter::from_fn(|| reopening.next(close_reason));
        waits.map(|wait| !wait.is_zero()).collect()
    }

    #[test]
    fn a_closed_connection_is_opened_again_twice_at_once() {
        assert_eq!(waits(Some(&CloseReason::Closed)), [false, false]);
    }

    #[test]
    fn after_an_announced_end_four_tries_with_waits_follow() {
        assert_eq!(waits(None), [false, false, true, true, true, true]);
    }

    #[test]
    fn a_server_without_http2_is_not_tried_again() {
        let error = crate::http2::ConnectionError {
            code: crate::http2::ErrorCode::PROTOCOL_ERROR,
            cause: crate::http2::Cause::Protocol,
            why: "no preface",
        };
        assert_eq!(waits(Some(&CloseReason::NotHttp2(error))), [false; 0]);
    }
}
