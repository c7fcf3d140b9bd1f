//! A client without a runtime: calls block the thread that makes them.
//!
//! It is for command-line tools, PAM and NSS modules, and code that other languages call. It starts
//! no thread and does not need tokio. The thread that waits for an answer drives the connection
//! with plain reads and writes. Between calls, nothing does. Several threads may share a
//! [`Channel`]: one of the waiting threads reads for all of them.
//!
//! Since nothing runs between calls, a keep-alive PING from the server is answered only during the
//! next call. A server that sends PINGs may have closed the connection by then. In that case the
//! call opens a new one.
//!
//! A call that its deadline ends while the socket takes no more may leave half a frame behind. The next
//! thread that uses the channel writes the rest. If none does for as long as the server waits for a frame
//! (10 s for samehost), the server ends the connection with the calls that are still open on it.
//!
//! In an async function, a call blocks the runtime's thread. It does not panic, but the server must
//! not need that thread. Use the asynchronous [`Channel`](crate::Channel) there.
//!
//! After fork(2), only the parent may use or drop a [`Channel`] and its calls, unless the child execs.
//! Both processes have the same connection: what the child sends, also by a drop, becomes part of the
//! parent's bytes and can end its calls. So fork first and open channels afterwards, or let the child
//! end by `_exit` or exec without dropping them. The same holds for the asynchronous
//! [`Channel`](crate::Channel), whose runtime does not survive a fork either.
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
//! A unary method takes a request and returns a response, as asynchronous stubs do. A method with a
//! stream of responses returns a [`Streaming`], which is an iterator. A method with a stream of
//! requests takes a `Request` of anything that can be iterated over. A method with both returns a
//! [`Conversation`].

mod attempts;
mod builder;
mod call;
mod channel;
mod client;
mod connection;
mod encoded;
mod interceptor;
mod reader;
mod request;
mod slot_event;
mod state;
mod streaming;
#[cfg(test)]
mod tests;
mod waiting;
mod watched;

pub use builder::ChannelBuilder;
pub use channel::Channel;
pub use client::Client;
pub use streaming::{Conversation, Streaming};
