//! Flow-control windows (RFC 9113 §5.2, §6.9): one type for each direction, for streams and for the
//! connection. No frame is written here.

/// No window may exceed this (RFC 9113 §6.9.1).
pub(super) const MAX_WINDOW: u32 = 0x7fff_ffff;

/// The size of every window before SETTINGS or WINDOW_UPDATE change it (RFC 9113 §6.9.2).
pub(super) const DEFAULT_WINDOW: u32 = 65_535;

/// A window grew beyond 2^31-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// The peer sent more than it was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

/// How much we may still send. It is below zero after the peer made its initial window smaller
/// (§6.9.2).
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

    /// Uses up `bytes`, which is at most [`available`](Self::available).
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.available());
        self.0 -= bytes as i32;
    }

    /// Changes the window by a WINDOW_UPDATE, or by the difference between two values of
    /// SETTINGS_INITIAL_WINDOW_SIZE.
    pub(super) fn adjust(&mut self, by: i64) -> Result<(), Overflow> {
        let window = i64::from(self.0) + by;
        if window > i64::from(MAX_WINDOW) {
            return Err(Overflow);
        }
        self.0 = i32::try_from(window).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// How much the peer may still send, and how much it may send again after it is told.
///
/// `available + released + what is not read` is the size of the window. A stream's window grows
/// with what its reader consumes, so that many streams that are not read hold little.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    available: i32,
    released: u32,
    size: u32,
    /// How much it has grown.
    grown: u32,
}

impl ReceiveWindow {
    pub(super) fn new(bytes: u32) -> Self {
        let size = bytes.min(MAX_WINDOW);
        Self { available: size as i32, released: 0, size, grown: 0 }
    }

    /// Uses up `bytes` of DATA that arrived, with the padding.
    #[inline]
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Exceeded> {
        if i64::from(bytes) > i64::from(self.available) {
            return Err(Exceeded);
        }
        self.available -= bytes as i32;
        Ok(())
    }

    /// Notes that `bytes` are no longer held. Returns the increment to announce if it is time to.
    ///
    /// It is time when there is as much to give back as the peer has left. So there is one
    /// WINDOW_UPDATE for each half of the window while it is read, and the peer does not stall
    /// while most of the window is held.
    #[inline]
    #[must_use = "the increment must be announced"]
    pub(super) fn release(&mut self, bytes: u32) -> Option<u32> {
        self.released += bytes;
        if self.is_due() { self.announce(0) } else { None }
    }

    /// Notes that `bytes` are no longer held, but the peer must not send more now.
    pub(super) fn hold_back(&mut self, bytes: u32) {
        self.released += bytes;
    }

    /// Does the same as `release` for a window that grows: each time half of it was read, it
    /// doubles, up to `max`.
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
        // It may be below zero after our SETTINGS made it smaller. This never takes it beyond
        // 2^31-1.
        let increment = std::mem::take(&mut self.released) + more;
        self.size += more;
        self.grown += more;
        self.available += increment as i32;
        Some(increment)
    }

    /// Changes the window by a change of our SETTINGS_INITIAL_WINDOW_SIZE.
    pub(super) fn adjust(&mut self, by: i64) {
        let window = i64::from(self.available) + by;
        self.available = window.clamp(-i64::from(MAX_WINDOW), i64::from(MAX_WINDOW)) as i32;
        self.size = (i64::from(self.size) + by).clamp(0, i64::from(MAX_WINDOW)) as u32;
    }

    /// Returns how much it has grown.
    #[inline]
    pub(super) fn grown(&self) -> u32 {
        self.grown
    }

    /// Returns how much the peer may still send.
    pub(super) fn available(&self) -> u32 {
        self.available.max(0) as u32
    }

    /// Returns its size.
    #[inline]
    pub(super) fn size(&self) -> u32 {
        self.size
    }
}

/// The connection's receiving side: one window for all streams. It is given back as soon as data
/// has arrived, so a stream that is not read takes nothing from the others.
#[derive(Debug)]
pub(super) struct Inflow {
    window: ReceiveWindow,
    /// Bytes that arrived on streams and were not read.
    unread: usize,
    /// How many of these bytes are copies, and not part of a read buffer, which counts by itself.
    pub(super) copied: usize,
    /// Whether the last input had DATA of the largest size, which only large messages have.
    pub(super) is_bulk: bool,
    /// The largest window that a reader of this connection has used.
    usual: u32,
    /// How much the streams' windows have grown together, at most the connection's own window. A
    /// peer may send that much more at once.
    grown: u32,
}

impl Inflow {
    /// Returns a window that is at least the default one, because nothing can make it smaller (RFC
    /// 9113 §6.9.2).
    pub(super) fn new(size: u32) -> Self {
        let size = size.clamp(DEFAULT_WINDOW, MAX_WINDOW);
        let window = ReceiveWindow::new(size);
        Self { window, unread: 0, copied: 0, is_bulk: false, usual: 0, grown: 0 }
    }

    /// Returns the increment of the first WINDOW_UPDATE, because SETTINGS cannot change this window
    /// (RFC 9113 §6.9.2).
    pub(super) fn first_increment(&self) -> u32 {
        self.window.size() - DEFAULT_WINDOW
    }

    /// Uses up `bytes` of DATA that arrived, with the padding. Returns the increment to announce if
    /// it is time to.
    #[inline]
    pub(super) fn receive(&mut self, bytes: u32) -> Result<Option<u32>, Exceeded> {
        self.window.receive(bytes)?;
        Ok(self.window.release(bytes))
    }

    /// Notes that a stream keeps `bytes` until they are read.
    #[inline]
    pub(super) fn keep(&mut self, bytes: u32) {
        self.unread += bytes as usize;
    }

    /// Notes that `bytes` were read or dropped.
    #[inline]
    pub(super) fn release(&mut self, bytes: u32) {
        self.unread -= bytes as usize;
    }

    /// Returns how many bytes arrived and were not read.
    #[cfg(test)]
    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    /// Notes that a reader has used a window of `size`.
    #[inline]
    pub(super) fn note_used(&mut self, size: u32) {
        self.usual = self.usual.max(size);
    }

    /// Returns how much windows may still grow.
    #[inline]
    pub(super) fn growth(&self) -> u32 {
        self.window.size().saturating_sub(self.grown)
    }

    /// Notes that a stream's window has grown.
    #[inline]
    pub(super) fn note_grown(&mut self, by: u32) {
        self.grown += by;
    }

    /// Notes that a stream has ended whose window had grown.
    #[inline]
    pub(super) fn note_ended(&mut self, grown: u32) {
        self.grown -= grown;
    }

    /// Returns the window that a stream gets when a message begins that is larger than its window.
    /// It is the window that other readers used, unless much is kept unread or many windows have
    /// grown.
    #[inline]
    pub(super) fn usual(&self) -> u32 {
        let used = self.unread.max(self.grown as usize) + self.usual as usize;
        if used <= self.window.size() as usize { self.usual } else { 0 }
    }

    /// Returns how much the peer may still send.
    pub(super) fn available(&self) -> u32 {
        self.window.available()
    }
}

/// Whether memory is short, and which request gets window meanwhile (`pressure`).
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Whether memory is short.
    pub(super) is_on: bool,
    /// Whether so much is held that no other request follows the one that gets window.
    pub(super) is_far: bool,
    /// The stream of the request that gets window meanwhile, or 0.
    pub(super) first: u32,
}

impl Pressure {
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }
}
