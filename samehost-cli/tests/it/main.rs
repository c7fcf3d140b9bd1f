//! The tests that need the command: of the command itself, and of the library as a process of its
//! own, whose memory, limits and user are not the tests'. In one binary so that it links once.

mod alive;
mod bench;
mod check;
mod command;
mod crowd;
mod hostile;
mod idle_memory;
mod no_room;
mod observed;
mod peers;
mod streams;
mod take_over;

use samehost_test_support::{self as support, wire};
