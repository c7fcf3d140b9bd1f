//! gRPC between processes on the same host, over Unix domain sockets.
//!
//! A service written for [tonic](https://docs.rs/tonic) runs unchanged. What is here is everything below
//! its trait: the stubs, gRPC's rules, the HTTP/2 connection ([`Server`], [`Channel`]), the socket and its
//! file ([`Listener`]), and who is at the other end ([`PeerIdentity`]). One string picks the transport:
//! `unix:/run/app.sock` or `127.0.0.1:50051` ([`Address`]). Clients of any language connect with their
//! defaults.
//!
//! # A service of one's own
//!
//! `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! samehost = "0.1"
//! prost = "0.14"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//!
//! [build-dependencies]
//! samehost-build = "0.1"
//! ```
//!
//! `build.rs`, which needs no `protoc`:
//!
//! ```ignore
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     samehost_build::compile(&["proto/greeter.proto"], &["proto"])
//! }
//! ```
//!
//! `src/main.rs` includes what that made by [`include_proto!`]. The names and signatures are those of
//! tonic's generator, and tonic itself is `samehost::tonic`:
//!
//! ```ignore
//! use samehost::tonic::{Request, Response, Status};
//!
//! mod greeter {
//!     samehost::include_proto!("greeter.v1");
//! }
//! ```
//!
//! The stubs of `tonic_prost_build` work as well, with `build_transport(false)`. They cost about twice the
//! CPU time.
//!
//! # A server and a client
//!
//! Here and below with the Ping service of the feature `ping`; a service of one's own takes its place.
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{Ping, PingServiceServer};
//! use samehost::{Listener, Server};
//!
//! let listener = Listener::bind("unix:/run/ping.sock").await?;
//! Server::new()
//!     .add_service(PingServiceServer::new(Ping::default()))
//!     .serve(listener)
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{PingRequest, PingServiceClient};
//!
//! let mut client = PingServiceClient::connect("unix:/run/ping.sock").await?;
//! let response = client.ping(PingRequest::ping()).await?;
//! assert_eq!(response.into_inner().message, "pong");
//! # Ok(()) }
//! ```
//!
//! # Shutdown by a signal
//!
//! The socket file goes first, so that a successor can bind at once. Calls in flight may finish
//! ([`Server::drain_timeout`]).
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! # use samehost::ping::{Ping, PingServiceServer};
//! # use samehost::{Listener, Server};
//! use tokio::signal::unix::{SignalKind, signal};
//!
//! let mut terminated = signal(SignalKind::terminate())?;
//! let listener = Listener::bind("unix:/run/ping.sock").await?;
//! Server::new()
//!     .add_service(PingServiceServer::new(Ping::default()))
//!     .serve_with_shutdown(listener, async move {
//!         terminated.recv().await;
//!     })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # A restart that loses no call
//!
//! Each new process takes the listening socket over from the one before it, which then drains. Nothing
//! changes on disk, and no client notices. Bind last: from then on the new process is the server.
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! # use samehost::ping::{Ping, PingServiceServer};
//! # use samehost::Server;
//! use samehost::BindOptions;
//!
//! let options = BindOptions::new().take_over(true).allow_take_over(true);
//! let listener = options.bind("unix:/run/ping.sock").await?;
//! // Returns after a successor has taken over and the calls in flight have ended.
//! Server::new()
//!     .add_service(PingServiceServer::new(Ping::default()))
//!     .serve(listener)
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # Started by systemd
//!
//! With a socket unit, systemd keeps the socket while no server runs: the first client starts the server,
//! and later ones wait in the queue during a restart.
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! # use samehost::ping::{Ping, PingServiceServer};
//! use std::time::Duration;
//!
//! use samehost::{Listener, Server};
//!
//! let (_name, listener) = Listener::from_systemd()?.pop().ok_or("started without a socket unit")?;
//! Server::new()
//!     .add_service(PingServiceServer::new(Ping::default()))
//!     .serve_until_idle(listener, Duration::from_secs(60), std::future::pending())
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # Between a parent and its child
//!
//! No address at all: one end of a socketpair(2) each.
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{Ping, PingServiceClient, PingServiceServer};
//! use samehost::{Channel, Server};
//! use tokio::net::UnixStream;
//!
//! let (parent, child) = UnixStream::pair()?;
//! let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
//! tokio::spawn(server.serve_connection(child));
//! let client = PingServiceClient::new(Channel::from_stream(parent));
//! # let _ = client;
//! # Ok(()) }
//! ```
//!
//! # Health and reflection
//!
//! By the crates `tonic-health` and `tonic-reflection`. `samehost_build::configure()` writes the file that
//! reflection hands out (`file_descriptor_set_path`).
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{FILE_DESCRIPTOR_SET, Ping, PingServiceServer};
//! use samehost::{Listener, Server};
//!
//! let (health, health_service) = tonic_health::server::health_reporter();
//! health.set_serving::<PingServiceServer<Ping>>().await;
//! let reflection = tonic_reflection::server::Builder::configure()
//!     .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
//!     .build_v1()?;
//! Server::new()
//!     .add_service(health_service)
//!     .add_service(reflection)
//!     .add_service(PingServiceServer::new(Ping::default()))
//!     .serve(Listener::bind("unix:/run/ping.sock").await?)
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # Layers
//!
//! Any tower layer of HTTP requests goes around all services, and any tower layer goes around a channel. A
//! server with layers answers unary calls by HTTP requests, as tonic does, which costs CPU time.
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{Ping, PingServiceClient, PingServiceServer};
//! use samehost::{Channel, Listener, Server};
//! use tower::ServiceBuilder;
//! use tower::limit::GlobalConcurrencyLimitLayer;
//!
//! let server = Server::new()
//!     .layer(GlobalConcurrencyLimitLayer::new(64))
//!     .add_service(PingServiceServer::new(Ping::default()));
//! server.serve(Listener::bind("unix:/run/ping.sock").await?).await?;
//!
//! let channel = Channel::connect("unix:/run/ping.sock").await?;
//! let client = PingServiceClient::new(ServiceBuilder::new().concurrency_limit(8).service(channel));
//! # let _ = client;
//! # Ok(()) }
//! ```
//!
//! # Waiting for a server, and trying again
//!
//! What no server has processed is sent again by itself. More is a matter of the channel's options, or of
//! one call's extension [`WaitForReady`].
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use samehost::ping::{PingRequest, PingServiceClient};
//! use samehost::tonic::Code;
//! use samehost::{Channel, RetryPolicy};
//!
//! let retries = RetryPolicy::new()
//!     .max_attempts(3)
//!     .backoff(Duration::from_millis(10), Duration::from_secs(1))
//!     .codes([Code::Unavailable]);
//! let channel = Channel::builder("unix:/run/ping.sock")
//!     .wait_for_ready(true) // a call waits until there is a server,
//!     .timeout(Duration::from_secs(5)) // for as long as its deadline allows,
//!     .retry(retries) // and is made again if it fails so
//!     .connect_lazy();
//! let response = PingServiceClient::new(channel).ping(PingRequest::ping()).await?;
//! # let _ = response;
//! # Ok(()) }
//! ```
//!
//! # Who is calling
//!
//! Each request over a Unix socket has a [`PeerIdentity`] among its extensions: the user, groups and
//! process at the other end, as the kernel vouches for them. A [`PeerPolicy`] decides by it who may
//! connect ([`Server::peer_policy`]), who may call what ([`Server::method_policy`]), and which server a
//! client talks to ([`ChannelBuilder::require_server`]).
//!
//! # Features
//!
//! None is on by default.
//!
//! - `gzip`, `deflate`, `zstd`: compression of messages, on either kind of stub. Ours take windows of
//!   zstd of up to 8 MiB, or of the limit of a received message if that is larger. A message that is
//!   compressed at a level above 19 may have a larger one.
//! - `metrics`: an [`Observer`] that feeds the `metrics` facade under OpenTelemetry's names.
//! - `ping`: the Ping service in `samehost::ping`, which the command, the examples and the tests
//!   use.
//! - `serde`: an [`Address`] in configuration files, as its string.
//! - `tonic-transport`: for those who stay on tonic's own transport, the [`Listener`] as the stream
//!   of connections that its server takes, and a `Connector` for its client. It brings hyper and h2.
//!
//! # Runtime
//!
//! Everything runs on the caller's tokio runtime, current-thread or multi-thread, which needs IO and
//! time enabled (`enable_all`). What binds, connects or serves panics outside of one. Only the client
//! in [`blocking`] needs none.
//!
//! The runtime whose call opens a channel's connection drives it, for the calls of all others, too. They
//! wait while nothing runs that runtime, and fail if it is shut down. The next call opens another
//! connection.
//!
//! # Platforms
//!
//! Linux only. Where a team also checks its code on other systems, the dependency stands under
//! `[target.'cfg(target_os = "linux")'.dependencies]`, and `#[cfg(target_os = "linux")]` before what
//! uses it.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "samehost runs on Linux only. Where a team also checks its code on other systems, write the \
     dependency as `[target.'cfg(target_os = \"linux\")'.dependencies] samehost = ...` and put \
     `#[cfg(target_os = \"linux\")]` before what uses it"
);

