//! The integration tests, in one binary so that it links once.

mod alive;
mod architecture;
mod bench;
mod busy_poll;
mod calls;
mod channel;
mod command;
mod crowd;
mod deadlines;
mod differential;
mod honest;
mod hostile;
mod hostile_server;
mod identity;
mod idle_memory;
mod inherit;
mod no_room;
mod peers;
mod policy;
mod retry;
mod server;
mod socket_file;
mod streams;
mod support;
#[cfg(feature = "tonic-transport")]
mod tonic_transport;
mod wire;
