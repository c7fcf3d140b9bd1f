//! Compiles proto files to descriptors.

use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;
use protox::file::{ChainFileResolver, FileMetadata, GoogleFileResolver};

use crate::error::Error;
use crate::remedy::remedy;
use crate::source::SourceFiles;

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
    let mut files = ChainFileResolver::new();
    for include in &includes {
        files.add(SourceFiles::new(include.clone()));
    }
    files.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(true).include_source_info(true);
    for proto in protos {
        compiler.open_file(proto).map_err(|error| {
            let remedy = remedy(&error, proto.as_ref(), &includes);
            Error::proto(error, remedy)
        })?;
    }
    if announce {
        for path in compiler.files().filter_map(|file| path(file, &includes)) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Ok(Compiled {
        descriptors: compiler.file_descriptor_set(),
        encoded: compiler.encode_file_descriptor_set(),
    })
}

/// Returns the path of a file, unless it is one of the well-known types that protox has built in.
fn path(file: &FileMetadata, includes: &[PathBuf]) -> Option<PathBuf> {
    // protox forgets the path of a file with a byte order mark.
    let found = || includes.iter().map(|it| it.join(file.name())).find(|path| path.is_file());
    file.path().map(Path::to_owned).or_else(found)
}
