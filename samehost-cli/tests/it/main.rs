//! The tests that need the command: tests of the command itself, and tests of the library in
//! another process with its own memory, limits and user. They are one binary, so that it is linked
//! once.

mod alive;
mod bench;
mod check;
mod command;
mod crowd;
mod descriptors;
mod given_back;
mod hostile;
mod idle_memory;
mod no_room;
mod observed;
mod operated;
mod peers;
mod streams;
mod take_over;

use samehost_test_support::{self as support, wire};
