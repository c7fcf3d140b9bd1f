//! [`Handshake`]: how far both ends have introduced themselves (RFC 9113 §3.4).

use super::role::Role;

/// What the peer has sent of what it has to send before anything else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handshake {
    awaited: Awaited,
    /// The peer has acknowledged our SETTINGS: their limits hold (§6.5.3).
    acknowledged: bool,
}

/// What has to come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Preface,
    Settings,
    /// Frames of any type may come.
    Nothing,
}

impl Handshake {
    /// A server waits for the client's preface, a client for the server's SETTINGS.
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

    /// Whether the peer's first SETTINGS are here.
    #[inline]
    pub(super) fn is_introduced(&self) -> bool {
        self.awaited == Awaited::Nothing
    }

    /// Whether the peer knows our SETTINGS.
    #[inline]
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// Whether each end has seen the other's SETTINGS.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.is_introduced() && self.acknowledged
    }
}
