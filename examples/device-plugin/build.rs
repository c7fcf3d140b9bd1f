fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/device_plugin.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
