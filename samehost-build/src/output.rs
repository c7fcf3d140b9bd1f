//! [`Output`]: where generated code is written to. A file that would not change is left alone, so that Cargo compiles
//! nothing again.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use prost_build::Config;
use prost_types::FileDescriptorSet;

use crate::doctests;
use crate::error::Error;
use crate::lints;

/// The name of the file that includes the others while prost's builder writes it. Code of a package is in a file whose
/// name ends in `.rs`.
const INCLUDE_FILE: &str = "include_file";

/// Where generated code is written to.
pub(crate) struct Output {
    /// The directory, which exists.
    pub(crate) directory: PathBuf,
    /// Whether that is `OUT_DIR`, whose files are included by `env!`.
    pub(crate) is_out_dir: bool,
    /// The file that includes the others, if one is asked for.
    pub(crate) include_file: Option<PathBuf>,
}

impl Output {
    /// Generates the code. prost's builder writes to a directory of its own, since it does not tell which files it
    /// writes, and other files of those names may be beside the generated ones.
    pub(crate) fn generate(
        &self,
        mut config: Config,
        descriptors: FileDescriptorSet,
    ) -> Result<(), Error> {
        let fail = |error| Error::io(WHAT, error);
        let generated = tempfile::tempdir().map_err(fail)?;
        config.out_dir(generated.path());
        if self.include_file.is_some() {
            config.include_file(INCLUDE_FILE);
        }
        compile(config, descriptors)?;
        let mut files = Vec::new();
        for file in fs::read_dir(generated.path()).map_err(fail)? {
            let file = file.map_err(fail)?;
            files.push((file.file_name(), fs::read_to_string(file.path()).map_err(fail)?));
        }
        // One package may use what is deprecated in another.
        let deprecates = files.iter().any(|(_, code)| code.contains("#[deprecated"));
        for (name, code) in files {
            let code = doctests::prevent(&lints::exempt(&code, deprecates));
            match &self.include_file {
                Some(path) if name == INCLUDE_FILE => {
                    write(&self.directory.join(path), self.including(code).as_bytes())?;
                }
                _ => write(&self.directory.join(name), code.as_bytes())?,
            }
        }
        Ok(())
    }

    /// Returns the text of the file that includes the others, which prost's builder expects beside it.
    fn including(&self, code: String) -> String {
        if !self.is_out_dir {
            return code;
        }
        let code = code.replace("include!(\"", "include!(concat!(env!(\"OUT_DIR\"), \"/");
        code.replace(".rs\");", ".rs\"));")
    }
}

const WHAT: &str = "cannot generate code";

/// Writes a file, unless it has these contents already.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|written| written == contents) {
        return Ok(());
    }
    fs::write(path, contents).map_err(|error| Error::write(path, error))
}

/// Has prost's builder generate the code. What it panics of is told as an error: it panics of options that it cannot
/// parse and of names that are the same in Rust.
fn compile(mut config: Config, descriptors: FileDescriptorSet) -> Result<(), Error> {
    let compiled = catch_unwind(AssertUnwindSafe(|| config.compile_fds(descriptors)));
    match compiled {
        Ok(compiled) => compiled.map_err(|error| Error::io(WHAT, error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("it panicked");
            Err(Error::usage(format!("{WHAT}: prost-build says: {text}")))
        }
    }
}
