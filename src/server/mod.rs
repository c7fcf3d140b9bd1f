//! [`Server`]: gRPC services on listeners.

mod routes;
mod serve;

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{self, Future};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use tower::layer::Layer;
use tower::layer::util::{Identity, Stack};

pub use routes::{RouteFuture, Routes};

use crate::driver;
pub use crate::grpc::GrpcService;
use crate::grpc::{BoxError, Grpc};
use crate::http2::Config;
use crate::socket::{Conn, Listener};

/// How long calls in flight may take to finish after the shutdown signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

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
    drain_timeout: Duration,
    /// Of each connection.
    config: Config,
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
            drain_timeout: DRAIN_TIMEOUT,
            config: Config::default(),
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
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.routes.add(service);
        self
    }

    /// Wraps all services in a tower layer. The layer that is added first sees a request first.
    #[must_use]
    pub fn layer<N>(self, layer: N) -> Server<Stack<N, L>> {
        Server {
            routes: self.routes,
            layer: Stack::new(layer, self.layer),
            drain_timeout: self.drain_timeout,
            config: self.config,
        }
    }

    /// How many calls a connection may have running at a time (SETTINGS_MAX_CONCURRENT_STREAMS, RFC
    /// 9113 §5.1.2). Clients that keep to it let further calls wait. Default 256.
    #[must_use]
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.config.max_streams = streams;
        self
    }

    /// How long calls in flight may take to finish after the shutdown signal, before their
    /// connections are closed. Default 10 s; zero cuts them off at once.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
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
    /// [`ServeError::NoListener`] where there is nothing to serve on. An error of one connection,
    /// or of accepting one, is logged and stops nothing.
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
        let service = self.layer.layer(self.routes);
        serve::serve(service, self.config, listeners, shutdown, self.drain_timeout).await;
        Ok(())
    }

    /// Serves one connection that is already open, such as one end of a socketpair between a
    /// parent and its child, until the client closes it. Its requests know who sent them only where
    /// it is a [`Conn`] that a [`Listener`] accepted.
    ///
    /// # Errors
    ///
    /// [`ServeError::Connection`] where the connection was lost, or the client does not speak
    /// HTTP/2.
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
        let peer = (&stream as &dyn Any).downcast_ref::<Conn>().and_then(Conn::peer).cloned();
        let handler = Grpc::new(self.layer.layer(self.routes), peer);
        driver::serve(stream, handler, self.config, future::pending())
            .await
            .map_err(|lost| ServeError::Connection { source: lost.into() })
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
            Self::Connection { source } => write!(f, "the connection failed: {source}"),
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoListener => None,
            Self::Connection { source } => Some(&**source),
        }
    }
}