// Generated code names the crate so, the Ping service's own stubs, too.
#[cfg(feature = "ping")]
extern crate self as samehost;

mod address;
mod backoff;
pub mod blocking;
mod client;
mod descriptors;
mod driver;
mod far;
#[cfg(fuzzing)]
#[doc(hidden)]
#[allow(missing_docs, reason = "not for users")]
pub mod fuzzing;
mod grpc;
mod http2;
#[cfg(feature = "metrics")]
mod metrics;
mod observer;
#[cfg(feature = "ping")]
pub mod ping;
mod policy;
mod runtime;
mod sealed_memory;
mod server;
mod socket;
mod stubs;
mod throttle;
#[cfg(feature = "tonic-transport")]
mod transport;

#[doc(hidden)]
pub mod codegen {
    //! What code that `samehost-build` generates names. Not for others: it changes without notice.

    pub use bytes::Bytes;
    pub use http;
    pub use http_body::Body;
    pub use tonic::codec::CompressionEncoding;
    pub use tonic::codegen::tokio_stream::Stream;
    pub use tonic::codegen::{BoxFuture, BoxStream, InterceptedService, StdError};
    pub use tower::Service;

    pub use crate::server::{Mount, Mounted};
    pub use crate::stubs::{
        AnyBody, Bound, Call, Client, ClientOptions, Method, Methods, ServerOptions, call, connect,
        mount,
    };
}

