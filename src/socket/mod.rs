//! Sockets on this host: binding and connecting by [`Address`](crate::Address), the life of a Unix
//! socket's file, and the connected stream. Nothing here knows HTTP/2 or gRPC.

mod bind;
mod conn;
mod connect;
mod file;
mod listener;
#[cfg(feature = "tonic-transport")]
mod pause;
mod unix;

pub use bind::{BindError, BindOptions, Group};
#[cfg(feature = "tonic-transport")]
pub(crate) use conn::AsTokio;
pub use conn::Conn;
pub use connect::ConnectError;
pub(crate) use connect::{CONNECT_TIMEOUT, connect};
pub use listener::Listener;
