fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["proto/version.proto", "proto/namespaces.proto", "proto/content.proto"];
    let files = protox::compile(protos, ["proto"])?;
    tonic_prost_build::configure().build_transport(false).build_server(false).compile_fds(files)?;
    Ok(())
}
