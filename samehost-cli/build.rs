//! Generates tonic's stubs of the Ping service, which `bench` measures beside ours. The messages are the
//! library's.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["ping/v1/ping.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".ping.v1", "::samehost::ping")
        .compile_fds(files)?;
    Ok(())
}
