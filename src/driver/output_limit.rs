//! [`OutputLimit`]: how much may wait to be sent before a server starts no further handlers.

use super::shared::State;

/// How many bytes may wait. If more do, a server starts no handler. Otherwise a client that reads nothing
/// could ask for responses without end.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputLimit {
    /// For the socket. Responses that are only heads need no window.
    outgoing: usize,
    /// For the client's windows.
    queued: u64,
}

impl OutputLimit {
    /// It is more than one large message needs.
    const USUAL: Self = Self { outgoing: 1 << 20, queued: 64 << 20 };

    /// The limit while the user of the connection has to wait for memory. A client that reads its
    /// responses hardly has more to read, and a stream that it does not read now rarely has as much.
    const PRESSED: Self = Self { outgoing: 64 << 10, queued: 256 << 10 };

    #[inline]
    pub(super) fn new(is_pressed: bool) -> Self {
        if is_pressed { Self::PRESSED } else { Self::USUAL }
    }

    /// Returns whether more waits. A client has no limit: it does not start handlers.
    #[inline]
    pub(super) fn is_exceeded(self, state: &State) -> bool {
        let h2 = &state.h2;
        !h2.is_client() && (h2.outgoing_len() > self.outgoing || h2.queued_len() > self.queued)
    }
}
