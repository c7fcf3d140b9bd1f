//! What to do about a proto that protox refuses, where its own text does not say it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::EDITIONS;

/// Returns what to do about a failure to compile `proto`.
pub(crate) fn remedy(error: &protox::Error, proto: &Path, includes: &[PathBuf]) -> Option<String> {
    if error.is_file_not_found() {
        // Without a file it is the proto itself that was not found; otherwise a file's import.
        return Some(match error.file() {
            None => not_found(proto, includes),
            Some(_) => format!(
                "imports are relative to the include directories, which are {}",
                list(includes)
            ),
        });
    }
    let text = error.to_string();
    let editions = text.contains("'message'") && text.contains("found 'edition'");
    editions.then(|| EDITIONS.to_owned())
}

fn not_found(proto: &Path, includes: &[PathBuf]) -> String {
    let includes_are = format!("the include directories are {}", list(includes));
    if !proto.exists() {
        let directory = std::env::current_dir().unwrap_or_default();
        return format!(
            "it is neither in {} nor in an include directory; {includes_are}",
            directory.display()
        );
    }
    match includes.iter().find(|include| include.is_dir() && is_within(proto, include)) {
        Some(include) => format!(
            "write it as the include directory {} is written, both relative or both absolute and \
             without `..`",
            include.display()
        ),
        None => format!("add its directory, or one above it, to the includes; {includes_are}"),
    }
}

/// Returns whether a file is in a directory, however the two paths are written.
fn is_within(file: &Path, directory: &Path) -> bool {
    let (file, directory) = (fs::canonicalize(file), fs::canonicalize(directory));
    matches!((file, directory), (Ok(file), Ok(directory)) if file.starts_with(&directory))
}

/// Lists directories, with what keeps files in them from being found.
fn list(includes: &[PathBuf]) -> String {
    if includes.is_empty() {
        return "none: the second argument lists them".to_owned();
    }
    let described = includes.iter().map(|include| {
        let problem = match fs::metadata(include) {
            Ok(metadata) if metadata.is_dir() => String::new(),
            Ok(_) => " (which is not a directory)".to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                " (which does not exist)".to_owned()
            }
            Err(error) => format!(" ({error})"),
        };
        format!("{}{problem}", include.display())
    });
    described.collect::<Vec<_>>().join(", ")
}
