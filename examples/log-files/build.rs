fn main() -> Result<(), Box<dyn std::error::Error>> {
    samehost_build::compile(&["proto/log_files.proto"], &["proto"])
}
