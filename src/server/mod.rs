//! [`Server`]: gRPC services on listeners.

mod calls;
mod connection;
mod error;
mod gate;
mod idle;
mod in_process;
mod incoming;
mod layers;
mod lifecycle;
mod limiter;
mod limits;
mod listeners;
mod mount;
mod notices;
mod options;
mod refusal;
mod routes;
mod serve;
mod setters;
mod stats;

use std::fmt;
use std::future::{self, Future};
use std::io;
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::layer::Layer;

pub use error::{ServeError, ServeErrorKind};
pub use layers::LayeredService;
pub use listeners::Listeners;
pub use mount::Mount;
#[doc(hidden)]
pub use mount::Mounted;
pub use stats::{ServerSnapshot, ServerStats};

pub use crate::grpc::{HttpService, RequestBody};
use crate::grpc::{grpc_failure, http_failure};
use crate::policy::PeerPolicyLayer;
use crate::socket::Listener;
use calls::Calls;
use gate::Gate;
use incoming::{Accepted, StreamIncoming};
use layers::Layers;
use limiter::Limiter;
use mount::{Route, route};
use options::ServerConfig;
use routes::Routes;

/// A gRPC server: its services, such as those that tonic generates, and the options it serves them
/// with.
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
#[derive(Clone)]
pub struct Server {
    services: Vec<Mounted>,
    fallback: Option<Route>,
    /// The fallback for requests that are not gRPC.
    http_fallback: Option<Route>,
    fallback_takes_http: bool,
    layers: Layers,
    method_policy: Option<PeerPolicyLayer>,
    options: ServerConfig,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Returns a server without services.
    pub fn new() -> Self {
        Self {
            services: Vec::new(),
            fallback: None,
            http_fallback: None,
            fallback_takes_http: false,
            layers: Layers::default(),
            method_policy: None,
            options: ServerConfig::default(),
        }
    }

    /// Adds a service. Two services of the same name are an error when the server starts. The
    /// service itself limits the size of its messages (`max_decoding_message_size`; tonic's
    /// defaults are 4 MiB for a received message and no limit for a sent one).
    #[must_use]
    pub fn add_service(mut self, service: impl Mount) -> Self {
        self.services.push(service.mount());
        self
    }

    /// Adds a service if there is one.
    #[must_use]
    pub fn add_optional_service(self, service: Option<impl Mount>) -> Self {
        match service {
            Some(service) => self.add_service(service),
            None => self,
        }
    }

    /// Sets the service that answers calls of services the server does not have; without one they
    /// get UNIMPLEMENTED. It is any tower service of HTTP requests, and runs within the layers. A
    /// second one replaces the first.
    ///
    /// This proxy to another socket knows none of the services behind it:
    ///
    /// ```
    /// use http::Request;
    /// use samehost::tonic::body::Body;
    /// use samehost::{Channel, RequestBody, Server};
    /// use tower::Service;
    ///
    /// fn proxy(to: Channel) -> Server {
    ///     Server::new().fallback(tower::service_fn(move |request: Request<RequestBody>| {
    ///         to.clone().call(request.map(Body::new))
    ///     }))
    /// }
    /// ```
    #[must_use]
    pub fn fallback(mut self, service: impl HttpService<RequestBody>) -> Self {
        self.fallback = Some(route(service.clone(), grpc_failure));
        self.http_fallback = Some(route(service, http_failure));
        self
    }

    /// Sets whether the [`fallback`](Self::fallback) also answers requests that are not gRPC, such
    /// as a GET. Without it they get the HTTP statuses 405 and 415. These requests do not pass
    /// through the layers, which are made for gRPC, and [`timeout`](Self::timeout) does not concern
    /// them; the policy and the limits do. Default: no.
    ///
    /// A [`method_policy`](Self::method_policy) takes a path `/a/b` for the method `b` of the service `a`.
    /// So it can allow `/health/live`, and refuses each path of one part, such as `/healthz`.
    ///
    /// If the fallback fails or panics, or if its response has a status of 1xx, which is not final, such
    /// a request gets the HTTP status 500, without a body. It gets 503 if the fallback is overloaded or
    /// [`load_shed`](Self::load_shed) refuses the request, and 403 if the policy does. If the response's
    /// body fails, or is longer or shorter than its `content-length`, the stream is reset (RST_STREAM), so
    /// the client knows that the body is not complete.
    ///
    /// No body is sent in answer to HEAD, and with the statuses 204, 205 and 304: it is dropped unread.
    #[must_use]
    pub fn fallback_takes_http(mut self, takes: bool) -> Self {
        self.fallback_takes_http = takes;
        self
    }

