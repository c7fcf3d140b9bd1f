//! Tests that need a connection on a stream and another handler than gRPC's.

mod h2spec;
mod last_words;
