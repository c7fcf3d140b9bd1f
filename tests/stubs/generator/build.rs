//! Protos with all that is out of the ordinary, with the options that people use.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let protos = [
        "proto/odd/v1/odd.proto",
        "proto/plain.proto",
        "proto/keywords.proto",
        "proto/names.proto",
    ];
    samehost_build::configure()
        .file_descriptor_set_path(out.join("all.bin"))
        .compile_protos(&protos, &["proto"])?;

    let options = || {
        samehost_build::configure()
            .build_client(false)
            .bytes(".odd.v1.Odd.raw")
            .btree_map(".odd.v1.Odd.numbers")
            .type_attribute("other.Thing", "#[derive(serde::Serialize)]")
            .field_attribute("other.Thing.name", "#[serde(rename = \"title\")]")
            .extern_path(".other.Elsewhere", "crate::Elsewhere")
            .compile_well_known_types(true)
            .server_mod_attribute("odd.v1", "#[cfg(not(any()))]")
            .server_attribute("odd.v1.Odds", "#[doc(alias = \"strange\")]")
            .trait_attribute("Odds", "#[doc = \" A trait.\"]")
            .use_arc_self(true)
            .generate_default_stubs(true)
            .disable_comments(["odd.v1.Odds"])
    };
    options()
        .out_dir(out.join("options"))
        .include_file("all.rs")
        .compile_protos(&protos, &["proto"])?;
    samehost_build::configure()
        .out_dir(out.join("elsewhere"))
        .proto_path("crate::odd::v1")
        .compile_protos(&protos, &["proto"])?;
    Ok(())
}
