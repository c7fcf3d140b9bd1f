//! The connection, tested at its boundary: bytes and calls in, bytes and events out.

mod arbitrary;
mod attacks;
mod cost;
mod descriptors;
mod flow;
mod frames;
mod honest;
mod messages;
mod pair;
mod parts;
mod pressure;
mod raw;
mod seen;
mod sending;
mod sent_heads;
mod settings;
mod shutdown;
mod streams;
mod time;
mod whole_request;
mod whole_response;

/// The frames of the integration tests: the code that reads and writes them uses nothing of ours.
use samehost_test_support::wire;
