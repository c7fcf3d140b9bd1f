//! [`Watch`]: the task that drives a client's connection tells it what happens.

use std::fmt;
use std::sync::Arc;

use super::error::CloseReason;
use super::shared::Shared;
use crate::http2::ErrorCode;

/// Is told of a connection in the order of these methods, with no lock held. If it is dropped
/// without a call of [`ended`](Self::ended), the task was dropped.
pub(crate) trait Watch: Send + 'static {
    /// Is told that the server's SETTINGS have come.
    fn ready(&mut self);

    /// Is told that the server takes no more calls (GOAWAY, RFC 9113 §6.8).
    fn going_away(&mut self, code: ErrorCode);

    /// Is told that the connection has ended.
    fn ended(&mut self, why: &CloseReason);
}

/// Checks after each turn whether there is something to tell.
pub(super) struct Watching {
    watch: Box<dyn Watch>,
    shared: Arc<Shared>,
    is_ready: bool,
    is_going_away: bool,
}

impl Watching {
    pub(super) fn new(watch: Box<dyn Watch>, shared: Arc<Shared>) -> Self {
        Self { watch, shared, is_ready: false, is_going_away: false }
    }

    pub(super) fn look(&mut self) {
        let (ready, go_away) = {
            let state = self.shared.lock();
            (state.ready, state.h2.peer_go_away().map(|go_away| go_away.code))
        };
        if ready && !self.is_ready {
            self.is_ready = true;
            self.watch.ready();
        }
        if let Some(code) = go_away
            && self.is_ready
            && !self.is_going_away
        {
            self.is_going_away = true;
            self.watch.going_away(code);
        }
    }

    pub(super) fn ended(mut self, why: &CloseReason) {
        self.watch.ended(why);
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}
