//! [`Server`]: gRPC services on listeners.

mod calls;
mod error;
mod layers;
mod limits;
mod listeners;
mod mount;
mod routes;
mod serve;

use std::any::Any;
use std::future::{self, Future};
use std::time::Duration;

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::layer::Layer;

pub use error::{ServeError, ServeErrorKind};
pub use layers::LayeredService;
pub use listeners::Listeners;
pub use mount::Mount;
#[doc(hidden)]
pub use mount::Mounted;

use crate::driver::{self, BusyPoll, Memory, Sleeping};
use crate::grpc::Grpc;
pub use crate::grpc::{HttpService, RequestBody};
use crate::http2::KeepAlive;
use crate::policy::{PeerPolicy, PeerPolicyLayer};
use crate::socket::{Conn, Listener};
use calls::Calls;
use layers::Layers;
use limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID};
use routes::Routes;

/// How long calls in flight may take to finish after the shutdown signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections together may make a server hold.
const MAX_BUFFERED: usize = 256 << 20;

/// How long a client may take to answer a keep-alive PING.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A gRPC server: services, such as those that tonic generates, and what they are served with.
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::{Address, Listener, Server};
/// use samehost::ping::{Ping, PingServiceServer};
///
/// let address: Address = "unix:/run/app/ping.sock".parse()?;
/// let listener = Listener::bind(&address).await?;
/// Server::new().add_service(PingServiceServer::new(Ping::default())).serve(listener).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Server {
    services: Vec<Mounted>,
    layers: Layers,
    method_policy: Option<PeerPolicyLayer>,
    options: Options,
}

/// What is set once for all listeners and connections.
#[derive(Clone, Debug)]
struct Options {
    policy: Option<PeerPolicy>,
    drain_timeout: Duration,
    max_connections: usize,
    max_connections_per_uid: usize,
    /// Bytes that all connections together may make it hold.
    max_buffered: usize,
    keep_alive_interval: Option<Duration>,
    keep_alive_timeout: Duration,
    /// Of each connection.
    driver: driver::Options,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server without services.
    pub fn new() -> Self {
        Self {
            services: Vec::new(),
            layers: Layers::default(),
            method_policy: None,
            options: Options {
                policy: None,
                drain_timeout: DRAIN_TIMEOUT,
                max_connections: MAX_CONNECTIONS,
                max_connections_per_uid: MAX_CONNECTIONS_PER_UID,
                max_buffered: MAX_BUFFERED,
                keep_alive_interval: None,
                keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
                driver: driver::Options::default(),
            },
        }
    }

    /// Adds a service. Two of the same name are an error when the server starts. How large a message
    /// may be is set on the service (`max_decoding_message_size`; tonic's default is 4 MiB received,
    /// no limit sent).
    #[must_use]
    pub fn add_service(mut self, service: impl Mount) -> Self {
        self.services.push(service.mount());
        self
    }

    /// Wraps all services in a tower layer. The layer that is added first sees a request first.
    #[must_use]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<LayeredService> + Send + Sync + 'static,
        L::Service: HttpService<Body>,
    {
        self.layers.add(layer);
        self
    }

    /// Which peers may connect. A connection that is refused is closed at once, unread, and leaves a
    /// log event (`tracing`, WARN) with the peer's user, group and process: up to 100 in a second,
    /// the rest is counted. The policy is asked when a connection is accepted and sees who the peer
    /// was when it connected.
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

    /// Which peers may call which services and methods. A call that is refused gets
    /// PERMISSION_DENIED, before any layer sees it, and leaves a log event: see [`PeerPolicyLayer`].
    ///
    /// Default: everybody who is connected may call everything. A server with a policy does not
    /// serve TCP. A second policy replaces the first.
    ///
    /// ```no_run
    /// # #[cfg(feature = "ping")]
    /// # async fn f(listener: samehost::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::ping::{Ping, PingServiceServer};
    /// use samehost::{PeerPolicy, PeerPolicyLayer, Server};
    ///
    /// // Everybody may ping, but only root may watch.
    /// let policy = PeerPolicyLayer::new()
    ///     .service::<PingServiceServer<Ping>>(PeerPolicy::anyone())
    ///     .method::<PingServiceServer<Ping>>("Watch", PeerPolicy::root());
    /// Server::new()
    ///     .method_policy(policy)
    ///     .add_service(PingServiceServer::new(Ping::default()))
    ///     .serve(listener)
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn method_policy(mut self, policy: PeerPolicyLayer) -> Self {
        self.method_policy = Some(policy);
        self
    }

    /// How many connections there may be on all listeners together. One that comes beyond is told
    /// so (GOAWAY, ENHANCE_YOUR_CALM) and closed. Default 4096.
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

