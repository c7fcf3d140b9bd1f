//! Compiles the Ping proto when the `ping` feature is on. protox is a protobuf compiler in Rust, so
//! no `protoc` is needed. Library users who leave `ping` off compile nothing here.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "ping")]
    ping::compile()?;
    Ok(())
}

#[cfg(feature = "ping")]
mod ping {
    use std::error::Error;
    use std::path::PathBuf;

    const PROTO: &str = "proto/ping/v1/ping.proto";

    pub(crate) fn compile() -> Result<(), Box<dyn Error>> {
        println!("cargo::rerun-if-changed={PROTO}");
        let mut compiler = protox::Compiler::new(["proto"])?;
        let compiler = compiler.include_imports(true).include_source_info(true).open_file(PROTO)?;

        // What gRPC server reflection hands out: the files as they are, comments included.
        let out = PathBuf::from(std::env::var("OUT_DIR")?);
        std::fs::write(out.join("ping.v1.bin"), compiler.encode_file_descriptor_set())?;

        tonic_prost_build::configure()
            // `connect` functions of the stubs would name tonic's own transport.
            .build_transport(false)
            .bytes(".")
            .compile_fds(compiler.file_descriptor_set())?;
        Ok(())
    }
}
