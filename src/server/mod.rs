//! [`Server`]: gRPC services on listeners.

mod limits;
mod routes;
mod serve;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::{self, Future};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::server::NamedService;
use tower::layer::Layer;
use tower::layer::util::{Identity, Stack};

pub use routes::{RouteFuture, Routes};

use crate::address::Address;
use crate::driver::{self, BusyPoll, Memory, Sleeping};
pub use crate::grpc::GrpcService;
use crate::grpc::{BoxError, Grpc};
use crate::http2::KeepAlive;
use crate::policy::{PeerPolicy, PeerPolicyLayer};
use crate::socket::{Conn, Listener};
use limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID};

/// How long calls in flight may take to finish after the shutdown signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections together may make a server hold.
const MAX_BUFFERED: usize = 256 << 20;

/// A gRPC server: services that tonic generated, and what they are served with.
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
pub struct Server<L = Identity> {
    routes: Routes,
    layer: L,
    options: Options,
}

/// What is set once for all listeners and connections.
#[derive(Clone, Debug)]
struct Options {
    policy: Option<PeerPolicy>,
    /// Some layer asks who the peer is.
    layer_has_policy: bool,
    drain_timeout: Duration,
    max_connections: usize,
    max_connections_per_uid: usize,
    /// Octets that all connections together may make it hold.
    max_buffered: usize,
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
            routes: Routes::default(),
            layer: Identity::new(),
            options: Options {
                policy: None,
                layer_has_policy: false,
                drain_timeout: DRAIN_TIMEOUT,
                max_connections: MAX_CONNECTIONS,
                max_connections_per_uid: MAX_CONNECTIONS_PER_UID,
                max_buffered: MAX_BUFFERED,
                driver: driver::Options::default(),
            },
        }
    }
}

impl<L> Server<L> {
    /// Adds a service. A second one of the same name replaces the first. How large a message may be
    /// is set on the service (`max_decoding_message_size`; tonic's default is 4 MiB received, no
    /// limit sent).
    #[must_use]
    pub fn add_service<S, B>(mut self, service: S) -> Self
    where
        S: GrpcService<B> + NamedService + Sync,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.routes.add(service);
        self
    }

    /// Wraps all services in a tower layer. The layer that is added first sees a request first.
    #[must_use]
    pub fn layer<N: 'static>(mut self, layer: N) -> Server<Stack<N, L>> {
        self.options.layer_has_policy |= (&layer as &dyn Any).is::<PeerPolicyLayer>();
        let layer = Stack::new(layer, self.layer);
        Server { routes: self.routes, layer, options: self.options }
    }

    /// Which peers may connect. A connection that is refused is closed at once, unread, and leaves a
    /// log event (`tracing`, WARN) with the peer's user, group and process: up to 100 in a second,
    /// the rest is counted. The policy is asked when a connection is accepted and sees who the peer
    /// was when it connected.
    ///
    /// Default: everybody who can connect, which on a Unix socket its file's mode decides. A server
    /// with a policy does not serve TCP, and one without does not serve abstract sockets. A second
    /// policy replaces the first. What one service or method needs is a [`PeerPolicyLayer`]'s.
    #[must_use]
    pub fn peer_policy(mut self, policy: PeerPolicy) -> Self {
        self.options.policy = Some(policy);
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

    /// How many octets all connections together may make this process buffer: of messages that have
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
    /// first (GOAWAY), so that no call is lost, and connects again when it needs to. Default: without
    /// end.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.driver.http2.idle_timeout = Some(timeout);
        self
    }

    /// Asks a client that was not heard of for `interval` for a sign (PING, RFC 9113 §6.7), and
    /// closes the connection where none comes within `timeout`. On one host it finds peers that are
    /// stopped or stuck; one that has ended is noticed at once anyway. Default: never.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.options.driver.http2.keep_alive =
            Some(KeepAlive { interval, timeout, when_idle: true });
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
    pub async fn serve<B>(self, listeners: impl Into<Listeners>) -> Result<(), ServeError>
    where
        L: Layer<Routes>,
        L::Service: GrpcService<B>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
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
    /// Before anything is accepted, where there is nothing to serve on, or an address and the
    /// policies don't fit together: see [`ServeError`]. An error of one connection, or of accepting
    /// one, is logged and stops nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it closes the listeners, removes their socket files and cuts off all connections.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn serve_with_shutdown<B>(
        self,
        listeners: impl Into<Listeners>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError>
    where
        L: Layer<Routes>,
        L::Service: GrpcService<B>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Listeners(listeners) = listeners.into();
        if listeners.is_empty() {
            return Err(ServeError::NoListener);
        }
        for listener in &listeners {
            self.options.check(listener)?;
        }
        let service = self.layer.layer(self.routes);
        serve::serve(service, self.options, listeners, shutdown).await;
        Ok(())
    }

    /// Serves one connection that is already open, such as one end of a socketpair between a
    /// parent and its child, until the client closes it. Its requests know who sent them only where
    /// it is a [`Conn`] that a [`Listener`] accepted.
    ///
    /// # Errors
    ///
    /// [`ServeError::Connection`] where the connection was lost, or the client does not speak
    /// HTTP/2. [`ServeError::PeerRefused`] where there is a policy and it does not let this peer in,
    /// as it lets in none that is unknown.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it closes the connection and with it ends its calls.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn serve_connection<B, T>(self, stream: T) -> Result<(), ServeError>
    where
        L: Layer<Routes>,
        L::Service: GrpcService<B>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let conn = (&stream as &dyn Any).downcast_ref::<Conn>();
        if let Some(policy) = &self.options.policy
            && !conn.and_then(Conn::peer_identity).is_some_and(|peer| policy.allows(peer))
        {
            return Err(ServeError::PeerRefused);
        }
        let handler = Grpc::new(self.layer.layer(self.routes), conn.and_then(Conn::peer));
        let memory = Memory::new(self.options.max_buffered);
        driver::serve(Sleeping(stream), handler, self.options.driver, memory, future::pending())
            .await
            .map_err(|lost| ServeError::Connection { source: lost.into() })
    }
}

