//! The integration tests are one binary, so that it is linked once.

mod architecture;
mod blocking;
mod busy_poll;
mod calls;
mod channel;
mod channel_observer;
mod deadlines;
mod descriptors;
mod differential;
mod ends;
mod hand_over;
mod headers;
mod honest;
mod hostile_server;
mod identity;
mod idle_exit;
mod imports;
mod in_process;
mod inherit;
mod metrics;
mod notes;
mod observer;
mod policy;
mod ready;
mod refusals;
mod retry;
mod retry_policy;
mod server;
mod server_options;
mod socket_file;
mod spans;
mod statuses;
mod streams;
mod texts;
mod tonic_transport;

use samehost_test_support::{self as support, wire};
