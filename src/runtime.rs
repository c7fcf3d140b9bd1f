//! On which kind of tokio's runtimes this runs, and how descriptors are registered with it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Returns whether the current runtime has several threads. Outside of a runtime it may have.
pub(crate) fn has_several_threads() -> bool {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    !matches!(flavor, Ok(RuntimeFlavor::CurrentThread))
}

/// Registers a descriptor with the runtime, to be told when it is readable.
pub(crate) fn asynchronous(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(descriptor, Interest::READABLE)
}

/// Registers a descriptor with the runtime, to be told of what is asked for.
#[allow(
    deprecated,
    reason = "deprecated in tokio 1.54 for types whose `as_raw_fd` may lie, in favour of an unsafe \
              function that older ones lack; those used here own their one descriptor"
)]
pub(crate) fn register<T: AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(descriptor, interest)
}
