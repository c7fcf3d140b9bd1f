//! [`Gate`]: which connections may come in.

use std::io;
use std::sync::Arc;

use tokio::time::Instant;

use super::limits::{Limits, Permit};
use super::options::Options;
use super::refusal::MAX_REFUSALS;
use crate::address::Address;
use crate::driver::Memory;
use crate::policy::Throttle;
use crate::socket::{Peer, PeerIdentity};

/// Refused connections that are logged in a second.
const REFUSALS_LOGGED: u32 = 100;

/// What the calls of a peer are told that the policy does not let in.
pub(super) const REFUSED: &str = "refused by the server's policy";

/// What all connections of a server share.
pub(super) struct Gate {
    pub(super) options: Options,
    pub(super) memory: Arc<Memory>,
    pub(super) limits: Arc<Limits>,
    /// Of connections that are refused.
    pub(super) refusals: Arc<Limits>,
    /// Of accept.
    failures_logged: Throttle,
    full_logged: Throttle,
    refusals_logged: Throttle,
}

/// What becomes of a connection.
pub(super) enum Entry {
    Admitted(Permit),
    /// By the policy. It holds a permit, where there was one.
    Refused(Option<Permit>),
    /// For want of a permit: which limit is reached.
    Full(&'static str),
}

impl Gate {
    pub(super) fn new(options: Options) -> Arc<Self> {
        Arc::new(Self {
            limits: Limits::new(options.max_connections, options.max_connections_per_uid),
            refusals: Limits::new(MAX_REFUSALS.0, MAX_REFUSALS.1),
            memory: Memory::new(options.max_buffered),
            failures_logged: Throttle::new(1),
            full_logged: Throttle::new(1),
            refusals_logged: Throttle::new(REFUSALS_LOGGED),
            options,
        })
    }

    /// Asks the policy and the limits about a connection, and logs what they refuse. A policy lets no
    /// unknown peer in.
    pub(super) fn ask(&self, peer: &Peer, address: Option<&Address>) -> Entry {
        let identity = peer.identity();
        let allowed = match &self.options.policy {
            None => true,
            Some(policy) => identity.is_some_and(|identity| policy.allows(identity)),
        };
        let permit = self.limits.permit(identity.map(PeerIdentity::uid));
        if !allowed {
            self.log_refusal(identity, address);
            return Entry::Refused(permit.ok());
        }
        match permit {
            Ok(permit) => Entry::Admitted(permit),
            Err(why) => {
                self.log_full(why, identity, address);
                Entry::Full(why)
            }
        }
    }

    fn log_refusal(&self, peer: Option<&PeerIdentity>, address: Option<&Address>) {
        if let Some(unlogged) = self.refusals_logged.pass(now()) {
            let (uid, gid, pid) = numbers(peer);
            let address = address.map(tracing::field::display);
            tracing::warn!(address, uid, gid, pid, unlogged, "a connection was refused by policy");
        }
    }

    fn log_full(&self, why: &str, peer: Option<&PeerIdentity>, address: Option<&Address>) {
        if let Some(unlogged) = self.full_logged.pass(now()) {
            let (uid, gid, pid) = numbers(peer);
            let address = address.map(tracing::field::display);
            tracing::warn!(address, uid, gid, pid, unlogged, "a connection was turned away: {why}");
        }
    }

    pub(super) fn log_failure(&self, error: &io::Error, address: Option<&Address>) {
        if let Some(unlogged) = self.failures_logged.pass(now()) {
            let address = address.map(tracing::field::display);
            tracing::warn!(address, %error, unlogged, "accept failed");
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A peer's user, group and process for the log.
fn numbers(peer: Option<&PeerIdentity>) -> (Option<u32>, Option<u32>, Option<u32>) {
    (peer.map(PeerIdentity::uid), peer.map(PeerIdentity::gid), peer.and_then(PeerIdentity::pid))
}
