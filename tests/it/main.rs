//! The integration tests, in one binary so that it links once.

mod architecture;
mod bench;
mod calls;
mod channel;
mod command;
mod deadlines;
mod differential;
mod honest;
mod hostile;
mod hostile_server;
mod idle_memory;
mod no_room;
mod retry;
mod server;
mod socket_file;
mod streams;
mod support;
#[cfg(feature = "tonic-transport")]
mod tonic_transport;
mod wire;
