//! Compiles proto files to descriptors.

use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;
use protox::file::FileMetadata;

use crate::error::Error;
use crate::remedy::remedy;

/// Compiled protos.
pub(crate) struct Compiled {
    /// The files with all imports, each file after its imports.
    pub(crate) descriptors: FileDescriptorSet,
    /// The same, encoded. It also has the options that `prost_types` does not know.
    pub(crate) encoded: Vec<u8>,
}

/// Compiles the files and their imports. With `announce`, Cargo is told to run the build script
/// again when one of them changes. (Cargo runs a failed build script again in any case.)
pub(crate) fn compile(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
    announce: bool,
) -> Result<Compiled, Error> {
    if protos.is_empty() {
        return Err(Error::usage(
            "no protos are given: the first argument lists them, such as &[\"proto/greeter.proto\"]",
        ));
    }
    let includes: Vec<PathBuf> = includes.iter().map(|it| it.as_ref().to_owned()).collect();
    let mut compiler = protox::Compiler::new(&includes)?;
    compiler.include_imports(true).include_source_info(true);
    for proto in protos {
        compiler.open_file(proto).map_err(|error| {
            let remedy = remedy(&error, proto.as_ref(), &includes);
            Error::proto(error, remedy)
        })?;
    }
    if announce {
        // The well-known types have no path: protox has them built in.
        for path in compiler.files().filter_map(FileMetadata::path) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Ok(Compiled {
        descriptors: compiler.file_descriptor_set(),
        encoded: compiler.encode_file_descriptor_set(),
    })
}
