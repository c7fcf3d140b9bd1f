fn main() -> Result<(), Box<dyn std::error::Error>> {
    samehost_build::compile(&["proto/plugin.proto", "proto/kv.proto"], &["proto"])
}
