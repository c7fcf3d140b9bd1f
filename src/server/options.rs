//! [`ServerConfig`]: the options of a server, which hold for all its listeners and connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;

use super::limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID};
use super::stats::ServerStats;
use crate::descriptors::ServerQuotas;
use crate::driver::{self, Memory};
use crate::http2::{Config, KeepAlive};
use crate::observer::ObserverOptions;
use crate::policy::PeerPolicy;
use crate::socket::Peer;

/// How long calls in flight may take to finish after the shutdown signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes a server buffers for all connections together.
const MAX_BUFFERED: usize = 256 << 20;

/// One user may hold this fraction of it while others hold something: one in so many.
const USER_SHARE: usize = 4;

/// How long a client's handshake may take while at most half of the permits are taken.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take to answer a keep-alive PING.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a handshake may take while more than half of the permits are taken, so that silent
/// peers do not hold the other half.
pub(super) const SCARCE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type OnConnect = dyn Fn(&Peer) -> Extensions + Send + Sync;

#[derive(Clone)]
pub(super) struct ServerConfig {
    pub(super) policy: Option<PeerPolicy>,
    pub(super) drain_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_uid: usize,
    pub(super) max_buffered: usize,
    /// `None` means a quarter of `max_buffered`.
    pub(super) max_user_share: Option<usize>,
    pub(super) keep_alive_interval: Option<Duration>,
    pub(super) keep_alive_timeout: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) max_connection_age: Option<Duration>,
    pub(super) max_connection_age_grace: Option<Duration>,
    pub(super) concurrency_limit: Option<usize>,
    pub(super) load_shed: bool,
    pub(super) on_connect: Option<Arc<OnConnect>>,
    pub(super) observing: ObserverOptions,
    pub(super) stats: Option<ServerStats>,
    /// `Some` if peers may send descriptors.
    pub(super) descriptors: Option<ServerQuotas>,
    /// The options of each connection.
    pub(super) driver: driver::Options,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            policy: None,
            drain_timeout: DRAIN_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            max_connections_per_uid: MAX_CONNECTIONS_PER_UID,
            max_buffered: MAX_BUFFERED,
            max_user_share: None,
            keep_alive_interval: None,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            timeout: None,
            max_connection_age: None,
            max_connection_age_grace: None,
            concurrency_limit: None,
            load_shed: false,
            on_connect: None,
            observing: ObserverOptions::default(),
            stats: None,
            descriptors: None,
            driver: driver::Options {
                http2: Config { handshake_timeout: HANDSHAKE_TIMEOUT, ..Config::default() },
                ..driver::Options::default()
            },
        }
    }
}

impl ServerConfig {
    /// Returns the limits of what the connections of a server may hold together.
    pub(super) fn memory(&self) -> Arc<Memory> {
        let share = self.max_user_share.unwrap_or(self.max_buffered / USER_SHARE);
        Memory::new(self.max_buffered, share)
    }

    /// Puts the keep-alive options together.
    pub(super) fn ready(mut self) -> Self {
        self.driver.http2.keep_alive = self.keep_alive_interval.map(|interval| KeepAlive {
            interval,
            timeout: self.keep_alive_timeout,
            when_idle: true,
        });
        self
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("policy", &self.policy)
            .field("max_connections", &self.max_connections)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::server::Server;

    #[test]
    fn a_keep_alive_interval_of_zero_is_none() {
        let keep_alive = |interval| {
            let server = Server::new().keep_alive_interval(interval);
            server.options.ready().driver.http2.keep_alive
        };
        assert!(keep_alive(Duration::ZERO).is_none());
        assert!(keep_alive(Duration::from_millis(1)).is_some());
    }
}
