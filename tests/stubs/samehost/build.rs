//! Ours.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    samehost_build::configure()
        .bytes(".")
        .compile_protos(&["../proto/stubs/v1/stubs.proto"], &["../proto"])?;
    Ok(())
}
