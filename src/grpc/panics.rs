//! Handlers that panic: the caller is told, and the log, up to a number of times a second.

use std::any::Any;
use std::time::Instant;

use tonic::Status;

use crate::throttle::Throttle;

/// Panics are logged up to this many times a second.
static LOGGED: Throttle = Throttle::new(10);

/// A panic's message is logged up to this many characters.
const SHOWN: usize = 256;

/// The status of a call whose handler has panicked with `panic`, which is logged. The caller learns
/// no more than that: what a panic says is the server's own business.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Status {
    if let Some(unlogged) = LOGGED.pass(Instant::now()) {
        let message = panic.downcast_ref::<&str>().copied();
        let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message: String = message.unwrap_or("no message").chars().take(SHOWN).collect();
        tracing::error!(?message, unlogged, "a handler panicked");
    }
    Status::internal("the handler panicked")
}
