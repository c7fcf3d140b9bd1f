fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["proto/version.proto", "proto/namespaces.proto", "proto/content.proto"];
    samehost_build::compile(&protos, &["proto"])
}