impl Options {
    /// Whether what a listener tells of its peers, and the policies' need of it, fit together.
    fn check(&self, listener: &Listener) -> Result<(), ServeError> {
        let address = listener.local_addr();
        if !listener.knows_peers() && (self.policy.is_some() || self.layer_has_policy) {
            return Err(ServeError::PolicyOverTcp { address: address.clone() });
        }
        if address.is_unix_abstract() && self.policy.is_none() {
            return Err(ServeError::NoPolicy { address: address.clone() });
        }
        Ok(())
    }
}

/// One listener or several, for [`Server::serve`].
#[derive(Debug)]
pub struct Listeners(Vec<Listener>);

impl From<Listener> for Listeners {
    fn from(listener: Listener) -> Self {
        Self(vec![listener])
    }
}

impl From<Vec<Listener>> for Listeners {
    fn from(listeners: Vec<Listener>) -> Self {
        Self(listeners)
    }
}

impl<const N: usize> From<[Listener; N]> for Listeners {
    fn from(listeners: [Listener; N]) -> Self {
        Self(listeners.into())
    }
}

/// Why a server could not serve.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// No listener was given.
    NoListener,
    /// There is a peer policy, and TCP does not tell who its peers are.
    PolicyOverTcp {
        /// The TCP address.
        address: Address,
    },
    /// An abstract socket has no file whose mode could keep anybody out, and there is no policy for
    /// the whole server ([`Server::peer_policy`]).
    NoPolicy {
        /// The abstract address.
        address: Address,
    },
    /// The policy does not let in the peer of the one connection to serve, or there is no telling
    /// who that is.
    PeerRefused,
    /// The one connection to serve failed.
    Connection {
        /// The cause.
        source: BoxError,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListener => f.write_str("nothing to serve on: give at least one listener"),
            Self::PolicyOverTcp { address } => write!(
                f,
                "{address}: a peer policy cannot hold over TCP, which does not tell who connects: \
                 use a Unix socket or serve without the policy"
            ),
            Self::NoPolicy { address } => write!(
                f,
                "{address}: every process of this network namespace could connect to an abstract \
                 socket: set a peer policy or use a path, such as unix:/run/app.sock"
            ),
            Self::PeerRefused => f.write_str("the policy does not let this connection's peer in"),
            Self::Connection { source } => write!(f, "the connection failed: {source}"),
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoListener
            | Self::PolicyOverTcp { .. }
            | Self::NoPolicy { .. }
            | Self::PeerRefused => None,
            Self::Connection { source } => Some(&**source),
        }
    }
}