    /// Wraps all services in a tower layer. The layer added first sees a request first. Each call has a
    /// clone of the layered service, so what a layer keeps and does not share is that call's own.
    #[must_use]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<LayeredService> + Send + Sync + 'static,
        L::Service: HttpService<Body>,
    {
        self.layers.add(layer);
        self
    }

    /// Sets which peers may call which services and methods. A call that is refused gets
    /// PERMISSION_DENIED before any layer sees it, and leaves a log event: see [`PeerPolicyLayer`].
    ///
    /// Default: every connected peer may call everything. A server with a policy does not serve
    /// TCP, nor one whose policy names a method that a service of `samehost-build` does not have. A
    /// second policy replaces the first.
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

    /// Serves until the future is dropped. Then the runtime closes everything and removes the socket files,
    /// when it next runs their tasks.
    ///
    /// # Errors
    ///
    /// See [`Server::serve_with_shutdown`], which also describes cancellation and panics.
    pub async fn serve(self, listeners: impl Into<Listeners>) -> Result<(), ServeError> {
        self.serve_with_shutdown(listeners, future::pending()).await
    }

    /// Serves until `shutdown` completes and the calls in flight have ended.
    ///
    /// At the signal the server first removes its socket files, so that a successor can bind at
    /// once. It still accepts the connections that wait in the queue. It tells each client to open
    /// no further call on its connection (GOAWAY), and lets calls in flight finish. It cuts off
    /// those that have not finished after [`Server::drain_timeout`].
    ///
    /// A successor may take over a listener's socket ([`BindOptions::allow_take_over`]). That
    /// listener is drained in the same way, except that the successor accepts the connections in
    /// its queue. The server returns once successors have taken over all of its listeners.
    ///
    /// [`BindOptions::allow_take_over`]: crate::BindOptions::allow_take_over
    ///
    /// # Errors
    ///
    /// All errors come before a connection is accepted: there is no listener, two services have the
    /// same name, or the policies do not fit an address or the services. See [`ServeErrorKind`]. An
    /// error of one connection, or of accepting one, is logged and does not stop the server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listeners, removes their socket files and cuts off all
    /// connections. Tasks of their own have them, so that happens when the runtime next runs those
    /// tasks, not within the drop. Until then a new bind of the address finds a server that is alive.
    /// A program that goes on ends the server by `shutdown` and awaits this future: nothing is left
    /// when it returns, except a handler that blocks its thread for more than a second. On a runtime of
    /// one thread, `tokio::task::yield_now().await` after the drop lets the tasks end.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with IO and time enabled.
    pub async fn serve_with_shutdown(
        self,
        listeners: impl Into<Listeners>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        self.serve_listeners(listeners.into(), None, shutdown).await
    }

    /// Serves until there has been no connection for `idle`, or until `shutdown` completes. A
    /// connection without a call for `idle` is closed after its client was told (GOAWAY), unless
    /// [`idle_timeout`](Self::idle_timeout) sets another time.
    ///
    /// It is for servers that are started when a client connects ([`Listener::from_systemd`]) and
    /// end when no client needs them. A client that connects while the server ends is still served.
    /// On an inherited socket it waits in the queue for the next server. On a socket that this
    /// server bound, the socket file is removed first, and clients that have connected before are
    /// served.
    ///
    /// # Errors, cancel safety, panics
    ///
    /// They are those of [`serve_with_shutdown`](Self::serve_with_shutdown).
    pub async fn serve_until_idle(
        mut self,
        listeners: impl Into<Listeners>,
        idle: Duration,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        self.options.driver.http2.idle_timeout.get_or_insert(idle);
        self.serve_listeners(listeners.into(), Some(idle), shutdown).await
    }

    async fn serve_listeners(
        self,
        Listeners(listeners): Listeners,
        idle: Option<Duration>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        if listeners.is_empty() {
            return Err(ServeError::new(ServeErrorKind::NoListener));
        }
        for listener in &listeners {
            self.check(listener)?;
        }
        let (calls, options) = self.ready()?;
        serve::serve(calls, options, listeners, idle, shutdown).await;
        Ok(())
    }

