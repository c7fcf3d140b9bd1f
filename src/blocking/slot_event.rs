//! [`SlotEvent`]: wakes a thread that waits for a slot and reads the socket meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};

/// Tells that a call of another thread has ended and freed its slot. The server need not send
/// anything then, so the socket alone would not wake the thread.
#[derive(Default)]
pub(super) struct SlotEvent(OnceLock<OwnedFd>);

impl SlotEvent {
    /// Returns the descriptor that is readable after [`raise`](Self::raise), or `None` if the process
    /// has no descriptor left.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        if self.0.get().is_none() {
            let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).ok()?;
            // If another thread was first, this one is closed.
            let _ = self.0.set(event);
        }
        self.0.get().map(AsFd::as_fd)
    }

    /// Makes the descriptor readable, if there is one.
    pub(super) fn raise(&self) {
        if let Some(event) = self.0.get() {
            // It fails only if it is raised already.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }

    /// Lets the thread wait again. It looks for a slot afterwards.
    pub(super) fn clear(&self) {
        if let Some(event) = self.0.get() {
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
    }
}
