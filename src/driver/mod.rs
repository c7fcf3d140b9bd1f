//! One HTTP/2 connection on one stream of bytes: it reads, writes and wakes tasks. Server and
//! client share it. Only here and in `blocking` a socket meets HTTP/2. `grpc` knows what a call
//! means.
//!
//! One task drives a connection ([`ConnectionTask`](connection_task::ConnectionTask)). It reads what has
//! arrived, lets `http2` parse it, hands out the events, and writes everything that has gathered at
//! once. Callers and handlers put their frames straight into the connection's buffer, under its lock
//! ([`shared`](shared::Shared)). A caller wakes the driver only if it finds the driver asleep.

mod beside;
mod body;
mod body_task;
mod busy_poll;
mod call_memory;
mod client;
mod closing;
mod connection_memory;
mod connection_task;
mod discard;
mod duties;
mod encode_buffer;
mod error;
mod fields;
mod handler;
mod handler_task;
mod heap;
pub(crate) mod large_buffers;
mod live_handlers;
mod memory;
mod options;
mod outgoing;
mod output;
mod output_limit;
mod peak;
mod read_permits;
mod reader;
mod refuse;
mod response;
mod rounds;
mod send;
mod server;
mod shared;
mod sleeper;
mod slow_methods;
mod socket;
mod spare;
#[cfg(test)]
mod tests;
mod time_slice;
mod timer;
mod turn;
mod waiters;
mod waking;
mod watch;
mod writing;

pub(crate) use body::Incoming;
pub use busy_poll::BusyPoll;
pub(crate) use call_memory::CallMemory;
pub(crate) use client::{MoreFields, PendingCall, Phase, Responded, Sender, SlotTicket, Unsent};
pub(crate) use closing::Ended;
pub(crate) use discard::discard;
pub(crate) use error::{CloseReason, StreamError};
pub(crate) use fields::Fields;
pub(crate) use handler::{Answer, Called, Handler, MessageAnswer, PollAnswer, in_place};
pub(crate) use live_handlers::{LiveHandler, LiveHandlers};
pub(crate) use memory::{Memory, Owner};
pub(crate) use options::{BoxError, Options};

pub(crate) use encode_buffer::EncodeBuffer;
pub(crate) use outgoing::{BodyRequest, EncodeMessage, MessageRequest, OutgoingRequest};
pub(crate) use refuse::refuse;
pub(crate) use send::{Expiry, Outbound};
pub(crate) use server::serve;
pub(crate) use socket::{Sleeping, Socket};
pub(crate) use timer::now;
pub(crate) use watch::Watch;
