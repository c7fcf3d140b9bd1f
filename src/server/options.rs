//! [`Options`]: what is set once for all listeners and connections of a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;

use super::Server;
use super::limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID};
use super::stats::ServerStats;
use crate::descriptors::{MAX_PER_CALL, Quotas};
use crate::driver::{self, BusyPoll};
use crate::http2::{Config, KeepAlive};
use crate::observer::{Observer, Observers};
use crate::policy::PeerPolicy;
use crate::socket::Peer;

/// How long calls in flight may take to finish after the shutdown signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections together may make a server hold.
const MAX_BUFFERED: usize = 256 << 20;

/// How long a client may take to speak HTTP/2, while there are permits enough.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take to answer a keep-alive PING.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a handshake may take while more than half of the permits are taken, so that silent peers
/// do not hold the rest.
pub(super) const SCARCE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type OnConnect = dyn Fn(&Peer) -> Extensions + Send + Sync;

/// What is set once for all listeners and connections.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) policy: Option<PeerPolicy>,
    pub(super) drain_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_uid: usize,
    /// Bytes that all connections together may make it hold.
    pub(super) max_buffered: usize,
    pub(super) keep_alive_interval: Option<Duration>,
    pub(super) keep_alive_timeout: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) max_connection_age: Option<Duration>,
    pub(super) max_connection_age_grace: Option<Duration>,
    pub(super) concurrency_limit: Option<usize>,
    pub(super) load_shed: bool,
    pub(super) on_connect: Option<Arc<OnConnect>>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) stats: Option<ServerStats>,
    pub(super) traces_calls: bool,
    /// Set where peers may send descriptors.
    pub(super) descriptors: Option<Arc<Quotas>>,
    /// Of each connection.
    pub(super) driver: driver::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: None,
            drain_timeout: DRAIN_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            max_connections_per_uid: MAX_CONNECTIONS_PER_UID,
            max_buffered: MAX_BUFFERED,
            keep_alive_interval: None,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            timeout: None,
            max_connection_age: None,
            max_connection_age_grace: None,
            concurrency_limit: None,
            load_shed: false,
            on_connect: None,
            observers: Vec::new(),
            stats: None,
            traces_calls: false,
            descriptors: None,
            driver: driver::Options {
                http2: Config { handshake_timeout: HANDSHAKE_TIMEOUT, ..Config::default() },
                ..driver::Options::default()
            },
        }
    }
}

impl Options {
    pub(super) fn observers(&self) -> Option<Observers> {
        Observers::new(self.observers.clone(), self.traces_calls)
    }

    /// With what was set in parts put together.
    pub(super) fn ready(mut self) -> Self {
        self.driver.http2.keep_alive = self.keep_alive_interval.map(|interval| KeepAlive {
            interval,
            timeout: self.keep_alive_timeout,
            when_idle: true,
        });
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("policy", &self.policy)
            .field("max_connections", &self.max_connections)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What connections and calls are allowed.
impl Server {
    /// Which peers may connect. Calls on a connection that is refused get PERMISSION_DENIED,
    /// "refused by the server's policy"; no layer and no service sees them. Such a connection is closed
    /// after 16 calls or 1 s, and counts as one of [`max_connections`](Self::max_connections); at most 64
    /// are answered at a time, 16 of one user, and one that comes beyond is closed at once (GOAWAY,
    /// ENHANCE_YOUR_CALM). Each leaves a log event (`tracing`, WARN) with the peer's user, group and
    /// process: up to 100 in a second, the rest is counted. The policy is asked when a connection is
    /// accepted and sees who the peer was when it connected.
    ///
    /// Default: everybody who can connect, which on a Unix socket its file's mode decides. A server
    /// with a policy does not serve TCP, and one without does not serve abstract sockets. A second
    /// policy replaces the first. What one service or method needs is
    /// [`method_policy`](Self::method_policy)'s.
    #[must_use]
    pub fn peer_policy(mut self, policy: PeerPolicy) -> Self {
        self.options.policy = Some(policy);
        self
    }

    /// How many connections there may be on all listeners together. Calls on one that comes beyond get
    /// RESOURCE_EXHAUSTED, "too many connections", as long and as often as
    /// [refused](Self::peer_policy) ones are answered. Default 4096.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.options.max_connections = connections;
        self
    }

    /// How many of them may be of one user other than the one that this process runs as, so that
    /// none can keep all others out. Users that this process's user namespace does not know count as
    /// one. Of no effect on TCP. Default 256.
    #[must_use]
    pub fn max_connections_per_uid(mut self, connections: usize) -> Self {
        self.options.max_connections_per_uid = connections;
        self
    }

    /// How many bytes all connections together may make this process buffer: of messages that have
    /// not arrived in full or are not read yet, and of responses that are not written yet, as far as
    /// a connection has 16 KiB of them. A message that a handler has is its own. While there are
    /// more, and up to a quarter more, one such connection is read from at a time; any of them that
    /// gets rid of nothing for 10 s is closed (ENHANCE_YOUR_CALM). It has to be several times the
    /// largest message. Default 256 MiB.
    #[must_use]
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.options.max_buffered = bytes;
        self
    }

