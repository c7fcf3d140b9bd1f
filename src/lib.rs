//! gRPC between processes on the same host, over Unix domain sockets.

mod http2;
