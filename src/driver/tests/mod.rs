//! What needs a connection on a socket and something else behind it than gRPC.

mod h2spec;