    /// How long a connection may have no call before it is closed, PINGs or not. The client is told
    /// first (GOAWAY), so that no call fails, and connects again when it needs to. Default: without
    /// end.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.driver.http2.idle_timeout = Some(timeout);
        self
    }

    /// Sends a PING (RFC 9113 §6.7) to a client that has sent nothing for `interval`, and closes the
    /// connection where no answer comes within [`keep_alive_timeout`](Self::keep_alive_timeout). On
    /// one host it finds peers that are stopped or stuck; one that has ended is noticed at once
    /// anyway. Default: never.
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.options.keep_alive_interval = Some(interval);
        self
    }

    /// How long a client may take to answer such a PING. Of no effect without
    /// [`keep_alive_interval`](Self::keep_alive_interval). Default 20 s.
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.options.keep_alive_timeout = timeout;
        self
    }

    /// How long a client may take from its connection to the end of the handshake (preface, SETTINGS
    /// and the acknowledgement of the server's, RFC 9113 §3.4). One that takes longer is told so
    /// (GOAWAY, SETTINGS_TIMEOUT) and closed. As soon as half of
    /// [`max_connections`](Self::max_connections), or half of what one user may have, are taken, new
    /// connections have at most 5 s. Default 60 s: a client may connect long before it speaks, as a
    /// child does that is started with one end of a socketpair.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.driver.http2.handshake_timeout = timeout;
        self
    }

    /// How many calls a connection may have running at a time (SETTINGS_MAX_CONCURRENT_STREAMS, RFC
    /// 9113 §5.1.2). Clients that keep to it let further calls wait. Default 256.
    #[must_use]
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.options.driver.http2.max_streams = streams;
        self
    }

    /// Sets how many bytes of headers a request may have, counted as SETTINGS_MAX_HEADER_LIST_SIZE
    /// counts them (RFC 9113 §6.5.2: name, value and 32 for each field). It is told to clients. A
    /// request that exceeds it is answered with RESOURCE_EXHAUSTED and reaches no service; other calls
    /// on its connection go on. Default 16 KiB.
    #[must_use]
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.options.driver.http2.max_header_list_size = bytes;
        self
    }

    /// Spends CPU time to answer faster: see [`BusyPoll`]. Default: not.
    #[must_use]
    pub fn busy_poll(mut self, busy_poll: BusyPoll) -> Self {
        self.options.driver.busy_poll = busy_poll.where_it_helps();
        self
    }

    /// The longest that a call may take, from its request's head to the end of its response: the deadline
    /// of calls that bring none, and of those that bring a later one. A call that takes longer gets
    /// DEADLINE_EXCEEDED, and its handler is dropped. Default: none.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How old a connection may become, ±10 % so that connections which began together do not end
    /// together (gRFC A9). The client is told first (GOAWAY), so that it makes new calls on another
    /// connection and none fails; calls in flight may finish, within
    /// [`max_connection_age_grace`](Self::max_connection_age_grace). Default: without end.
    #[must_use]
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.options.max_connection_age = Some(age);
        self
    }

    /// How long calls in flight may take on a connection that has become too old, before it is closed.
    /// Of no effect without [`max_connection_age`](Self::max_connection_age). Default: without end.
    #[must_use]
    pub fn max_connection_age_grace(mut self, grace: Duration) -> Self {
        self.options.max_connection_age_grace = Some(grace);
        self
    }

    /// How many calls all connections together may have running: a call runs from its request's head to
    /// the end of its response. What comes beyond waits, each as long as its deadline lets it, or fails:
    /// see [`load_shed`](Self::load_shed). Default: no limit but that of each connection
    /// ([`max_concurrent_streams`](Self::max_concurrent_streams)).
    #[must_use]
    pub fn concurrency_limit(mut self, calls: usize) -> Self {
        self.options.concurrency_limit = Some(calls);
        self
    }

    /// Whether a call beyond [`concurrency_limit`](Self::concurrency_limit) fails at once, with
    /// RESOURCE_EXHAUSTED, instead of waiting. Default: no.
    #[must_use]
    pub fn load_shed(mut self, sheds: bool) -> Self {
        self.options.load_shed = sheds;
        self
    }

    /// Tells an [`Observer`] what happens on the server's connections. Several are told one after the
    /// other. Default: nobody.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.options.observers.push(Arc::new(observer));
        self
    }

    /// What tells, at any time, what the server is doing. It counts from now on, at the cost of an
    /// [`observer`](Self::observer).
    ///
    /// ```
    /// # let mut server = samehost::Server::new();
    /// let stats = server.stats();
    /// // Once it serves:
    /// println!("{} connections", stats.snapshot().connections());
    /// ```
    pub fn stats(&mut self) -> ServerStats {
        if let Some(stats) = &self.options.stats {
            return stats.clone();
        }
        let stats = ServerStats::default();
        self.options.observers.push(Arc::new(stats.clone()));
        self.options.stats = Some(stats.clone());
        stats
    }

    /// Whether each call has a span of its own (`tracing`, INFO, "call") with the field names of
    /// OpenTelemetry's conventions for RPC, within which its layers and its handler run. Each connection
    /// has a span ("connection") anyway, which is not the parent of its calls: those last no longer than
    /// they do, and a connection may last for days. Default: no.
    #[must_use]
    pub fn trace_calls(mut self, traces: bool) -> Self {
        self.options.traces_calls = traces;
        self
    }

    /// Is asked once for each connection what its requests have among their extensions, before the first
    /// of them is read. It must not block. One that panics has its connection closed. Default: nothing
    /// but the peer's [`PeerIdentity`](crate::PeerIdentity) or [`TcpPeer`](crate::TcpPeer), which each
    /// request has anyway. Refused connections are not asked about.
    ///
    /// ```
    /// use samehost::{Peer, Server};
    /// use tonic::Request;
    ///
    /// #[derive(Clone)]
    /// struct IsRoot(bool);
    ///
    /// let server = Server::new().on_connect(|peer| {
    ///     let mut extensions = http::Extensions::new();
    ///     let uid = peer.identity().map(|identity| identity.uid());
    ///     extensions.insert(IsRoot(uid == Some(0)));
    ///     extensions
    /// });
    ///
    /// fn handler(request: Request<()>) -> bool {
    ///     request.extensions().get::<IsRoot>().is_some_and(|is_root| is_root.0)
    /// }
    /// ```
    #[must_use]
    pub fn on_connect(
        mut self,
        on_connect: impl Fn(&Peer) -> Extensions + Send + Sync + 'static,
    ) -> Self {
        self.options.on_connect = Some(Arc::new(on_connect));
        self
    }

    /// Takes [`Descriptors`](crate::Descriptors) with calls over Unix sockets, at most `max_per_call`
    /// with one (253 are possible). A handler finds them among its request's extensions, and may put
    /// some into its response's where the client takes them.
    ///
    /// What peers have sent and handlers have not taken yet is at most a quarter of what this process may
    /// have open (RLIMIT_NOFILE), and a quarter of that for one user other than its own; a call beyond
    /// fails with RESOURCE_EXHAUSTED. Default 0: none are taken, and whoever sends some is refused by the
    /// kernel.
    #[must_use]
    pub fn descriptors(mut self, max_per_call: u8) -> Self {
        self.options.driver.http2.descriptors = max_per_call.min(MAX_PER_CALL as u8);
        self.options.descriptors = (max_per_call > 0).then(Quotas::of_the_process);
        self
    }

    /// How long calls in flight may take to finish after the shutdown signal, before their
    /// connections are closed. Default 10 s; zero cuts them off at once.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }
}
