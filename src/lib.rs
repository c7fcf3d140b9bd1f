//! gRPC between processes on the same host, over Unix domain sockets.
//!
//! A service written for [tonic] runs unchanged. What is here is everything below its stubs: the
//! [`Address`], the socket and its file ([`Listener`]), the [`Server`] and the [`Channel`]. One
//! string picks the transport: `unix:/run/app.sock` or `127.0.0.1:50051`.
//!
//! A server:
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{Ping, PingServiceServer};
//! use samehost::{Address, Listener, Server};
//!
//! let address: Address = "unix:/run/ping.sock".parse()?;
//! let listener = Listener::bind(&address).await?;
//! Server::new()
//!     .add_service(PingServiceServer::new(Ping::default()))
//!     .serve(listener)
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! And a client of it:
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{PingRequest, PingServiceClient};
//! use samehost::{Address, Channel};
//!
//! let address: Address = "unix:/run/ping.sock".parse()?;
//! let channel = Channel::connect(&address).await?;
//! let reply = PingServiceClient::new(channel).ping(PingRequest::ping()).await?;
//! assert_eq!(reply.into_inner().message, "pong");
//! # Ok(()) }
//! ```
//!
//! Generate the stubs of your own service with `tonic_prost_build` and `build_transport(false)`.
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
//! - `ping`: the Ping service in `samehost::ping`, which the command, the examples and the tests
//!   use.
//! - `serde`: an [`Address`] in configuration files, as its string.
//! - `tonic-transport`: for those who stay on tonic's own transport, the [`Listener`] as the stream
//!   of connections that its server takes, and a `Connector` for its client. It brings hyper and h2.
//!
//! # Runtime
//!
//! Everything runs on the caller's tokio runtime, current-thread or multi-thread, which needs IO and
//! time enabled (`enable_all`). What binds, connects or serves panics outside of one.
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
        AnyBody, Call, Client, ClientOptions, Method, Methods, ServerOptions, call, connect, mount,
    };
}

/// Includes what `samehost_build` generated for a proto package.
///
/// ```ignore
/// mod greeter {
///     samehost::include_proto!("greeter.v1");
/// }
/// ```
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
