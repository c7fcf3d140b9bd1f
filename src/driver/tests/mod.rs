//! Tests that need a connection on a stream and another handler than gRPC's.

mod batches;
mod frames;
mod h2spec;
mod last_words;
mod writes;
