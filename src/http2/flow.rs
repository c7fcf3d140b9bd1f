//! Flow-control windows (RFC 9113 §5.2, §6.9): one type for each direction, a stream's and the
//! connection's alike. Nothing here writes a frame.

/// No window may exceed this (RFC 9113 §6.9.1).
pub(super) const MAX_WINDOW: u32 = 0x7fff_ffff;

/// Every window before SETTINGS or WINDOW_UPDATE change it (RFC 9113 §6.9.2).
pub(super) const DEFAULT_WINDOW: u32 = 65_535;

/// A window grew beyond 2^31-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// The peer sent more than it was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

/// What we may still send. Below zero after the peer made its initial window smaller (§6.9.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow(i32);

impl SendWindow {
    pub(super) fn new(bytes: u32) -> Self {
        debug_assert!(bytes <= MAX_WINDOW);
        Self(bytes.min(MAX_WINDOW) as i32)
    }

    #[inline]
    pub(super) fn available(self) -> usize {
        self.0.max(0) as usize
    }

    /// `bytes` is at most [`available`](Self::available).
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.available());
        self.0 -= bytes as i32;
    }

    /// A WINDOW_UPDATE, or the difference between two values of SETTINGS_INITIAL_WINDOW_SIZE.
    pub(super) fn adjust(&mut self, by: i64) -> Result<(), Overflow> {
        let window = i64::from(self.0) + by;
        if window > i64::from(MAX_WINDOW) {
            return Err(Overflow);
        }
        self.0 = i32::try_from(window).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// What the peer may still send, and what it may send again once told.
///
/// `available + released + what the application holds` is the window we want to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    available: i32,
    released: u32,
}

impl ReceiveWindow {
    pub(super) fn new(bytes: u32) -> Self {
        debug_assert!(bytes <= MAX_WINDOW);
        Self { available: bytes.min(MAX_WINDOW) as i32, released: 0 }
    }

    /// `bytes` of DATA arrived, padding included.
    #[inline]
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Exceeded> {
        if i64::from(bytes) > i64::from(self.available) {
            return Err(Exceeded);
        }
        self.available -= bytes as i32;
        Ok(())
    }

    /// `bytes` are no longer held. Says which increment to announce, if it is time to.
    ///
    /// It is time when there is as much to give as the peer has left: one WINDOW_UPDATE for each
    /// half of the window while it is read, and no stall while others hold most of it.
    #[inline]
    #[must_use = "the increment must be announced"]
    pub(super) fn release(&mut self, bytes: u32) -> Option<u32> {
        self.released += bytes;
        if self.released == 0 || i64::from(self.released) < i64::from(self.available) {
            return None;
        }
        let increment = self.released;
        self.released = 0;
        self.available += increment as i32;
        Some(increment)
    }

    /// Our SETTINGS_INITIAL_WINDOW_SIZE changed by this much.
    pub(super) fn adjust(&mut self, by: i64) {
        let window = i64::from(self.available) + by;
        self.available = window.clamp(-i64::from(MAX_WINDOW), i64::from(MAX_WINDOW)) as i32;
    }

    /// What the peer may still send.
    pub(super) fn available(&self) -> u32 {
        self.available.max(0) as u32
    }

    /// What the window will be once everything is announced.
    pub(super) fn whole(&self) -> i64 {
        i64::from(self.available) + i64::from(self.released)
    }
}

/// The connection's receiving side: one window for all streams.
#[derive(Debug)]
pub(super) struct Inflow {
    window: ReceiveWindow,
    /// What the window is when everything has been read.
    size: u32,
}

impl Inflow {
    /// A window smaller than the default one cannot be had: nothing shrinks it (RFC 9113 §6.9.2).
    pub(super) fn new(size: u32) -> Self {
        let size = size.clamp(DEFAULT_WINDOW, MAX_WINDOW);
        Self { window: ReceiveWindow::new(size), size }
    }

    /// What the first WINDOW_UPDATE has to announce: SETTINGS cannot change this window (RFC 9113
    /// §6.9.2).
    pub(super) fn first_increment(&self) -> u32 {
        self.size - DEFAULT_WINDOW
    }

    #[inline]
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Exceeded> {
        self.window.receive(bytes)
    }

    #[inline]
    #[must_use = "the increment must be announced"]
    pub(super) fn release(&mut self, bytes: u32) -> Option<u32> {
        self.window.release(bytes)
    }

    /// Bytes that arrived and were not released.
    #[inline]
    pub(super) fn unread(&self) -> usize {
        (i64::from(self.size) - self.window.whole()).max(0) as usize
    }

    /// What the peer may still send.
    #[cfg(test)]
    pub(super) fn available(&self) -> u32 {
        self.window.available()
    }
}
