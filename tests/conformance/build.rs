//! Compiles the protos, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    samehost_build::compile(&["proto/conformance.proto", "proto/status.proto"], &["proto"])
}