/// Includes what `samehost_build` generated for a proto package.
///
/// ```ignore
/// mod greeter {
///     samehost::include_proto!("greeter.v1");
/// }
/// ```
///
/// The name is that of the file in `OUT_DIR`: a part of the package that is a keyword of Rust is
/// written with `r#`. For the package `type.match.v1`:
///
/// ```ignore
/// samehost::include_proto!("r#type.r#match.v1");
/// ```
///
/// A file without a package is `"_"`.
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

pub use address::{Address, AddressParseError, AddressParseErrorKind};
pub use client::{
    Addresses, Channel, ChannelBuilder, ChannelSnapshot, ChannelState, ChannelStats, ResponseBody,
    ResponseFuture, RetryPolicy, WaitForReady,
};
pub use descriptors::Descriptors;
pub use driver::BusyPoll;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use observer::{
    CallEnd, CallInfo, ConnectionInfo, Event, GoAwayReason, Observer, RefusalReason, Side,
};
pub use policy::{PeerPolicy, PeerPolicyFuture, PeerPolicyLayer, PeerPolicyService};
pub use sealed_memory::{
    MappedMemory, SealedMemory, SealedMemoryError, SealedMemoryErrorKind, SealedMemoryWriter,
};
#[doc(hidden)]
pub use server::Mounted;
pub use server::{
    HttpService, LayeredService, Listeners, Mount, RequestBody, ServeError, ServeErrorKind, Server,
    ServerSnapshot, ServerStats,
};
pub use socket::{
    BindError, BindErrorKind, BindOptions, Conn, ConnectError, ConnectErrorKind, Group,
    InheritError, InheritErrorKind, Listener, ListenerParts, Peer, PeerIdentity, TcpPeer,
};
/// The tonic that this crate is built with: its `Request`, `Response` and `Status` are those of the
/// services.
pub use tonic;
#[cfg(feature = "tonic-transport")]
pub use transport::{ConnectInfo, Connecting, Connector};

/// The programs of the README and the documents, compiled with the documentation tests.
#[cfg(all(doctest, feature = "ping"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/who-is-calling.md")]
struct Readme;
