//! [`Error`]: why protos could not be compiled.

use std::fmt;
use std::io;
use std::path::Path;

/// Why protos could not be compiled. For an invalid proto the text has the file, the line and the
/// column.
///
/// `Debug` and `Display` are the same, because a build script that returns the error prints its
/// `Debug` text.
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
            // protox has the place only in its `Debug` text.
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