    /// How many calls a connection may have running at a time (SETTINGS_MAX_CONCURRENT_STREAMS, RFC
    /// 9113 §5.1.2). Clients that keep to it let further calls wait. Default 256.
    #[must_use]
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.options.driver.http2.max_streams = streams;
        self
    }

    /// Spends CPU time to answer faster: see [`BusyPoll`]. Default: not.
    #[must_use]
    pub fn busy_poll(mut self, busy_poll: BusyPoll) -> Self {
        self.options.driver.busy_poll = busy_poll.where_it_helps();
        self
    }

    /// How long calls in flight may take to finish after the shutdown signal, before their
    /// connections are closed. Default 10 s; zero cuts them off at once.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }

    /// Serves until the future is dropped, which closes everything at once and removes the socket
    /// files.
    ///
    /// # Errors
    ///
    /// See [`Server::serve_with_shutdown`], which also tells of cancellation and panics.
    pub async fn serve(self, listeners: impl Into<Listeners>) -> Result<(), ServeError> {
        self.serve_with_shutdown(listeners, future::pending()).await
    }

    /// Serves until `shutdown` completes and the calls in flight have ended.
    ///
    /// At the signal the socket files go first, so that a successor can bind at once. Connections
    /// that wait in the queue are still accepted; each client is told to open no further call on
    /// its connection (GOAWAY), and calls in flight may finish. What has not after
    /// [`Server::drain_timeout`] is cut off.
    ///
    /// # Errors
    ///
    /// Before anything is accepted: where there is nothing to serve on, two services have one name,
    /// or an address and the policies don't fit together. See [`ServeErrorKind`]. An error of one
    /// connection, or of accepting one, is logged and stops nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it closes the listeners, removes their socket files and cuts off all connections.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn serve_with_shutdown(
        self,
        listeners: impl Into<Listeners>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Listeners(listeners) = listeners.into();
        if listeners.is_empty() {
            return Err(ServeError::new(ServeErrorKind::NoListener));
        }
        for listener in &listeners {
            self.check(listener)?;
        }
        let (calls, options) = self.ready()?;
        serve::serve(calls, options, listeners, shutdown).await;
        Ok(())
    }

    /// Serves one connection that is already open, such as one end of a socketpair between a
    /// parent and its child, until the client closes it. Its requests know who sent them only where
    /// it is a [`Conn`] that a [`Listener`] accepted.
    ///
    /// # Errors
    ///
    /// [`ServeErrorKind::Connection`] where the connection failed, or the client does not speak
    /// HTTP/2. [`ServeErrorKind::PeerRefused`] where there is a policy and it does not let this peer
    /// in, as it lets in none that is unknown. [`ServeErrorKind::DuplicateService`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it closes the connection and with it ends its calls.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn serve_connection<T>(self, stream: T) -> Result<(), ServeError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let conn = (&stream as &dyn Any).downcast_ref::<Conn>();
        if let Some(policy) = &self.options.policy
            && !conn.and_then(Conn::peer_identity).is_some_and(|peer| policy.allows(peer))
        {
            return Err(ServeError::new(ServeErrorKind::PeerRefused));
        }
        let mut extensions = Extensions::new();
        if let Some(peer) = conn.and_then(Conn::peer) {
            peer.add_to(&mut extensions);
        }
        let (calls, options) = self.ready()?;
        let handler = Grpc::new(calls, extensions);
        let memory = Memory::new(options.max_buffered);
        driver::serve(Sleeping(stream), handler, options.driver, memory, future::pending())
            .await
            .map_err(ServeError::connection)
    }

    /// Whether what a listener tells of its peers, and the policies' need of it, fit together.
    fn check(&self, listener: &Listener) -> Result<(), ServeError> {
        let address = listener.local_addr();
        let has_policy = self.options.policy.is_some() || self.method_policy.is_some();
        if !listener.knows_peers() && has_policy {
            return Err(ServeError::at(ServeErrorKind::PolicyOverTcp, address));
        }
        if address.is_unix_abstract() && self.options.policy.is_none() {
            return Err(ServeError::at(ServeErrorKind::NoPolicy, address));
        }
        Ok(())
    }

    /// What connections are served with.
    fn ready(mut self) -> Result<(Calls, Options), ServeError> {
        let names: Vec<_> = self.services.iter().map(|service| service.name).collect();
        if let Some(index) = (1..names.len()).find(|index| names[..*index].contains(&names[*index]))
        {
            return Err(ServeError::duplicate(names[index]));
        }
        self.options.driver.http2.keep_alive = self.options.keep_alive_interval.map(|interval| {
            KeepAlive { interval, timeout: self.options.keep_alive_timeout, when_idle: true }
        });
        let services = self.layers.around(Routes::new(self.services));
        let guard = self.method_policy.map(|policy| policy.guard());
        Ok((Calls { guard, services }, self.options))
    }
}
