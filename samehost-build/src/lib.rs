//! Compiles `.proto` files to prost messages and to the gRPC stubs of samehost, in pure Rust: no
//! `protoc` is needed.
//!
//! A complete `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     samehost_build::compile(&["proto/greeter.proto"], &["proto"])
//! }
//! ```
//!
//! And in the crate:
//!
//! ```ignore
//! mod greeter {
//!     samehost::include_proto!("greeter.v1");
//! }
//! ```
//!
//! # What is generated
//!
//! For `service Greeter` of the package `greeter.v1` the file `greeter.v1.rs` in `OUT_DIR` has the
//! messages as prost generates them, and two modules with tonic's names and signatures:
//! `greeter_server` with the trait `Greeter` and `GreeterServer`, and `greeter_client` with
//! `GreeterClient`. A service or a client that was written for the stubs of `tonic-prost-build`
//! compiles unchanged, with these differences:
//!
//! - `GreeterClient::connect` takes an address of samehost, such as `unix:/run/app.sock`.
//! - `GreeterServer` takes requests with tonic's own body only. `GreeterServer::into_service` makes
//!   it a service for any body, as axum and some tower layers need it, and
//!   `GreeterServer::with_interceptor` returns that form.
//! - The inner service of a client has to be `'static`.
//! - A method whose snake-case name is one of the client's own functions, such as `new` or `clone`,
//!   has an underscore at its end in the client (`new_`). A method named `connect` keeps its name, and the
//!   client has no constructor of that name then.
//!
//! The generated code names `::samehost`, and `::prost` for the messages. Well-known types are
//! those of the crate `prost-types`. It has to be a dependency if a proto uses one of them, except
//! for `Empty` and the wrappers.

mod attributes;
mod blocking;
mod builder;
mod check;
mod client;
mod client_parts;
mod collisions;
mod doctests;
mod error;
mod generator;
mod lints;
mod names;
mod options;
mod output;
mod proto;
mod remedy;
mod server;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use builder::{Builder, configure};
pub use error::Error;
pub use prost_build::Config;
pub use prost_types::FileDescriptorSet;

/// Compiles the given proto files, and all that they import, with the defaults of [`configure`].
/// `includes` are the directories that imports are relative to. Each proto has to be in one of
/// them; its path is relative to the package's directory, or to an include directory.
///
/// The well-known types (`google/protobuf/*.proto`) need no include directory.
///
/// # Errors
///
/// An [`Error`] that names the proto file and the line of an invalid proto, or the file that could
/// not be read or written. It is boxed, so that `main` can return it.
pub fn compile(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
) -> Result<(), Box<dyn std::error::Error>> {
    Ok(configure().compile_protos(protos, includes)?)
}
