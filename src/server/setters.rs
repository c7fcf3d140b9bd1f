//! The functions that set a [`Server`]'s options.

use std::sync::Arc;
use std::time::Duration;

use http::Extensions;

use super::Server;
use super::stats::ServerStats;
use crate::descriptors::{MAX_PER_CALL, ServerQuotas};
use crate::driver::BusyPoll;
use crate::far::FAR;
use crate::observer::Observer;
use crate::policy::PeerPolicy;
use crate::socket::Peer;

impl Server {
    /// Sets which peers may connect. The policy is asked when a connection is accepted, and sees
    /// the peer's identity at the time when it connected.
    ///
    /// Calls on a refused connection get PERMISSION_DENIED, "refused by the server's policy"; no
    /// layer and no service sees them. Such a connection takes no descriptors: a call with some fails
    /// with FAILED_PRECONDITION before it is sent. The connection is closed after 16 calls or 1 s, and
    /// counts towards [`max_connections`](Self::max_connections). At most 64 refused connections are
    /// answered at a time, 16 of one user; a further one is closed at once (GOAWAY,
    /// ENHANCE_YOUR_CALM). Each refused connection leaves a log event (`tracing`, WARN) with the
    /// peer's user, group and process. At most 100 are logged in a second; the next event has the
    /// number of the others.
    ///
    /// Default: every peer that can connect. On a Unix socket the mode of the socket file decides
    /// that. A server with a policy does not serve TCP, and a server without one does not serve
    /// abstract sockets. A second policy replaces the first. [`method_policy`](Self::method_policy)
    /// sets who may call a service or method.
    #[must_use]
    pub fn peer_policy(mut self, policy: PeerPolicy) -> Self {
        self.options.policy = Some(policy);
        self
    }

