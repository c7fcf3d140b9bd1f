//! gRPC's rules for messages, by bytes that no stubs would send.

mod framing;
mod rules;
mod support;
