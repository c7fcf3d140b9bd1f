//! [`SourceFiles`]: the proto files of an include directory, which may begin with a byte order mark.

use std::fs;
use std::path::{Path, PathBuf};

use protox::Error;
use protox::file::{File, FileResolver, IncludeFileResolver};

/// Some editors write it at the beginning of a file. protoc skips it, and protox does not.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Opens the proto files of an include directory.
pub(crate) struct SourceFiles {
    directory: PathBuf,
    resolver: IncludeFileResolver,
}

impl SourceFiles {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { resolver: IncludeFileResolver::new(directory.clone()), directory }
    }
}

impl FileResolver for SourceFiles {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        self.resolver.resolve_path(path)
    }

    fn open_file(&self, name: &str) -> Result<File, Error> {
        let opened = self.resolver.open_file(name);
        if opened.is_err()
            && let Ok(text) = fs::read_to_string(self.directory.join(name))
            && let Some(text) = text.strip_prefix(BYTE_ORDER_MARK)
        {
            return File::from_source(name, text);
        }
        opened
    }
}