    /// Sets how many connections all listeners together may have. Calls on a further connection get
    /// RESOURCE_EXHAUSTED, "too many connections", within the same bounds as those on
    /// [refused](Self::peer_policy) connections. Default 4096.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.options.max_connections = connections;
        self
    }

    /// Sets how many connections one user may have, other than the user that this process runs as.
    /// So no user can keep all others out. Users that are unknown in this process's user namespace
    /// count as one. It has no effect over TCP. Default 256.
    #[must_use]
    pub fn max_connections_per_uid(mut self, connections: usize) -> Self {
        self.options.max_connections_per_uid = connections;
        self
    }

    /// Limits the bytes that this process buffers for all connections together. Counted are
    /// messages that have not arrived in full or are not read yet, calls with their header fields
    /// and unary requests until they are over, and responses that are not written yet, of each
    /// connection that has at least 16 KiB of them. A call counts 4 KiB for itself, and 10 KiB more
    /// while a response of several messages goes on. The process's memory in all may be 1.25 times
    /// this limit and 100 MiB more.
    ///
    /// Above the limit the users that hold most wait. Of the connections of such a user that hold
    /// more than 64 KiB the server reads one at a time, and gives the client room to send for its oldest
    /// request first: so what has begun can finish. It closes one that it reads and whose buffers do
    /// not shrink for 10 s although the client could act, or for 60 s if that holds up all the others
    /// (ENHANCE_YOUR_CALM). Set it to several times the largest message. Default 256 MiB.
    #[must_use]
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.options.max_buffered = bytes;
        self
    }

    /// Limits how many bytes of [`max_buffered_bytes`](Self::max_buffered_bytes) the connections of one
    /// user take, while those of other users take some, too. A user that has more waits as described
    /// there, and the others do not. The user that this process runs as has no such limit. All clients over
    /// TCP are one user. Default: a quarter.
    #[must_use]
    pub fn max_user_share(mut self, bytes: usize) -> Self {
        self.options.max_user_share = Some(bytes);
        self
    }

    /// Sets how long a connection may have no call before it is closed. PINGs do not count as
    /// calls. The client is told first (GOAWAY), so that no call fails, and connects again when it
    /// needs to. A new connection has at least one second for its first call. Default: no limit. Zero
    /// means no limit, too, also for
    /// [`serve_until_idle`](Self::serve_until_idle).
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.driver.http2.idle_timeout =
            Some(if timeout.is_zero() { FAR } else { timeout });
        self
    }

    /// Sends a PING (RFC 9113 §6.7) to a client that has sent nothing for `interval`, and closes
    /// the connection if no answer comes within [`keep_alive_timeout`](Self::keep_alive_timeout).
    /// On one host this finds peers that are stopped or stuck; the end of a peer is noticed at once
    /// anyway. Default: never. Zero means never, too.
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.options.keep_alive_interval = (!interval.is_zero()).then_some(interval);
        self
    }

    /// Sets how long a client may take to answer a keep-alive PING. It has no effect without
    /// [`keep_alive_interval`](Self::keep_alive_interval). Default 20 s.
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.options.keep_alive_timeout = timeout;
        self
    }

    /// Sets how long a client may take from connecting to the end of the handshake (preface,
    /// SETTINGS and the acknowledgement of the server's, RFC 9113 §3.4). A client that takes longer
    /// is told so (GOAWAY, SETTINGS_TIMEOUT), and its connection is closed. While half of
    /// [`max_connections`](Self::max_connections), or half of one user's, are taken, new
    /// connections have at most 5 s. Default 60 s: a client may connect long before it speaks, as a
    /// child process does that is started with one end of a socketpair. `Duration::MAX` means no limit.
    /// Zero does not: it leaves clients no time, and connections are closed before they are served.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.driver.http2.handshake_timeout = timeout;
        self
    }

    /// Sets how many calls a connection may run at a time (SETTINGS_MAX_CONCURRENT_STREAMS, RFC
    /// 9113 §5.1.2). Clients that respect it let further calls wait. Default 256. Zero counts as 1: with
    /// none, each call would wait until its deadline.
    #[must_use]
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.options.driver.http2.max_streams = streams.max(1);
        self
    }

    /// Sets how many bytes of headers a request may have, counted as SETTINGS_MAX_HEADER_LIST_SIZE
    /// counts them (RFC 9113 §6.5.2: name, value and 32 bytes for each field). The server tells
    /// clients this limit. A request that exceeds it gets RESOURCE_EXHAUSTED and reaches no
    /// service; other calls on its connection go on. Default 16 KiB.
    #[must_use]
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.options.driver.http2.max_header_list_size = bytes;
        self
    }

    /// Spends CPU time to answer faster: see [`BusyPoll`]. Default: no busy polling.
    #[must_use]
    pub fn busy_poll(mut self, busy_poll: BusyPoll) -> Self {
        self.options.driver.busy_poll = busy_poll.where_it_helps();
        self
    }

    /// Sets how long a call may take, from its request's head to the end of its response. It is the
    /// deadline of calls that bring none or a later one. A call that takes longer gets
    /// DEADLINE_EXCEEDED, after the messages that wait for the client to read them, and its handler is
    /// dropped. If only the client has yet to read them all, it gets the handler's own status. A message
    /// that has begun is sent to its end, unless its rest has yet to come (from another server, to a
    /// proxy). Default: no limit. Zero does not mean that: it leaves time only to handlers that are ready
    /// at once.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Sets the age at which a connection is closed, ±10 % so that connections that began together
    /// do not end together (gRFC A9). The client is told first (GOAWAY), so that it makes new calls
    /// on another connection and none fails. A client without calls has 5 s to see that, or 0.1 s if the
    /// grace is at most 5 s. Calls in flight may finish within
    /// [`max_connection_age_grace`](Self::max_connection_age_grace). Default: no limit. Zero means no
    /// limit, too.
    #[must_use]
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.options.max_connection_age = (!age.is_zero()).then_some(age);
        self
    }

    /// Sets how long calls in flight may go on after their connection has reached its maximum age,
    /// before it is closed. It has no effect without
    /// [`max_connection_age`](Self::max_connection_age). Default: no limit. Zero cuts them off at once.
    #[must_use]
    pub fn max_connection_age_grace(mut self, grace: Duration) -> Self {
        self.options.max_connection_age_grace = Some(grace);
        self
    }

    /// Sets how many calls all connections together may run at a time. A call runs from its
    /// request's head to the end of its response. A further call waits until its deadline, or
    /// fails: see [`load_shed`](Self::load_shed). Default: no limit but that of each connection
    /// ([`max_concurrent_streams`](Self::max_concurrent_streams)). Zero counts as 1: with none, each call
    /// would wait until its deadline.
    #[must_use]
    pub fn concurrency_limit(mut self, calls: usize) -> Self {
        self.options.concurrency_limit = Some(calls.max(1));
        self
    }

    /// Sets whether a call beyond [`concurrency_limit`](Self::concurrency_limit) fails at once with
    /// RESOURCE_EXHAUSTED instead of waiting. Default: no.
    #[must_use]
    pub fn load_shed(mut self, sheds: bool) -> Self {
        self.options.load_shed = sheds;
        self
    }

    /// Adds an [`Observer`], which is told what happens on the server's connections. Several are
    /// told one after the other. Default: none.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.options.observing.add(observer);
        self
    }

    /// Returns statistics of what the server is doing, which can be read at any time. They count
    /// from now on and cost as much as an [`observer`](Self::observer).
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
        self.options.observing.add(stats.clone());
        self.options.stats = Some(stats.clone());
        stats
    }

    /// Sets whether each call has a span of its own (`tracing`, INFO, "call"), with the field names
    /// of OpenTelemetry's conventions for RPC. Its layers and its handler run within the span. Each
    /// connection always has a span ("connection"). It is not the parent of its calls' spans: a
    /// connection may last for days, and a call's span ends with the call. Default: no.
    #[must_use]
    pub fn trace_calls(mut self, traces: bool) -> Self {
        self.options.observing.trace_calls(traces);
        self
    }

    /// Sets a function that returns the extensions of a connection's requests. It is called once
    /// for each connection, before the first request is read, and not for refused connections. It
    /// must not block. If it panics, the connection is closed. Default: requests carry the peer's
    /// [`PeerIdentity`](crate::PeerIdentity) or [`TcpPeer`](crate::TcpPeer), as they do with such a
    /// function, and nothing else.
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

    /// Takes [`Descriptors`](crate::Descriptors) with calls over Unix sockets, at most
    /// `max_per_call` with one call (no more than 253). A handler finds them among its request's
    /// extensions. It may put some into its response's extensions if the client takes them.
    ///
    /// A quota bounds the descriptors that peers have sent and handlers have not taken yet: a
    /// quarter of the open files that this process may have (RLIMIT_NOFILE), a quarter of that for one
    /// user other than its own, and half of what its user may for one connection. Another one, as large, bounds
    /// those of responses that wait for their clients to read. A call beyond a quota fails with
    /// RESOURCE_EXHAUSTED. Default 0: none are taken, and the kernel refuses to send some.
    ///
    /// A client may send its own end of the connection as a descriptor, which then stays open after
    /// the client has ended. So a client that has sent descriptors and has calls must answer a PING
    /// within 20 s after 60 s of silence, unless [`keep_alive_interval`](Self::keep_alive_interval)
    /// sets other times.
    #[must_use]
    pub fn descriptors(mut self, max_per_call: u8) -> Self {
        self.options.driver.http2.descriptors = max_per_call.min(MAX_PER_CALL as u8);
        self.options.descriptors = (max_per_call > 0).then(ServerQuotas::of_the_process);
        self
    }

    /// Sets how long calls in flight may take to finish after the shutdown signal, before their
    /// connections are closed. Default 10 s; zero cuts them off at once.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }
}