    /// Serves a stream of connections that the caller accepts, such as vsock, TLS or pipes in
    /// memory, until `shutdown` completes and the calls in flight have ended. If the stream ends
    /// before, its connections are served until they end. An error of the stream is logged, and the
    /// next connection is asked for after a backoff (5 ms, up to 1 s after several errors).
    ///
    /// Limits and drain are those of [`serve_with_shutdown`](Self::serve_with_shutdown). The peer
    /// of a connection is known only if the connection is a [`Conn`](crate::Conn); a peer policy
    /// refuses all others.
    ///
    /// ```
    /// use samehost::Server;
    /// use tokio::io::DuplexStream;
    /// use tokio::sync::mpsc::Receiver;
    ///
    /// # async fn f(mut pipes: Receiver<DuplexStream>) -> Result<(), samehost::ServeError> {
    /// let incoming = tokio_stream::wrappers::ReceiverStream::new(pipes);
    /// let incoming = tokio_stream::StreamExt::map(incoming, Ok);
    /// Server::new().serve_incoming(incoming, std::future::pending()).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ServeErrorKind::DuplicateService`] if two services have the same name,
    /// [`ServeErrorKind::UnknownMethod`] if the policy of methods names one that is not there.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream and cuts off all connections, when the runtime next runs
    /// their tasks.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with time enabled, and with the panic of the stream if that
    /// panics, which cuts off its connections.
    pub async fn serve_incoming<I, T>(
        self,
        incoming: I,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError>
    where
        I: Stream<Item = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (calls, options) = self.ready()?;
        let incoming = StreamIncoming(Box::pin(incoming));
        serve::serve(calls, options, vec![incoming], None, shutdown).await;
        Ok(())
    }

    /// Serves one connection that is already open, such as one end of a socketpair between a parent
    /// and its child, until the client closes it. Its requests carry the peer's identity only if it
    /// is a [`Conn`](crate::Conn) that a [`Listener`] accepted.
    ///
    /// The server has only this connection, so its limits, such as
    /// [`concurrency_limit`](Self::concurrency_limit), count nothing of clones of the same server.
    /// [`serve_incoming`](Self::serve_incoming) is for connections that share them.
    ///
    /// # Errors
    ///
    /// [`ServeErrorKind::Connection`] if the connection failed, the client does not speak HTTP/2, or
    /// [`on_connect`](Self::on_connect) panicked. [`ServeErrorKind::PeerRefused`] if there is a policy and
    /// it refuses this peer; it refuses each peer that is unknown. The calls of a refused peer are answered
    /// with PERMISSION_DENIED first, as [`peer_policy`](Self::peer_policy) says.
    /// [`ServeErrorKind::DuplicateService`] if two services have the same name,
    /// [`ServeErrorKind::UnknownMethod`] if the policy of methods names one that is not there.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection and ends its calls.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub async fn serve_connection<T>(self, stream: T) -> Result<(), ServeError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (calls, options) = self.ready()?;
        serve::serve_one(calls, Gate::new(options), Accepted::of_stream(stream)).await
    }

    /// Returns why no connection could be served, if there is a reason.
    fn check_services(&self) -> Result<(), ServeError> {
        let names: Vec<_> = self.services.iter().map(|service| service.name).collect();
        if let Some(index) = (1..names.len()).find(|index| names[..*index].contains(&names[*index]))
        {
            return Err(ServeError::duplicate(names[index]));
        }
        for service in &self.services {
            if let (Some(policy), Some(methods)) = (&self.method_policy, service.methods)
                && let Some(unknown) = policy.unknown_method(service.name, methods)
            {
                return Err(ServeError::unknown_method(service.name, unknown, methods));
            }
        }
        Ok(())
    }

    /// Returns an error if the policies need to know peers and the listener does not know them, or
    /// if the address needs a policy and there is none.
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

    /// Returns the calls and options that connections are served with.
    fn ready(self) -> Result<(Calls, ServerConfig), ServeError> {
        self.check_services()?;
        let options = self.options.ready();
        let http = self.http_fallback.filter(|_| self.fallback_takes_http);
        let limit = options.concurrency_limit;
        let routes = Routes::new(self.services, self.fallback);
        let calls = Calls {
            guard: self.method_policy.map(|policy| policy.guard()),
            limiter: limit.map(|limit| Limiter::new(limit, options.load_shed)),
            services: self.layers.around(routes.clone()),
            routes,
            http,
        };
        Ok((calls, options))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("services", &self.services)
            .field("layers", &self.layers)
            .field("method_policy", &self.method_policy)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
