//! What needs a connection on a stream and something else behind it than gRPC.

mod h2spec;
mod last_words;
