//! What tonic's own examples do, written anew and small, on this library and with none of tonic's
//! features but code generation and gzip. The programs are in `tests/`; here is what is generated.

/// As `include_proto!` has it for tonic's users.
pub mod greeter {
    tonic::include_proto!("greeter");
}

pub mod echo {
    tonic::include_proto!("echo");
}

pub mod routeguide {
    tonic::include_proto!("routeguide");
}

/// The protos as an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
