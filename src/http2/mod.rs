//! One end of an HTTP/2 connection (RFC 9113), as gRPC needs it: bytes go in, events come out.
//!
//! There is no socket, task or clock here. Bytes and `Instant`s are arguments, so everything is
//! tested without IO. `driver` reads, writes and wakes tasks. `grpc` knows what a call means.
//!
//! [`Connection`] is the only type that others use, and its methods form groups.
//!
//! - Bytes and time go in: [`receive`](Connection::receive),
//!   [`on_timeout`](Connection::on_timeout).
//! - Events come out of [`poll_event`](Connection::poll_event). The bytes to be written come out of
//!   [`outgoing`](Connection::outgoing), and [`advance`](Connection::advance) is called after they
//!   were written. [`next_timeout`](Connection::next_timeout) returns the next timeout;
//!   [`note_time`](Connection::note_time) is called before it.
//! - The methods for streams take a [`StreamKey`]: `take_request`, `take_response`, `read`,
//!   `send_*`, `reset`, and at the end [`forget`](Connection::forget), once for each stream.
//!
//! What has arrived on a stream stays here until it is read. Reading gives the peer window to send
//! more. A [`ProtocolEvent`] only tells that there is something to read, and on which stream.
//!
//! ```text
//!                 bytes                             bytes
//!   receive.rs ◄─────────── the driver ◄─────────────────── write_buffer.rs
//!   headers.rs    events     │      │       messages to send    ▲
//!       │      ─────────────►│      │───────────────────────► send_head.rs
//!       ▼         messages   │                             send.rs
//!   arrived.rs ──► read.rs ─►│
//! ```

mod arrived;
mod block;
mod budget;
mod closed;
mod config;
mod connection;
mod connection_end;
mod control;
mod copied;
mod data;
mod descriptors;
mod draining;
mod error;
mod event;
mod fields;
mod flow;
mod frame;
mod handshake;
mod head;
mod header_cache;
mod headers;
mod hpack;
mod id_hash;
mod key;
mod news;
mod outflow;
mod passing;
mod pinned;
mod pressure;
mod read;
mod receive;
mod role;
mod send;
mod send_head;
mod send_whole;
mod sent_heads;
mod settings;
mod sides;
mod spare;
mod stream;
mod stream_end;
#[cfg(test)]
mod tests;
mod time;
mod timers;
mod unopened;
mod unwritten;
mod whole_request;
mod whole_response;
mod write_buffer;

pub(crate) use arrived::{Failure, Pieces, Reset};
pub(crate) use config::{Config, KeepAlive};
pub(crate) use connection::Connection;
pub(crate) use copied::copy as copy_payload;
pub(crate) use draining::Notice;
pub(crate) use error::{Cause, ConnectionError, ErrorCode};
pub(crate) use event::ProtocolEvent;
pub(crate) use fields::is_grpc_type;
pub(crate) use head::{RequestHead, ResponseHead};
#[cfg(fuzzing)]
pub(crate) use hpack::{Decoder, Encoder, Field, Pseudo};
pub(crate) use key::StreamKey;
pub(crate) use pinned::{give_spare, take_spare};
pub(crate) use read::{Body, Content, NoRequest, Read, Request};
pub(crate) use receive::{CUT_OUT, ReceiveOutcome};
pub(crate) use send::Progress;
pub(crate) use send_head::{NotNow, SendRequest};
pub(crate) use send_whole::WholeResponse;
pub(crate) use sent_heads::HeadId;
pub(crate) use unopened::Unopened;
pub(crate) use write_buffer::LARGE;
