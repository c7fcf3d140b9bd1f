//! One HTTP/2 connection (RFC 9113), either end of it, as gRPC needs it: bytes in, events out.
//!
//! There is no socket, task or clock here: bytes and `Instant`s are arguments, so that everything is
//! tested without IO. Reading, writing and waking are `driver`'s business, what a call means is
//! `grpc`'s.
//!
//! [`Connection`] is the only way in, and its methods have a grammar.
//!
//! - In go bytes and time: [`receive`](Connection::receive), [`on_timeout`](Connection::on_timeout).
//! - Out come [`poll_event`](Connection::poll_event), the bytes to be written
//!   ([`outgoing`](Connection::outgoing), then [`advance`](Connection::advance)) and
//!   [`next_timeout`](Connection::next_timeout), before which
//!   [`note_time`](Connection::note_time) is told what time it is.
//! - Streams are worked on by their [`StreamKey`]: `take_request`, `take_response`, `read`, `send_*`,
//!   `reset`, and in the end [`forget`](Connection::forget), once for each stream.
//!
//! What has arrived of a stream stays here until somebody reads it, and reading gives the peer window
//! to send more. An [`Event`] only says that there is something, and on which stream.
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
mod data;
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
mod write_buffer;

pub(crate) use arrived::{Failure, Reset};
pub(crate) use config::{Config, KeepAlive};
pub(crate) use connection::Connection;
pub(crate) use error::{Cause, ConnectionError, ErrorCode};
pub(crate) use event::Event;
pub(crate) use head::{RequestHead, ResponseHead};
#[cfg(fuzzing)]
pub(crate) use hpack::{Decoder, Encoder, Field, Pseudo};
pub(crate) use key::StreamKey;
pub(crate) use pinned::{give_spare, take_spare};
pub(crate) use read::{Body, Content, NoRequest, Read, Request};
pub(crate) use receive::Received;
pub(crate) use send::Progress;
pub(crate) use send_head::{NotNow, SendRequest};
pub(crate) use sent_heads::HeadId;
