//! One HTTP/2 connection on one stream of octets: reads, writes, wakes. The only place that both
//! touches a socket and knows HTTP/2; server and client share it. What a call means is `grpc`'s.
//!
//! One task drives a connection ([`pass`](pass::Pass)): it reads what is there, lets `http2` parse
//! it, hands out the events, and writes everything that has gathered by one write. Callers and
//! handlers put their frames straight into the connection's buffer, under its lock
//! ([`shared`](shared::Shared)); only the one who finds the driver asleep wakes it.

mod beside;
mod body;
mod busy_poll;
mod client;
mod memory;
mod pass;
mod send;
mod server;
mod shared;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use body::Incoming;
pub use busy_poll::BusyPoll;
pub(crate) use client::{Call, Outgoing, Sender, Unsent, Waiter};
pub(crate) use memory::{Kept, Memory};
pub(crate) use pass::turn_away;
pub(crate) use send::Outbound;
pub(crate) use server::{Handler, serve};
pub(crate) use shared::{Lost, StreamError};
pub(crate) use socket::{Sleeping, Socket};

use crate::http2::Config;

/// What a connection is driven with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) http2: Config,
    pub(crate) busy_poll: Option<BusyPoll>,
}

/// The error type of tower and http-body.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
