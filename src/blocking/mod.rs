//! A client without a runtime: calls block the thread that makes them.
//!
//! For command-line tools, PAM and NSS modules, and whatever is called from another language. Nothing here
//! starts a thread or needs tokio: the thread that waits for an answer drives the connection by plain reads
//! and writes, and between calls nothing does. Several threads may share a [`Channel`]: one of those that
//! wait reads for all of them.
//!
//! Since nothing runs between calls, a keep-alive PING from the server is answered only when the next call is
//! made. A server that sends them may close the connection before, and then that call opens a new one.
//!
//! In an async function a call blocks the runtime's thread; it does not panic, but the server must not need
//! that thread. Use the asynchronous [`Channel`](crate::Channel) there.
//!
//! `samehost-build` generates `greeter_client::blocking::GreeterClient` for each service:
//!
//! ```no_run
//! # #[cfg(feature = "ping")]
//! # fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use samehost::ping::{BlockingPingServiceClient, PingRequest};
//!
//! let mut client = BlockingPingServiceClient::connect("unix:/run/app/ping.sock")?;
//! let reply = client.ping(PingRequest::ping())?;
//! assert_eq!(reply.into_inner().message, "pong");
//! # Ok(()) }
//! ```
//!
//! A unary method takes a request and returns a response, as asynchronous stubs have it. A method with a
//! stream of responses returns a [`Streaming`], which is an iterator. One with a stream of requests takes a
//! `Request` of anything that can be iterated over. One with both returns a [`Conversation`].

mod call;
mod channel;
mod client;
mod connection;
mod streaming;

pub use channel::{Channel, ChannelBuilder};
pub use client::Client;
pub use streaming::{Conversation, Streaming};
