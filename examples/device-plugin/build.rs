fn main() -> Result<(), Box<dyn std::error::Error>> {
    samehost_build::compile(&["proto/device_plugin.proto"], &["proto"])
}
