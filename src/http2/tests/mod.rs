//! The connection, tested at its boundary: octets and calls in, octets and events out.

mod arbitrary;
mod attacks;
mod cost;
mod flow;
mod frames;
mod honest;
mod messages;
mod pair;
mod raw;
mod sending;
mod settings;
mod shutdown;
mod streams;
mod time;
