//! [`Sleeper`]: whether a connection's driver is asleep, and how it is woken.

use std::task::Waker;

/// The driver's waker. It stays here from one sleep to the next, because making a copy and dropping it
/// costs as much as a lock.
#[derive(Debug, Default)]
pub(super) struct Sleeper {
    waker: Option<Waker>,
    asleep: bool,
}

impl Sleeper {
    pub(super) fn sleep(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        self.asleep = true;
    }

    #[inline]
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Notes that the driver runs.
    #[inline]
    pub(super) fn wakes_up(&mut self) {
        self.asleep = false;
    }

    /// Returns the waker of a driver that is asleep. The caller wakes it without the lock.
    #[inline]
    pub(super) fn wake(&mut self) -> Option<Waker> {
        if !self.asleep {
            return None;
        }
        self.asleep = false;
        self.waker.take()
    }

    /// Drops the waker, because there is no further turn.
    pub(super) fn ends(&mut self) {
        *self = Self::default();
    }
}
