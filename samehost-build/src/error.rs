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
    /// With what to do, where it is not obvious.
    Proto {
        error: protox::Error,
        remedy: Option<String>,
    },
    Io {
        what: String,
        source: io::Error,
    },
    Usage(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self(Kind::Io { what: what.into(), source })
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::io(format!("cannot write {}", path.display()), source)
    }

    /// What the build script asked for makes no sense.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self(Kind::Usage(text.into()))
    }

    pub(crate) fn proto(error: protox::Error, remedy: Option<String>) -> Self {
        Self(Kind::Proto { error, remedy })
    }

    /// A compiled proto uses editions.
    pub(crate) fn editions(file: &str) -> Self {
        Self::usage(format!("{file}: {EDITIONS}"))
    }
}

/// What to do about a proto with `edition = "2023";`.
pub(crate) const EDITIONS: &str = "protobuf editions are not supported: begin the file with \
                                   `syntax = \"proto3\";` or `syntax = \"proto2\";`";

impl From<protox::Error> for Error {
    fn from(error: protox::Error) -> Self {
        Self::proto(error, None)
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
            Kind::Proto { error, remedy: None } => write!(f, "{error:?}"),
            Kind::Proto { error, remedy: Some(remedy) } => write!(f, "{error:?}: {remedy}"),
            Kind::Io { what, source } => write!(f, "{what}: {source}"),
            Kind::Usage(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
