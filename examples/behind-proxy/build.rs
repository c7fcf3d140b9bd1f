fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/caller.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).build_client(false).compile_fds(files)?;
    Ok(())
}
