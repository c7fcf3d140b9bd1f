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
/// `available + released + what is not read` is the window that is kept open: its size. A stream's
/// grows with what its reader consumes, so that many streams that nobody reads hold little.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    available: i32,
    released: u32,
    size: u32,
    /// What it has grown by.
    grown: u32,
}

impl ReceiveWindow {
    pub(super) fn new(bytes: u32) -> Self {
        let size = bytes.min(MAX_WINDOW);
        Self { available: size as i32, released: 0, size, grown: 0 }
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
        if self.is_due() { self.announce(0) } else { None }
    }

    /// `bytes` are no longer held, and the peer is not to send more now.
    pub(super) fn hold_back(&mut self, bytes: u32) {
        self.released += bytes;
    }

    /// The same for a window that grows: each time half of it was read it doubles, up to `max`.
    #[inline]
    #[must_use = "the increment must be announced"]
    pub(super) fn consume(&mut self, bytes: u32, max: u32) -> Option<u32> {
        self.released += bytes;
        if !self.is_due() {
            return None;
        }
        self.announce(self.size.min(max.saturating_sub(self.size)))
    }

    /// Makes the window `size` large, if it is smaller, before any of it was read.
    #[inline]
    #[must_use = "the increment must be announced"]
    pub(super) fn grow_to(&mut self, size: u32) -> Option<u32> {
        let more = size.min(MAX_WINDOW).saturating_sub(self.size);
        if more == 0 { None } else { self.announce(more) }
    }

    #[inline]
    fn is_due(&self) -> bool {
        self.released > 0 && i64::from(self.released) >= i64::from(self.available)
    }

    fn announce(&mut self, more: u32) -> Option<u32> {
        // Below zero it may be, after our SETTINGS made it smaller: never beyond 2^31-1 by this.
        let increment = std::mem::take(&mut self.released) + more;
        self.size += more;
        self.grown += more;
        self.available += increment as i32;
        Some(increment)
    }

    /// Our SETTINGS_INITIAL_WINDOW_SIZE changed by this much.
    pub(super) fn adjust(&mut self, by: i64) {
        let window = i64::from(self.available) + by;
        self.available = window.clamp(-i64::from(MAX_WINDOW), i64::from(MAX_WINDOW)) as i32;
        self.size = (i64::from(self.size) + by).clamp(0, i64::from(MAX_WINDOW)) as u32;
    }

    /// What it has grown by.
    #[inline]
    pub(super) fn grown(&self) -> u32 {
        self.grown
    }

    /// What the peer may still send.
    pub(super) fn available(&self) -> u32 {
        self.available.max(0) as u32
    }

    /// What is kept open.
    #[inline]
    pub(super) fn size(&self) -> u32 {
        self.size
    }
}

/// The connection's receiving side: one window for all streams, which is open again as soon as
/// something has arrived. So no stream that nobody reads takes anything from the others.
#[derive(Debug)]
pub(super) struct Inflow {
    window: ReceiveWindow,
    /// Bytes that arrived on streams and were not read.
    unread: usize,
    /// Bytes of these that are not part of a read buffer which counts whole.
    pub(super) copied: u32,
    /// The largest window that a reader of this connection has made use of.
    usual: u32,
    /// What the windows of streams have grown by, together: at most the connection's own window. So
    /// much more a peer may send at once.
    grown: u32,
}

impl Inflow {
    /// A window smaller than the default one cannot be had: nothing shrinks it (RFC 9113 §6.9.2).
    pub(super) fn new(size: u32) -> Self {
        let size = size.clamp(DEFAULT_WINDOW, MAX_WINDOW);
        Self { window: ReceiveWindow::new(size), unread: 0, copied: 0, usual: 0, grown: 0 }
    }

    /// What the first WINDOW_UPDATE has to announce: SETTINGS cannot change this window (RFC 9113
    /// §6.9.2).
    pub(super) fn first_increment(&self) -> u32 {
        self.window.size() - DEFAULT_WINDOW
    }

    /// `bytes` of DATA arrived, padding included. Says which increment to announce, if it is time to.
    #[inline]
    pub(super) fn receive(&mut self, bytes: u32) -> Result<Option<u32>, Exceeded> {
        self.window.receive(bytes)?;
        Ok(self.window.release(bytes))
    }

    /// A stream keeps `bytes` until they are read.
    #[inline]
    pub(super) fn keep(&mut self, bytes: u32) {
        self.unread += bytes as usize;
    }

    /// `bytes` were read, or dropped.
    #[inline]
    pub(super) fn release(&mut self, bytes: u32) {
        self.unread -= bytes as usize;
    }

    /// Bytes that arrived and were not read.
    #[cfg(test)]
    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    /// A reader has made use of a window of `size`.
    #[inline]
    pub(super) fn note_used(&mut self, size: u32) {
        self.usual = self.usual.max(size);
    }

    /// What windows may still grow by.
    #[inline]
    pub(super) fn growth(&self) -> u32 {
        self.window.size().saturating_sub(self.grown)
    }

    /// A stream's window has grown.
    #[inline]
    pub(super) fn note_grown(&mut self, by: u32) {
        self.grown += by;
    }

    /// A stream is gone, whose window had grown.
    #[inline]
    pub(super) fn note_gone(&mut self, grown: u32) {
        self.grown -= grown;
    }

    /// The window that a stream gets when a message begins on it that is larger than the one it has:
    /// what others had, unless much is kept that nobody reads or many windows have grown.
    #[inline]
    pub(super) fn usual(&self) -> u32 {
        let used = self.unread.max(self.grown as usize) + self.usual as usize;
        if used <= self.window.size() as usize { self.usual } else { 0 }
    }

    /// What the peer may still send.
    #[cfg(test)]
    pub(super) fn available(&self) -> u32 {
        self.window.available()
    }
}
