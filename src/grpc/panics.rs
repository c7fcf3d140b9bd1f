//! Handlers that panic: the caller gets a status, and the log an event.

use std::any::Any;
use std::time::Instant;

use tonic::Status;

use crate::throttle::Throttle;

/// Limits the log events of panics to this many in a second.
static LOGGED: Throttle = Throttle::new(10);

/// How many characters of a panic's message are shown.
const SHOWN: usize = 256;

/// Logs a handler's `panic` and returns the status of its call. The status does not have the
/// panic's message, which is for the server's operator only.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Status {
    if let Some(unlogged) = LOGGED.pass(Instant::now()) {
        let message = panic_message(panic);
        tracing::error!(?message, unlogged, "a handler panicked");
    }
    Status::internal("the handler panicked")
}

/// Returns the beginning of a panic's message.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    message.unwrap_or("no message").chars().take(SHOWN).collect()
}
