//! [`Duties`]: what a client or a server adds to the code that both ends share.

use std::sync::{Arc, MutexGuard};

use super::output_limit::OutputLimit;
use super::shared::{Shared, State};
use crate::http2::ProtocolEvent;

/// What a client or a server adds to the code that both ends share.
pub(super) trait Duties {
    /// How large a write buffer the connection keeps while it sleeps, in bytes. A larger one is for other
    /// connections.
    const KEPT_OUTPUT: usize;

    /// A turn takes one call of so many in flight, and then writes. So the other end works on some
    /// calls while this end works on others. With busy polling it takes twice as many.
    const CALLS_PER_TAKEN: u8;

    /// Deals with an event.
    fn event(&mut self, state: &mut State, event: ProtocolEvent);

    /// Returns whether so many events were taken that the rest has to wait for the next turn. A turn
    /// takes `batch` calls.
    fn is_full(&self, state: &State, batch: usize) -> bool;

    /// Returns whether there are requests whose handlers are not called yet.
    fn has_requests(&self, _state: &State) -> bool {
        false
    }

    /// Calls the handlers of those requests that were taken, and then of others up to `batch` in all, while
    /// the output limit is not exceeded.
    /// It releases the lock meanwhile, and holds it again at the end.
    fn run<'a>(
        &mut self,
        state: MutexGuard<'a, State>,
        _shared: &'a Arc<Shared>,
        _batch: usize,
        _limit: OutputLimit,
    ) -> MutexGuard<'a, State> {
        state
    }

    /// Gives back memory that an idle connection does not need.
    fn trim(&mut self) {}
}
