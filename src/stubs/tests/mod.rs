//! gRPC's rules for messages, tested with bytes that no stubs would send.

mod framing;
mod rules;
mod support;
