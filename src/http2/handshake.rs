//! [`Handshake`]: what the ends have sent of their prefaces and SETTINGS (RFC 9113 §3.4).

use super::role::Role;

/// What the peer has sent of what must come before everything else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handshake {
    awaited: Awaited,
    /// Whether the peer has acknowledged our SETTINGS, so that their limits hold (§6.5.3).
    acknowledged: bool,
}

/// What the peer has to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Preface,
    Settings,
    /// Frames of all types may come.
    Nothing,
}

impl Handshake {
    /// Returns the start: a server waits for the client's preface, a client for the server's
    /// SETTINGS.
    pub(super) fn new(role: Role) -> Self {
        let awaited = match role {
            Role::Client => Awaited::Settings,
            Role::Server => Awaited::Preface,
        };
        Self { awaited, acknowledged: false }
    }

    #[inline]
    pub(super) fn awaits(&self) -> Awaited {
        self.awaited
    }

    pub(super) fn preface_came(&mut self) {
        self.awaited = Awaited::Settings;
    }

    pub(super) fn settings_came(&mut self) {
        self.awaited = Awaited::Nothing;
    }

    pub(super) fn acknowledged(&mut self) {
        self.acknowledged = true;
    }

    /// Returns whether the peer's first SETTINGS have come.
    #[inline]
    pub(super) fn is_introduced(&self) -> bool {
        self.awaited == Awaited::Nothing
    }

    /// Returns whether the peer knows our SETTINGS.
    #[inline]
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// Returns whether each end has the other's SETTINGS.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.is_introduced() && self.acknowledged
    }
}
