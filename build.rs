//! Compiles the Ping proto when the `ping` feature is on. Library users who leave it off compile
//! nothing here.

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

    pub(crate) fn compile() -> Result<(), Box<dyn Error>> {
        let out = PathBuf::from(std::env::var("OUT_DIR")?);
        samehost_build::configure()
            .bytes(".")
            // What gRPC server reflection hands out: the files as they are, comments included.
            .file_descriptor_set_path(out.join("ping.v1.bin"))
            .compile_protos(&["proto/ping/v1/ping.proto"], &["proto"])?;
        Ok(())
    }
}
