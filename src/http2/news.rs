//! [`News`]: what the driver still has to be told.

/// A set of things to tell, of one stream or of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News(u8);

impl News {
    pub(super) const OPENED: Self = Self(1);
    pub(super) const READABLE: Self = Self(2);
    pub(super) const WRITABLE: Self = Self(4);
    pub(super) const RESET: Self = Self(8);

    pub(super) const READY: Self = Self(1);
    pub(super) const GO_AWAY: Self = Self(2);
    pub(super) const SLOTS: Self = Self(4);

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(super) fn add(&mut self, news: Self) {
        self.0 |= news.0;
    }

    /// Removes `news` from the set. Returns whether it was there.
    #[inline]
    pub(super) fn take(&mut self, news: Self) -> bool {
        let had = self.0 & news.0 != 0;
        self.0 &= !news.0;
        had
    }
}
