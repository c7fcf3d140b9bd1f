//! Compiles proto files to descriptors.

use std::collections::BTreeSet;
use std::env;
use std::iter;
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
/// again when one of them changes, or a directory of the given ones. (Cargo runs a failed build script
/// again in any case.)
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
        let files = compiler.files().filter_map(|file| path(file, &includes));
        for path in files.chain(directories(protos, &includes)) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Ok(Compiled {
        descriptors: compiler.file_descriptor_set(),
        encoded: compiler.encode_file_descriptor_set(),
    })
}

/// Returns the directories of the given protos, since a build script may list a directory to which a
/// proto is added later. Cargo looks at all that is in a directory. So one that has the package or
/// `OUT_DIR` in it is left out: what Cargo itself writes there would make it run the build script again
/// and again.
fn directories(protos: &[impl AsRef<Path>], includes: &[PathBuf]) -> BTreeSet<PathBuf> {
    let out = env::var_os("OUT_DIR").map(PathBuf::from);
    let written: Vec<_> = [env::current_dir().ok(), out]
        .into_iter()
        .flatten()
        .filter_map(|directory| directory.canonicalize().ok())
        .collect();
    let directory = |proto: &Path| {
        let mut places =
            iter::once(proto.to_owned()).chain(includes.iter().map(|include| include.join(proto)));
        let place = places.find(|place| place.is_file())?;
        let directory = place.parent()?;
        // The package's own directory has no name here.
        let resolved = directory.canonicalize().ok()?;
        let has_written = written.iter().any(|it| it.starts_with(&resolved));
        (!has_written).then(|| directory.to_owned())
    };
    protos.iter().filter_map(|proto| directory(proto.as_ref())).collect()
}

/// Returns the path of a file, unless it is one of the well-known types that protox has built in.
fn path(file: &FileMetadata, includes: &[PathBuf]) -> Option<PathBuf> {
    // protox forgets the path of a file with a byte order mark.
    let found = || includes.iter().map(|it| it.join(file.name())).find(|path| path.is_file());
    file.path().map(Path::to_owned).or_else(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_given_protos_are_announced_unless_cargo_writes_there() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        for file in ["a.proto", "inner/b.proto", "inner/c.proto"] {
            std::fs::write(directory.path().join(file), "").unwrap();
        }
        let given = [directory.path().join("a.proto"), "b.proto".into(), "c.proto".into()];
        let announced = directories(&given, std::slice::from_ref(&inner));
        assert_eq!(announced, BTreeSet::from([directory.path().to_owned(), inner]));
        // A test has the same working directory as a build script: that of the package.
        for file in
            ["Cargo.toml", "./Cargo.toml", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]
        {
            assert_eq!(directories(&[file], &[]), BTreeSet::new(), "{file}");
        }
        assert_eq!(directories(&["src/lib.rs"], &[]), BTreeSet::from(["src".into()]));
    }
}
