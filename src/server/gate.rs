//! [`Gate`]: decides which connections are admitted.

use std::io;
use std::sync::Arc;

use super::limits::{ConnectionLimits, Permit};
use super::options::ServerConfig;
use super::refusal::MAX_REFUSALS;
use crate::address::Address;
use crate::driver::{Memory, now};
use crate::observer::{Event, Observers, PeerName, RefusalReason};
use crate::socket::{Peer, PeerIdentity};
use crate::throttle::Throttle;

/// How many refused connections are logged in a second.
const REFUSALS_LOGGED: u32 = 100;

/// The part of a server that all its connections share.
pub(super) struct Gate {
    pub(super) options: ServerConfig,
    pub(super) memory: Arc<Memory>,
    pub(super) observers: Option<Observers>,
    pub(super) limits: Arc<ConnectionLimits>,
    /// Limits the refused connections whose calls are answered.
    pub(super) refusals: Arc<ConnectionLimits>,
    failures_logged: Throttle,
    full_logged: Throttle,
    refusals_logged: Throttle,
}

/// The decision on a connection.
pub(super) enum Admission {
    Admitted(Permit),
    /// A connection that the policy refused has a permit, if there was one left.
    Refused(RefusalReason, Option<Permit>),
}

impl Gate {
    pub(super) fn new(options: ServerConfig) -> Arc<Self> {
        let memory = options.memory();
        if let Some(stats) = &options.stats {
            stats.serves_with(&memory);
        }
        Arc::new(Self {
            observers: options.observing.observers(),
            limits: ConnectionLimits::new(options.max_connections, options.max_connections_per_uid),
            refusals: ConnectionLimits::new(MAX_REFUSALS.0, MAX_REFUSALS.1),
            memory,
            failures_logged: Throttle::new(1),
            full_logged: Throttle::new(1),
            refusals_logged: Throttle::new(REFUSALS_LOGGED),
            options,
        })
    }

    /// Decides by the policy and the limits whether a connection is admitted, and logs a refusal. A
    /// policy refuses unknown peers.
    pub(super) fn admit(&self, peer: &Peer, address: Option<&Address>) -> Admission {
        let identity = peer.identity();
        let allowed = match &self.options.policy {
            None => true,
            Some(policy) => identity.is_some_and(|identity| policy.allows(identity)),
        };
        let permit = self.limits.permit(identity.map(PeerIdentity::uid));
        let (reason, permit) = match permit {
            Ok(permit) if allowed => return Admission::Admitted(permit),
            permit if !allowed => {
                self.log_refusal(identity, address);
                (RefusalReason::Policy, permit.ok())
            }
            Ok(_) => unreachable!("admitted above"),
            Err(reason) => {
                self.log_full(reason, identity, address);
                (reason, None)
            }
        };
        if let Some(observers) = &self.observers {
            observers.tell(&Event::ConnectionRefused { address, peer, reason });
        }
        Admission::Refused(reason, permit)
    }

    fn log_refusal(&self, peer: Option<&PeerIdentity>, address: Option<&Address>) {
        if let Some(unlogged) = self.refusals_logged.pass(now()) {
            let PeerName { uid, gid, pid, command } = PeerName::of(peer);
            let address = address.map(tracing::field::display);
            tracing::warn!(
                address,
                uid,
                gid,
                pid,
                command,
                unlogged,
                "a connection was refused by policy"
            );
        }
    }

    fn log_full(
        &self,
        reason: RefusalReason,
        peer: Option<&PeerIdentity>,
        address: Option<&Address>,
    ) {
        if let Some(unlogged) = self.full_logged.pass(now()) {
            let PeerName { uid, gid, pid, command } = PeerName::of(peer);
            let address = address.map(tracing::field::display);
            tracing::warn!(
                address,
                uid,
                gid,
                pid,
                command,
                unlogged,
                "a connection was turned away: {} ({})",
                reason.text(),
                reason.setter()
            );
        }
    }

    pub(super) fn log_failure(&self, error: &io::Error, address: Option<&Address>) {
        if let Some(unlogged) = self.failures_logged.pass(now()) {
            let address = address.map(tracing::field::display);
            tracing::warn!(address, %error, unlogged, "accept failed");
        }
    }
}
