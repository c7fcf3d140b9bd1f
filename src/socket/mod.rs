//! Sockets on this host: binding and connecting by [`Address`](crate::Address), the life of a Unix
//! socket's file, and the connected stream. Nothing here uses HTTP/2 or gRPC.

mod accept;
mod adopt;
mod bind;
mod bind_error;
mod conn;
mod connect;
mod connect_blocking;
mod connect_error;
mod file;
mod guard;
mod hand_over;
mod held;
mod identity;
mod inherit;
mod listener;
mod listener_state;
mod location;
mod lock;
mod parts;
mod published;
pub(crate) mod rights;
mod stream;
mod sys;
mod together;
mod underway;
mod unix;
mod watched;

pub use bind::{BindOptions, Group};
pub use bind_error::{BindError, BindErrorKind};
pub use conn::{Conn, Peer};
pub(crate) use connect::{CONNECT_TIMEOUT, connect_within};
pub(crate) use connect_blocking::connect_blocking;
pub use connect_error::{ConnectError, ConnectErrorKind};
pub(crate) use held::Held;
pub(crate) use identity::is_known_group;
pub use identity::{PeerIdentity, TcpPeer};
pub use inherit::{InheritError, InheritErrorKind};
pub(crate) use listener::ACCEPT_BACKOFF;
pub use listener::Listener;
pub use parts::ListenerParts;
pub(crate) use stream::{SocketSender, share_one_cpu};
pub(crate) use sys::receive_with;
