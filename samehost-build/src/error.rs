//! [`Error`]: why protos could not be compiled.

use std::fmt;
use std::io;
use std::path::Path;

/// Why protos could not be compiled. For a broken proto the text has the file, the line and the
/// column.
///
/// A build script that returns it prints the text as it is: `Debug` and `Display` are the same.
pub struct Error(Kind);

enum Kind {
    Proto(protox::Error),
    Io { what: String, source: io::Error },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self(Kind::Io { what: what.into(), source })
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::io(format!("cannot write {}", path.display()), source)
    }
}

impl From<protox::Error> for Error {
    fn from(error: protox::Error) -> Self {
        Self(Kind::Proto(error))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // protox says where only in its Debug form.
            Kind::Proto(error) => write!(f, "{error:?}"),
            Kind::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
