//! One HTTP/2 connection (RFC 9113), either end of it, as gRPC needs it: bytes in, events out.
//!
//! No socket, no task, no clock: octets and `Instant`s are arguments, so that everything here is
//! tested without IO. Reading, writing and waking are `driver`'s business, what a call means is
//! `grpc`'s.
//!
//! ```text
//!                 octets                            octets
//!   receive.rs ◄─────────── the driver ◄─────────────────── outgoing.rs
//!   headers.rs    events        │        messages to send       ▲
//!       └──────────────────────►│──────────────────────────► send.rs
//! ```
//!
//! [`Connection`] is the only way in. What arrives is parsed frame by frame (`receive`, `headers`),
//! changes the streams' state (`stream`) and leaves [`Event`]s; what is to be sent is encoded
//! straight into one buffer (`send`, `outgoing`).

mod budget;
mod closed;
mod config;
mod connection;
mod error;
mod event;
mod flow;
mod frame;
mod head;
mod headers;
mod hpack;
mod memo;
mod outgoing;
mod receive;
mod send;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod time;

pub(crate) use config::{Config, KeepAlive};
pub(crate) use connection::Connection;
pub(crate) use error::{ErrorCode, Fatal, Fault};
pub(crate) use event::{Event, Reset};
pub(crate) use head::{RequestHead, ResponseHead};
#[cfg(fuzzing)]
pub(crate) use hpack::{Decoder, Encoder, Field, Pseudo};
pub(crate) use send::{NotNow, Progress, SendRequest};
pub(crate) use stream::StreamKey;
