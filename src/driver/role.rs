//! [`Role`]: what an end of a connection, client or server, adds to what both do.

use std::sync::{Arc, MutexGuard};

use super::shared::{Shared, State};
use crate::http2::Event;

/// What an end of a connection adds to what both do.
pub(super) trait Role {
    /// Whether most of what is sent is encoded by the turn itself: then the buffer for it can be the
    /// next connection's while this one sleeps.
    const LENDS: bool;

    /// Deals with an event.
    fn event(&mut self, state: &mut State, event: Event);

    /// Whether so many events were taken that the rest has to wait for the next turn.
    fn is_full(&self, state: &State) -> bool;

    /// Whether requests were taken and no handler was called for them: because too much waits to be
    /// sent.
    fn holds(&self) -> bool {
        false
    }

    /// Calls the handlers of those requests: gives the lock back meanwhile, and has it again at the
    /// end.
    fn run<'a>(
        &mut self,
        state: MutexGuard<'a, State>,
        _shared: &'a Arc<Shared>,
    ) -> MutexGuard<'a, State> {
        state
    }

    /// Gives back memory that an idle connection does not need.
    fn trim(&mut self) {}
}
