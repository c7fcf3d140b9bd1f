//! The code that the stubs of `samehost-build` call: messages in and out, by the rules of gRPC.
//!
//! A message is a prefix of five bytes and its encoding ([`framing`]). A server's stubs answer an
//! HTTP request by a method of the service ([`methods`], [`layered`]). A client's stubs send a request through
//! any service that takes HTTP requests ([`client`]). Streams of messages are tonic's `Streaming`,
//! fed by [`streaming`].

mod batch_buffer;
mod body;
mod bound;
mod cancellation;
mod client;
mod compression;
mod direct;
mod framing;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod layered;
mod limit;
mod message_buffer;
mod message_parts;
mod metadata;
mod methods;
mod options;
mod receive;
mod server;
mod streaming;
#[cfg(test)]
mod tests;
mod unary;

pub use bound::Bound;
pub use client::{Client, Method, connect};
pub(crate) use framing::Deframer;
pub(crate) use metadata::{early_status, outcome, with_head};
pub use methods::{Call, Methods};
pub use options::{ClientOptions, ServerOptions};
pub(crate) use receive::{Whole, conclude};
pub use server::{AnyBody, call, mount};
pub(crate) use unary::whole;
